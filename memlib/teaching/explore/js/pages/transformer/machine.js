/**
 * What the machine makes of a state of the page.
 *
 * @import { State } from "../transformer.js"
 * @typedef {ReturnType<ReturnType<typeof asker>>} Answer
 */
import { Decoder, teach } from "../../decoder.js";
import { argmax, softmax } from "../../tensor.js";
import { wordsOf } from "./words.js";

// tokens: countries come first, and from there on their capitals, in the same order
export const COUNTRIES = 16;
export const CAPITALS = 48;
// words that are read
export const MOST = 24;

/**
 * @param {any} machine tensors, and what is known about the training
 * @param {string[]} names of the tokens
 */
export function asker(machine, names) {
  const whole = new Decoder(machine, machine.about.recipe);
  const countries = Array.from({ length: COUNTRIES }, (_, country) => country);
  const taught = kept((/** @type {number[][]} */ facts) =>
    facts.reduce(
      (model, [country, capital]) => teach(model, country, country + CAPITALS, capital),
      whole,
    ),
  );
  const read = kept(
    (/** @type {number[]} */ tokens, /** @type {any} */ cuts, /** @type {number[][]} */ facts) =>
      taught(facts).forward(tokens, cuts),
  );
  const alone = kept((/** @type {string[]} */ without, /** @type {number[][]} */ facts) =>
    countries.map((country) => argmax(taught(facts).forward([country], { without })[0].logits)),
  );
  return (/** @type {State} */ state) => {
    const words = wordsOf(state.text, names, MOST);
    const tokens = words.flatMap(({ token, position }) => (position < 0 ? [] : token));
    const last = tokens.length - 1;
    const asked = state.asked < 0 ? last : Math.min(state.asked, last);
    const { rule, window } = state;
    const aged = rule === "window"; // then layers need not forget what no query reads
    const cuts = {
      without: state.off,
      window: aged && window < MOST ? window : Infinity,
      forget: aged || window === MOST ? undefined : { rule, slots: window - 1 },
      dropped: state.dropped,
      edits: state.edits.map(([position, token, layers]) => ({
        position,
        token,
        layers: [1, 2].filter((layer) => layer & layers),
      })),
    };
    const capitals = countries.map((country) => country + CAPITALS);
    for (const [country, capital] of state.facts) capitals[country] = capital;
    const step = read(tokens, cuts, state.facts)[asked];
    return {
      words,
      tokens,
      asked,
      step,
      shares: step ? softmax(step.logits) : new Float64Array(names.length),
      alone: alone(state.off, state.facts),
      capitals, // those that are wanted
    };
  };
}

/**
 * @template {any[]} A
 * @template T
 * @param {(...given: A) => T} compute
 * @returns {(...given: A) => T} the same, which computes only what it has not computed of late
 */
function kept(compute) {
  /** @type {Map<string, T>} */
  const known = new Map();
  return (...given) => {
    const key = JSON.stringify(given);
    const value = known.get(key) ?? compute(...given);
    if (known.size > 20) known.clear();
    known.set(key, value);
    return value;
  };
}
