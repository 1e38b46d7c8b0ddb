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
import { full } from "../../tensor.js";

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

/**
 * @param {number} one
 * @param {number} size
 * @returns {Float64Array} 1 at one place, 0 elsewhere; at -1 nowhere
 */
function onehot(one, size) {
  return Float64Array.from({ length: size }, (_, i) => Number(i === one));
}

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
