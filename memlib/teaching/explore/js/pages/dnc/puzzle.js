/**
 * Exercise 4 as a puzzle: be the controller, and copy in rounds with no slot to spare
 * (memlib/teaching/exercises/dnc.py). The first vector of a round is stored with a mark, which is
 * what it is asked for by; a write goes to a free slot.
 *
 * @import { DNCState } from "../../dnc.js"
 * @typedef {"first" | "store" | "ask" | "next"} Kind of a step
 * @typedef {"back" | "alike" | "forth"} Mode
 * @typedef {Record<Kind, {free: boolean, write: boolean, mode: Mode}>} Table what the reader says
 */
import { change } from "../../dnc.js";
import { argmax, full, onehot } from "../../tensor.js";

const LENGTH = 3;
const ROUNDS = 5;
const VECTORS = LENGTH * ROUNDS;
const FAR = 1001; // a strength; the gates are at their extremes

/** @type {Kind[]} */
export const KINDS = ["first", "store", "ask", "next"];
/** @type {Mode[]} */
export const MODES = ["back", "alike", "forth"];
/** The kinds of the steps of a round. @type {Kind[]} */
export const ROUND = ["first", "store", "store", "ask", "next", "next"];

/** @returns {DNCState} three slots, all free, and a controller that needs no state */
function start() {
  return {
    memory: full(LENGTH, VECTORS + 1, 1e-6),
    reads: full(1, VECTORS + 1),
    weights: full(2, LENGTH),
    usage: new Float64Array(LENGTH),
    links: [full(LENGTH, LENGTH)],
    precedence: full(1, LENGTH),
    hidden: new Float64Array(0),
    cell: new Float64Array(0),
  };
}

/**
 * @param {Table} table
 * @returns {DNCState[]} the state after each step: five rounds of six
 */
export function play(table) {
  const states = [];
  const [mark, width] = [onehot(VECTORS, VECTORS + 1), VECTORS + 1];
  let state = start();
  for (let t = 0; t < ROUNDS * ROUND.length; t++) {
    const at = t % ROUND.length;
    const kind = ROUND[at];
    const vector = at < LENGTH ? LENGTH * Math.floor(t / ROUND.length) + at : -1;
    const add = onehot(vector, width);
    if (kind === "first") add[VECTORS] = 1;
    const { free, write, mode } = table[kind];
    const told = {
      key: [mark, new Float64Array(width)],
      strength: Float64Array.of(FAR, FAR),
      mask: [],
      add: [add],
      erase: [new Float64Array(width).fill(1)],
      free: Float64Array.of(Number(free)),
      allocation: Float64Array.of(1),
      write: Float64Array.of(Number(write)),
      modes: [onehot(MODES.indexOf(mode), MODES.length)],
      sharpening: [],
    };
    state = change(told, state);
    states.push(state);
  }
  return states;
}

/**
 * @param {DNCState[]} states
 * @returns {Float64Array[]} what came back for each vector, without the mark
 */
export function answers(states) {
  const said = states.filter((_, t) => t % ROUND.length >= LENGTH);
  return said.map(({ reads }) => reads[0].subarray(0, VECTORS));
}

/**
 * @param {Float64Array[]} came
 * @returns {boolean[]} whether each is the vector that is asked for
 */
export function right(came) {
  return came.map((row, k) => row.every((x, i) => Math.abs(x - Number(i === k)) <= 1e-3));
}

/**
 * @param {Table} table
 * @param {boolean[]} good
 * @returns {string} what the checker of the exercise says
 */
export function verdict(table, good) {
  if (good.every(Boolean)) return `right: ${VECTORS} vectors through ${LENGTH} slots.`;
  const failed = Math.floor(good.indexOf(false) / LENGTH) + 1;
  const { first, store, ask, next } = table;
  for (const kind of KINDS) {
    const wanted = kind === "first" || kind === "store";
    if (table[kind].write === wanted) continue;
    return wanted
      ? `at '${kind}' a vector comes in: open the write gate`
      : `at '${kind}' nothing comes in: a write would fill a slot with nothing`;
  }
  if (ask.mode !== "alike") return "the start is found by its mark: at 'ask' the mode is 'alike'";
  if (next.mode !== "forth") {
    return "the next vector is the one written next: at 'next' the mode is 'forth'";
  }
  if (!KINDS.some((kind) => table[kind].free)) {
    return `nothing is ever freed: in round ${failed} there is no room`;
  }
  if (!next.free) return "at 'next' the vector read one step ago has been said: free it";
  if (!first.free) {
    return "the last vector of a round was read one step before the next round: free it there";
  }
  if (ask.free || store.free) {
    return (
      "the free gate acts on what was read one step ago: at 'store' and 'ask' that may be a " +
      "vector of this round, which is still needed"
    );
  }
  return `in round ${failed} what came back is not what was stored`;
}

/**
 * @param {Float64Array} row numbers of vectors
 * @returns {string} the letter of the vector that has most of it, or nothing
 */
export function letter(row) {
  const vector = argmax(row.subarray(0, VECTORS));
  return row[vector] > 0.5 ? String.fromCharCode(65 + vector) : "";
}
