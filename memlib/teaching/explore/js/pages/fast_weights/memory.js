/**
 * What two matrices hold once all has been told: one that adds, one that corrects.
 *
 * @import { Vector } from "../../tensor.js"
 * @import { Alike } from "./words.js"
 * @typedef {[name: string, place: string]} Fact
 * @typedef {Alike & {facts: number, rate: number, rounds: number, told: Fact[], name: string}} Story
 *   facts: how many of the known ones are told, so many rounds; then what the reader told
 * @typedef {object} Held by one matrix
 * @property {Float64Array[]} matrix (M, V)
 * @property {Float64Array[]} alike of what is read for each name: its cosines with all places
 * @property {number[]} answers the most alike place of each name; -1 where nothing is read
 * @property {number} right how many of the answers are the place told last
 * @property {Float64Array} read for the name that is asked for
 * @property {Float64Array} asked its cosines with all places
 * @typedef {Record<"sum" | "delta", Held>} Both
 */
import { matrixMemory } from "../../fast_weights.js";
import { argmax, full } from "../../tensor.js";
import { read, similarity } from "../../verbs.js";
import { keyer, valueFor, wordOf } from "./words.js";

/**
 * @param {Fact[]} known
 * @returns {(story: Story) => Both & {names: string[], told: number[][], places: string[],
 *   key: Float64Array}} told: by name the places that it was told, the last one counts
 */
export function listener(known) {
  const people = known.map(([name]) => name);
  const towns = [...new Set(known.map(([, place]) => place))];
  return (story) => {
    const listed = known.slice(0, story.facts);
    const facts = [...Array(story.rounds).fill(listed).flat(), ...story.told];
    const places = [...new Set([...towns, ...story.told.map(([, place]) => place)])];
    const names = [...new Set([...listed, ...story.told].map(([name]) => name))];
    const told = names.map((name) => placesOf(name, [...listed, ...story.told], places));

    const keyOf = keyer(story, people);
    const keys = new Map(names.map((name) => [name, keyOf(name)]));
    const values = new Map(places.map((place) => [place, valueFor(place)]));
    const steps = facts.map(([name]) => /** @type {Float64Array} */ (keys.get(name)));
    const adds = facts.map(([, place]) => /** @type {Float64Array} */ (values.get(place)));
    const key = keyOf(wordOf(story.name));

    /** @param {number} erase @returns {Held} */
    const held = (erase) => {
      const empty = full(key.length, key.length);
      const { state } = matrixMemory(steps, steps, adds, empty, { write: story.rate, erase });
      const compare = (/** @type {Vector} */ got) =>
        similarity(got, [...values.values()], "cosine");
      const alike = Array.from(keys.values(), (one) => compare(read(one, state)));
      const answers = alike.map(best);
      const right = answers.filter((place, n) => place === told[n].at(-1)).length;
      const got = read(key, state);
      return { matrix: state, alike, answers, right, read: got, asked: compare(got) };
    };
    return { sum: held(0), delta: held(story.rate), names, told, places, key };
  };
}

/** @param {string} name @param {Fact[]} facts @param {string[]} places @returns {number[]} */
function placesOf(name, facts, places) {
  const own = facts.filter(([who]) => who === name).map(([, place]) => places.indexOf(place));
  return own.filter((place, i) => place !== own[i - 1]);
}

/**
 * @param {Vector} cosines of what is read, with all places
 * @returns {number} the most alike place, of equals the one told first; -1 where nothing was read
 */
export function best(cosines) {
  const most = cosines[argmax(cosines)];
  return most ? Array.from(cosines).findIndex((one) => one > most - 1e-9) : -1;
}
