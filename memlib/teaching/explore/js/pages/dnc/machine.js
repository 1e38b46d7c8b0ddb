/**
 * What the recorded machines are given: copies in rounds, a memory, and gates that are shut.
 *
 * @import { DNCState } from "../../dnc.js"
 * @import { Gate } from "../../interface.js"
 * @import { Task } from "../../tasks.js"
 */
import { bytes, choice, flag, number } from "../../kit/fields.js";
import { copy, inRounds } from "../../tasks.js";
import { argmax } from "../../tensor.js";

export const BITS = 6;
export const ROUNDS = 10;
export const LONGEST = 5;
export const MACHINES = { original: "DNC of 2016", repaired: "repaired: what is freed is erased" };
/** @type {Gate[]} */
export const GATES = ["free", "allocate", "write", "back", "alike", "forth"];
// any vectors will do: the multiples of a number prime to 64
const VECTORS = Array.from({ length: ROUNDS * LONGEST }, (_, i) => (29 * (i + 1)) % 64);

/** @type {Record<string, any>} */
export const fields = {
  machine: choice("original", Object.keys(MACHINES)),
  length: number(5, 1, LONGEST, { whole: true }),
  rounds: number(ROUNDS, 1, ROUNDS, { whole: true }),
  slots: number(8, 4, 16, { whole: true }),
  vectors: bytes(VECTORS, ROUNDS * LONGEST, ROUNDS * LONGEST, 2 ** BITS - 1),
  ...Object.fromEntries(GATES.map((gate) => [`no-${gate}`, flag(false)])),
  step: number(6, 0, ROUNDS * (2 * LONGEST + 1) - 1, { whole: true }),
};

/** @param {any} state @returns {number} of the run, in steps */
export const steps = ({ length, rounds }) => rounds * (2 * length + 1);

/** @param {any} state @returns {Gate[]} that are shut */
export const shut = (state) => GATES.filter((gate) => state[`no-${gate}`]);

/**
 * @param {any} state
 * @returns {Task} copies, one after the other
 */
export function sequence({ vectors, length, rounds }) {
  /** @param {number} whole */
  const bits = (whole) => Array.from({ length: BITS }, (_, i) => (whole >> i) & 1);
  const round = (/** @type {number} */ r) =>
    vectors.slice(r * LONGEST, r * LONGEST + length).map(bits);
  return inRounds(Array.from({ length: rounds }, (_, r) => copy(round(r))));
}

/**
 * @param {any} state
 * @param {number} t
 * @returns {{round: number, at: number}} of a step
 */
export function place({ length }, t) {
  const long = 2 * length + 1;
  return { round: Math.floor(t / long), at: t % long };
}

/**
 * What each slot holds at a step: the vector that was written there last, such as "3.2" for the
 * second of the third round, or a dot for a write while none came in.
 *
 * @param {any} state
 * @param {DNCState[]} states
 * @param {number} step
 * @returns {string[]}
 */
export function held(state, states, step) {
  const names = Array(state.slots).fill("");
  for (let t = 0; t <= step; t++) {
    const writing = states[t].weights[1];
    const { round, at } = place(state, t);
    const slot = argmax(writing);
    if (writing[slot] > 0.5) names[slot] = at < state.length ? `${round + 1}.${at + 1}` : "·";
  }
  return names;
}

/**
 * @param {any} state
 * @param {boolean[][]} wrong bits of a run
 * @returns {number[]} how many of each round
 */
export function byRound(state, wrong) {
  const rounds = Array(state.rounds).fill(0);
  wrong.forEach((bits, t) => {
    rounds[place(state, t).round] += bits.filter(Boolean).length;
  });
  return rounds;
}
