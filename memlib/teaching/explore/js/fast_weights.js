/**
 * A matrix as memory, written while it is read (memlib/fast_weights/rules.py): one head, no batch.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 * @typedef {number | Matrix} Gate one number, or a row a step: of one entry, or one a channel
 */
import { read } from "./verbs.js";

/**
 * Write, then read: S <- (I - k (b * k)') D S + k (w * v)', and what is read is S' q.
 *
 * @param {Matrix} query (T, M)
 * @param {Matrix} keys (T, M), taken as they are
 * @param {Matrix} values (T, V)
 * @param {Matrix} before (M, V), the matrix so far; it stays as it is
 * @param {{write?: Gate, erase?: Gate, decay?: Gate, mask?: ArrayLike<boolean>}} [gates] write: w,
 *   how much of a value is written; erase: b, how much of what the key finds is erased; decay: d,
 *   how much of the matrix stays; mask: false = padding, nothing happens there and 0 is read
 * @returns {{reads: Float64Array[], state: Float64Array[]}} (T, V), and the matrix after
 */
export function matrixMemory(query, keys, values, before, gates = {}) {
  const { write: w = 1, erase: b = 0, decay: d = 1, mask } = gates;
  /** @type {Float64Array[]} ours, so that it may change in place */
  const state = Array.from(before, (row) => Float64Array.from(row));
  const reads = Array.from(keys, (key, t) => {
    if (mask && !mask[t]) return new Float64Array(values[t].length);
    if (d !== 1) {
      state.forEach((row, m) => {
        state[m] = gated(at(d, t, m), t, row); // D S
      });
    }
    const add = gated(w, t, values[t]);
    const old = b === 0 ? new Float64Array(add.length) : read(gated(b, t, key), state);
    for (let m = 0; m < state.length; m++) {
      for (let i = 0; i < add.length; i++) state[m][i] += key[m] * (add[i] - old[i]);
    }
    return read(query[t], state);
  });
  return { reads, state };
}

/** @param {Gate} gate @param {number} t @param {number} i a channel @returns {number} */
function at(gate, t, i) {
  if (typeof gate === "number") return gate;
  return gate[t].length === 1 ? gate[t][0] : gate[t][i];
}

/** @param {Gate} gate @param {number} t @param {Vector} vector @returns {Float64Array} gated */
function gated(gate, t, vector) {
  const product = new Float64Array(vector); // a plain loop: `from` with a function is slow
  for (let i = 0; i < product.length; i++) product[i] *= at(gate, t, i);
  return product;
}
