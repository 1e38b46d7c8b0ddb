/**
 * Walk along the road, and move its stations.
 * Six slots: the place of a station is its key, the temperature there its value.
 *
 * @import { Frame } from "../kit/frame.js"
 * @typedef {object} Road what the reader has made of it
 * @property {number} here the query: where the reader stands
 * @property {number} strength
 * @property {import("../verbs.js").Measure} measure
 * @property {"straight" | "lake"} road
 * @property {number[]} at (6) the kilometer of each slot
 * @property {number[]} degrees (6)
 * @property {number[]} written (6) the order of writing; 0 for a free slot
 * @property {number} slot the chosen one
 * @property {number} says what the thermometer of a new station says
 */

import { KeyValueMemory, overwrite } from "../key_value.js";
import { button, choose, panel, slider } from "../kit/controls.js";
import { el, put } from "../kit/dom.js";
import { percent, round } from "../kit/draw.js";
import { choice, list, number } from "../kit/fields.js";
import { argmax } from "../tensor.js";
import { HIGH, LOW, map, slots, WARM } from "./key_value/road.js";

const SLOTS = 6;
const RADIUS = 2; // of the lake, in kilometers
const MEASURES = {
  negative_squared_distance: "−distance²",
  dot: "dot",
  scaled_dot: "scaled dot",
  cosine: "cosine",
};

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    here: number(2.4, LOW, HIGH),
    strength: number(2, 0, 20),
    measure: choice("negative_squared_distance", Object.keys(MEASURES)),
    road: choice("straight", ["straight", "lake"]),
    at: list([0, 1, 2, 3, 4, 0], number(0, LOW, HIGH), SLOTS, SLOTS),
    degrees: list([12, 15, 21, 19, 16, 0], number(0, 0, WARM), SLOTS, SLOTS),
    written: list([1, 2, 3, 4, 5, 0], number(0, 0, 1e9, { whole: true }), SLOTS, SLOTS),
    slot: number(2, 0, SLOTS - 1, { whole: true }),
    says: number(9, 0, WARM),
  },
  tries: [
    {
      text: "Stand on the station at kilometer 1 and take the dot product. Which station answers?",
      state: { here: 1, measure: "dot" },
    },
    {
      text:
        "Stand on the station at kilometer 2, set the strength to 20 and write a pair of 9 degrees " +
        "there. Which temperature does the memory now give for this place?",
      state: {
        here: 2,
        strength: 20,
        at: [0, 1, 2, 3, 4, 2],
        degrees: [12, 15, 21, 19, 16, 9],
        written: [1, 2, 3, 4, 5, 6],
        slot: 5,
      },
    },
    {
      text:
        "Take the cosine, any strength, and walk the whole road: how many temperatures are there? " +
        "Then bend the road around the lake.",
      state: { measure: "cosine", strength: 20 },
    },
  ],
  check({ at, degrees, written, slot }) {
    const taken = written.filter((/** @type {number} */ order) => order > 0);
    const free = (/** @type {number} */ n) => written[n] || (at[n] === 0 && degrees[n] === 0);
    const chosen = taken.length ? written[slot] > 0 : true;
    return (
      new Set(taken).size === taken.length &&
      written.every((/** @type {any} */ _, /** @type {number} */ n) => free(n)) &&
      chosen
    );
  },
  build,
};

/**
 * @param {number} x kilometers along the road
 * @param {Road["road"]} road
 * @returns {number[]} its key: x, or, bent around the lake, the place seen from the lake's middle
 */
function keyOf(x, road) {
  const angle = (x - (LOW + HIGH) / 2) / RADIUS;
  return road === "straight" ? [x] : [RADIUS * Math.sin(angle), RADIUS * Math.cos(angle)];
}

/** @param {Road} state @returns {import("../key_value.js").KeyValueState} the slots as they are */
function stored({ at, degrees, written }) {
  return { keys: at.map((x) => [x]), values: degrees.map((value) => [value]), written };
}

/** @param {import("../key_value.js").KeyValueState} memory @returns {Partial<Road>} */
function changed({ keys, values, written }) {
  return {
    at: Array.from(keys, (row) => row[0]),
    degrees: Array.from(values, (row) => row[0]),
    written,
  };
}

