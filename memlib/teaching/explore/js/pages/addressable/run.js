/**
 * What the page computes: a head that moves with the same knobs again and again, and a typed
 * program on its tape.
 *
 * @import { Matrix, Vector } from "../../tensor.js"
 * @import { Moment } from "../../programs.js"
 * @typedef {{eight: Matrix, noise: Vector, rows: Matrix, nodes: Matrix, start: Vector}} Data
 *   eight slots and what is added to one of them for a key; the rows of a digit; a linked list of
 *   digits and the code of its first node
 */
import { interpolate, sharpen, shift } from "../../gates.js";
import { watch } from "../../programs.js";
import { full } from "../../tensor.js";
import { typed } from "../../typed.js";
import { address } from "../../verbs.js";

export const MOST = 32; // moves with the same knobs
export const LONGEST = 1200; // letters of a program
const ROWS = Array.from({ length: 8 }, (_, i) => `row${i + 1}`);
const STORE = ["yield Step(add=marker)", ...ROWS.map((row) => `yield Step(move=+1, add=${row})`)];
const walk = (/** @type {string} */ way) => Array(7).fill(`yield Step(move=${way})`);
export const COPY = [...STORE, "yield Step(key=marker, move=+1)", ...walk("+1")].join("\n");
export const REVERSE = [...STORE, "yield Step()", ...walk("-1")].join("\n");
export const FOLLOW = [
  "node = yield Step(key=start)",
  ...Array(9).fill("node = yield Step(key=node[C : 2 * C])"),
].join("\n");

/**
 * The four stages of the last of some moves, each with the same knobs.
 *
 * @param {any} state
 * @param {Data} data
 */
export function move({ seek, strength, was, gate, back, stay, on, sharpening, moves }, data) {
  const key = Float64Array.from(data.eight[seek], (x, i) => x + data.noise[i]);
  const content = address(key, data.eight, { measure: "cosine", strength }); // eq. 1
  const sum = back + stay + on;
  const shares = sum ? [back / sum, stay / sum, on / sum] : [0, 1, 0];
  const step = (/** @type {Vector} */ previous) => {
    const gated = interpolate(content, previous, gate); // eq. 3
    const moved = shift(gated, shares); // eq. 4
    const weights = sharpen(moved, sharpening); // eq. 5
    return { previous, content, gated, moved, weights };
  };
  let stages = step(Float64Array.from(data.eight, (_, n) => (n === was ? 1 : 0)));
  const history = [stages.previous, stages.weights];
  while (history.length <= moves) {
    stages = step(stages.weights);
    history.push(stages.weights);
  }
  return { ...stages, shares, history, blur: blur(stages.weights) };
}

/**
 * @param {Vector} weights
 * @returns {number} their standard deviation around the largest, the short way round the circle
 */
export function blur(weights) {
  const slots = weights.length;
  const place = Array.from(weights).indexOf(Math.max(...Array.from(weights)));
  let sum = 0;
  for (let n = 0; n < slots; n++) {
    const away = Math.abs(n - place);
    sum += weights[n] * Math.min(away, slots - away) ** 2;
  }
  return Math.sqrt(sum);
}

/**
 * Runs a program as far as it goes.
 *
 * @param {any} state
 * @param {Data} data
 * @returns {{moments: Moment[], start: Matrix, why: string}} why: what was refused
 */
export function execute({ tape, slots, program }, data) {
  const start = tape === "copy" ? full(slots, 9) : data.nodes;
  const marked = (/** @type {Vector} */ row, /** @type {number} */ mark) => [
    ...Array.from(row),
    mark,
  ];
  const rows = Object.fromEntries(ROWS.map((row, i) => [row, marked(data.rows[i], 0)]));
  const copied = { marker: marked(new Float64Array(8), 1), ...rows };
  const names = tape === "copy" ? copied : { start: data.start, C: data.start.length };
  /** @type {Moment[]} */
  const moments = [];
  try {
    for (const moment of watch(typed(program, names), start)) moments.push(moment);
  } catch (error) {
    return { moments, start, why: /** @type {Error} */ (error).message };
  }
  const why = moments.length ? "" : "A program must yield at least one Step; got none.";
  return { moments, start, why };
}
