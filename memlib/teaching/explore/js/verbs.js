/**
 * The three verbs of every memory: address, read, write (memlib/attention/verbs.py), one query.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 * @typedef {"dot" | "scaled_dot" | "cosine" | "negative_squared_distance"} Measure
 */
import { dot, norm, softmax } from "./tensor.js";

/**
 * @param {Vector} vector of any size: its squares may be beyond every number
 * @returns {Float64Array} q / |q|; zeros stay zeros
 */
function unit(vector) {
  const near = new Float64Array(vector);
  let greatest = 0;
  for (let i = 0; i < near.length; i++) greatest = Math.max(greatest, Math.abs(near[i]));
  if (!greatest) return near;
  for (let i = 0; i < near.length; i++) near[i] /= greatest;
  const length = norm(near);
  for (let i = 0; i < near.length; i++) near[i] /= length;
  return near;
}

/** @type {Record<Measure, (query: Vector) => (key: Vector) => number>} */
const MEASURES = {
  dot: (query) => (key) => dot(query, key),
  scaled_dot: (query) => (key) => dot(query, key) / Math.sqrt(query.length),
  cosine(query) {
    const near = unit(query);
    return (key) => {
      const length = norm(key);
      const ordinary = length > 1e-140 && length < 1e140;
      return ordinary ? dot(near, key) / length : dot(near, unit(key));
    };
  },
  negative_squared_distance: (query) => (key) => {
    let sum = 0;
    for (let i = 0; i < query.length; i++) sum -= (query[i] - key[i]) ** 2;
    return sum;
  },
};

/**
 * @param {Vector} query (M)
 * @param {Matrix} keys (N, M)
 * @param {Measure} [measure]
 * @returns {Float64Array} scores (N)
 */
export function similarity(query, keys, measure = "scaled_dot") {
  const score = MEASURES[measure](query);
  return Float64Array.from(keys, score);
}

/**
 * Where to look: w = softmax(strength * K(query, keys)).
 *
 * @param {Vector} query (M)
 * @param {Matrix} keys (N, M)
 * @param {{measure?: Measure, strength?: number, mask?: ArrayLike<boolean>}} [options] mask: true
 *   = may be read
 * @returns {Float64Array} weights (N)
 */
export function address(query, keys, { measure = "scaled_dot", strength = 1, mask } = {}) {
  const scores = similarity(query, keys, measure);
  for (let n = 0; n < scores.length; n++) {
    scores[n] = !mask || mask[n] ? strength * scores[n] : -Infinity;
  }
  return softmax(scores);
}

/**
 * What comes back: r = sum of w_n v_n.
 *
 * @param {Vector} weights (N)
 * @param {Matrix} values (N, V)
 * @returns {Float64Array} (V)
 */
export function read(weights, values) {
  const value = new Float64Array(values.length ? values[0].length : 0);
  for (let n = 0; n < weights.length; n++) {
    const weight = weights[n];
    const row = values[n];
    if (weight) for (let i = 0; i < value.length; i++) value[i] += weight * row[i];
  }
  return value;
}

/**
 * What changes: M'_n = M_n (1 - w_n e) + w_n a.
 *
 * @param {Matrix} memory (N, M); it stays as it is
 * @param {Vector} weights (N)
 * @param {Vector} add (M)
 * @param {Vector} [erase] (M), in [0, 1]; without it nothing is erased
 * @returns {Float64Array[]} the new memory
 */
export function write(memory, weights, add, erase) {
  return Array.from(memory, (row, n) => {
    // a plain loop: this is most of a machine's step, and `from` with a function is four times slower
    const next = new Float64Array(row.length);
    for (let i = 0; i < next.length; i++) {
      next[i] = row[i] * (1 - weights[n] * (erase ? erase[i] : 0)) + weights[n] * add[i];
    }
    return next;
  });
}

/**
 * One read: the sum of the values, weighted by address.
 *
 * @param {Vector} query (M)
 * @param {Matrix} keys (N, M)
 * @param {Matrix} values (N, V)
 * @param {Parameters<typeof address>[2]} [options]
 * @returns {Float64Array} (V)
 */
export function attend(query, keys, values, options) {
  return read(address(query, keys, options), values);
}