/** @param {Frame} frame */
function build(frame) {
  const memory = new KeyValueMemory(SLOTS, 1, 1);
  const now = () => /** @type {Road} */ (frame.state);
  /** @param {Road} state @returns {(x: number) => [Float64Array, Float64Array]} a read anywhere */
  const reader = (state) => {
    const keys = state.at.map((x) => keyOf(x, state.road));
    const bent = new KeyValueMemory(SLOTS, keys[0].length, 1, state.measure);
    return (x) => bent.read(keyOf(x, state.road), { ...stored(state), keys }, state.strength);
  };

  const add = () => {
    const { here, says, written } = now();
    const after = memory.write([here], [says], stored(now()));
    frame.set({ ...changed(after), slot: after.written.findIndex((n, i) => n !== written[i]) });
  };
  const replace = () => {
    const { here, says } = now();
    const slot = argmax(reader(now())(here)[1]);
    const values = overwrite(stored(now()).values, slot, [says]);
    frame.set({ degrees: values.map(([value]) => value), slot });
  };
  const remove = () => {
    const where = now().written.map((_, n) => n === now().slot);
    const after = memory.delete(where, stored(now()));
    const slot = Math.max(
      after.written.findIndex((order) => order > 0),
      0,
    );
    frame.set({ ...changed(after), slot });
    if (drop.disabled) added.focus();
  };

  const drawn = map(frame);
  const held = slots(frame, SLOTS);
  const added = button("Write a pair here", add);
  const over = button("Overwrite the most alike", replace);
  const drop = button("Delete the chosen station", remove);
  const place = (/** @type {number} */ x) => round(x);
  const warm = (/** @type {number} */ v) => `${round(v, 1)}°`;
  const road = { straight: "straight", lake: "bent around a lake" };
  const here = { label: "you stand at", low: LOW, high: HIGH, step: 0.05, show: place };
  const says = { label: "it says", low: 0, high: WARM, step: 0.5, show: warm };
  frame.lab.append(
    ...drawn.elements,
    frame.said,
    slider(frame, "here", here),
    slider(frame, "strength", { label: "strength β", low: 0, high: 20, step: 0.5 }),
    choose(frame, "measure", "Measure", MEASURES),
    choose(frame, "road", "The road is", road),
    el(
      "div",
      { class: "ml-row" },
      panel("Six slots, and what each counts", held.element, el("p", {}, drop)),
      el(
        "div",
        {},
        panel("The chosen station", ...held.sliders),
        panel(
          "A new thermometer, where you stand",
          slider(frame, "says", says),
          el("div", { class: "ml-bar" }, added, over),
        ),
      ),
    ),
  );

  return (/** @type {Road} */ state) => {
    const ask = reader(state);
    const [value, weights] = ask(state.here);
    const places = Array.from({ length: 121 }, (_, i) => LOW + (i * (HIGH - LOW)) / 120);
    const curve = places.map((x) => ask(x)[0][0]);
    const none = state.written.every((order) => !order);
    drawn.show(state, places, curve, value[0], weights);
    held.show(state, weights);
    for (const one of [over, drop]) put(one, { disabled: none });
    const who = none ? "No station is left." : sentence(state, weights);
    const seen = { weights, value, curve, ...stored(state) };
    frame.say(`${who} Read: ${round(value[0])} degrees.`, seen);
  };
}

/**
 * @param {Road} state
 * @param {Float64Array} weights
 * @returns {string} which stations count here
 */
function sentence({ here, at, written, strength, measure }, weights) {
  const filled = [...written.keys()].filter((n) => written[n]);
  const best = argmax(weights);
  const equal = filled.filter((n) => Math.abs(weights[n] - weights[best]) < 1e-9);
  const away = (/** @type {number} */ n) => Math.abs(at[n] - here);
  const nearest = filled.reduce((a, b) => (away(b) < away(a) ? b : a));
  const start = `At kilometer ${round(here)},`;
  if (filled.length === 1) return `${start} the only station answers, with 100 %.`;
  if (equal.length > 1) {
    const who = equal.length === filled.length ? "all" : equal.length;
    const why = strength ? `${MEASURES[measure]} cannot tell them apart` : "the strength is 0";
    return `${start} ${who} stations count alike, ${percent(weights[best])} each: ${why}.`;
  }
  const most = `${start} the station at ${round(at[best], 1)} counts ${percent(weights[best])}`;
  if (away(best) <= away(nearest)) return `${most}.`;
  return `${most}; the nearest, at ${round(at[nearest], 1)}, ${percent(weights[nearest])}.`;
}
