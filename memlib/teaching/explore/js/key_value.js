/**
 * Key-value memory (memlib/key_value.py): pairs are written into slots and read back by
 * similarity to their keys.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 * @import { Measure } from "./verbs.js"
 * @typedef {object} KeyValueState what a memory holds; a new one comes out of every change
 * @property {Matrix} keys (N, M); 0 in empty slots
 * @property {Matrix} values (N, V); 0 in empty slots
 * @property {number[]} written (N); 0 for an empty slot, else the order number of its write
 */
import { full } from "./tensor.js";
import { address, read, write } from "./verbs.js";

export class KeyValueMemory {
  /**
   * @param {number} slots N
   * @param {number} width M
   * @param {number} valueWidth V
   * @param {Measure} [measure]
   */
  constructor(slots, width, valueWidth, measure = "scaled_dot") {
    this.slots = slots;
    this.width = width;
    this.valueWidth = valueWidth;
    this.measure = measure;
  }

  /** @returns {KeyValueState} an empty memory */
  initialState() {
    const { slots, width, valueWidth } = this;
    return {
      keys: full(slots, width),
      values: full(slots, valueWidth),
      written: Array(slots).fill(0),
    };
  }

  /**
   * Stores a pair in a free slot, else over the oldest.
   *
   * @param {Vector} key (M)
   * @param {Vector} value (V)
   * @param {KeyValueState} state
   * @returns {KeyValueState}
   */
  write(key, value, { keys, values, written }) {
    // A free slot, 0, is "older" than any pair.
    const slot = written.indexOf(Math.min(...written));
    return {
      keys: overwrite(keys, slot, key),
      values: overwrite(values, slot, value),
      written: written.with(slot, Math.max(...written) + 1),
    };
  }

  /**
   * @param {Vector} query (M)
   * @param {KeyValueState} state
   * @param {number} [strength]
   * @returns {[Float64Array, Float64Array]} value (V), 0 from an empty memory, and weights (N)
   */
  read(query, { keys, values, written }, strength = 1) {
    const mask = written.map((order) => order > 0);
    const weights = address(query, keys, { measure: this.measure, strength, mask });
    return [read(weights, values), weights];
  }

  /**
   * Forgets the pairs in the marked slots, which are free again.
   *
   * @param {ArrayLike<boolean>} where (N)
   * @param {KeyValueState} state
   * @returns {KeyValueState}
   */
  delete(where, { keys, values, written }) {
    const clear = (/** @type {Matrix} */ memory) =>
      Array.from(memory, (row, n) => (where[n] ? new Float64Array(row.length) : row));
    return {
      keys: clear(keys),
      values: clear(values),
      written: written.map((order, n) => (where[n] ? 0 : order)),
    };
  }
}

/**
 * An assignment is a write: one-hot weights, and all of the slot erased.
 *
 * @param {Matrix} memory (N, M)
 * @param {number} slot
 * @param {Vector} vector (M)
 * @returns {Float64Array[]}
 */
export function overwrite(memory, slot, vector) {
  const oneHot = Array.from(memory, (_, n) => (n === slot ? 1 : 0));
  return write(memory, oneHot, vector, new Float64Array(vector.length).fill(1));
}
