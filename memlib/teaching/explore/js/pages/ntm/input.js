/**
 * What the machines are shown: vectors and items, as whole numbers whose bits they are.
 *
 * @import { Task } from "../../tasks.js"
 * @import { Vector } from "../../tensor.js"
 */
import { bytes, number } from "../../kit/fields.js";
import { generator } from "../../random.js";
import { associativeRecall, copy } from "../../tasks.js";

const FACE = [0x3c, 0x42, 0x95, 0xa1, 0xa1, 0x95, 0x42, 0x3c]; // a column of 8 bits each
const DIGITS = [34, 63, 32, 49, 41, 38, 33, 37, 26, 15, 8, 63, 39, 37, 25, 30, 37, 25]; // of 6 bits
export const SIZE = 3; // vectors of an item
export const MOST = { copy: 130, recall: 6 };

export const fields = {
  length: number(FACE.length, 1, MOST.copy, { whole: true }),
  bits: bytes(FACE, 0, MOST.copy),
  draw: number(1, 1, 9999, { whole: true }),
  from: number(0, 0, MOST.copy, { whole: true }),
  count: number(MOST.recall, 2, MOST.recall, { whole: true }),
  items: bytes(DIGITS, DIGITS.length, DIGITS.length, 63),
  asked: number(3, 1, MOST.recall - 1, { whole: true }),
  query: bytes([], 0, SIZE, 63),
};

/** @returns {number[]} the vectors to be copied: the reader's, and beyond them drawn ones */
export const vectors = (/** @type {any} */ { length, bits, draw }) =>
  drawn(draw, length, 8).map((vector, t) => bits[t] ?? vector);
export const item = (/** @type {any} */ { items }, /** @type {number} */ k) =>
  items.slice(SIZE * k, SIZE * (k + 1));
export const asked = (/** @type {any} */ state) => Math.min(state.asked, state.count - 1);
export const query = (/** @type {any} */ state) =>
  Array.from(item(state, asked(state) - 1), (vector, i) => state.query[i] ?? vector);

/**
 * @param {any} state
 * @returns {Task}
 */
export function sequence(state) {
  if (state.task === "copy") return copy(vectors(state).map((vector) => unfold(vector, 8)));
  const items = Array.from({ length: state.count }, (_, k) => item(state, k));
  const [shown, said] = [query(state), items[asked(state)]].map((one) => spread(one));
  return associativeRecall(items.map(spread), shown, said);
}

/**
 * @param {any} state
 * @returns {number} steps of its sequence
 */
export function steps(state) {
  return state.task === "copy" ? 2 * state.length + 1 : (SIZE + 1) * state.count + 2 * SIZE + 2;
}

/**
 * @param {any} state
 * @param {Vector[]} logits of a run
 * @returns {number} which item the last steps say in every bit, from 0; -1 if none
 */
export function found(state, logits) {
  const said = logits.slice(-SIZE).map((row) => Array.from(row, (logit) => Number(logit > 0)));
  const items = Array.from({ length: state.count }, (_, k) => spread(item(state, k)));
  return items.findIndex((one) => one.join() === said.join());
}

/**
 * @param {any} state
 * @param {number} t
 * @returns {string} what happens in a step
 */
export function event(state, t) {
  const answers = t - steps(state) + (state.task === "copy" ? state.length : SIZE);
  if (answers >= 0) return `answer ${answers + 1}`;
  if (state.task === "copy") return t < state.length ? `vector ${t + 1} comes in` : "the delimiter";
  const [k, i] = [Math.floor(t / (SIZE + 1)), t % (SIZE + 1)];
  if (k >= state.count) return i ? `vector ${i} of the query` : "a delimiter of the query";
  return i ? `vector ${i} of item ${k + 1} comes in` : `the delimiter before item ${k + 1}`;
}

/**
 * @param {number} vector
 * @param {number} bits
 * @returns {number[]} its bits, the lowest first
 */
export function unfold(vector, bits) {
  return Array.from({ length: bits }, (_, i) => (vector >> i) & 1);
}

/** @param {number[]} item */
function spread(item) {
  return item.map((vector) => unfold(vector, 6));
}

/** @type {(vector: number, bit: number, on: boolean) => number} */
export function flipped(vector, bit, on) {
  return on ? vector | (1 << bit) : vector & ~(1 << bit);
}

/**
 * @param {number} seed
 * @param {number} count
 * @param {number} bits
 * @returns {number[]} vectors, the same for the same seed
 */
export function drawn(seed, count, bits) {
  const draw = generator(seed);
  return Array.from({ length: count }, () => Math.floor(draw() * 2 ** bits));
}
