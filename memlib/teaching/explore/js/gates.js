/**
 * Addressable memory: find a slot by content, then move from it by location
 * (memlib/addressable/gates.py), one head.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 * @typedef {object} Gates what a head tells the memory
 * @property {Vector} key (M), the content k looked for
 * @property {number} strength β, how sharply
 * @property {number} gate g: 1 follows the content, 0 stays where the head was
 * @property {Vector} shift (S), s: how much to move by each of S steps around 0
 * @property {number} sharpening γ, at least 1
 */
import { sigmoid, softmax, softplus } from "./tensor.js";
import { address } from "./verbs.js";

/**
 * Blend content and previous weights: w^g = g w^c + (1 - g) w_(t-1).
 *
 * @param {Vector} content (N)
 * @param {Vector} previous (N)
 * @param {number} gate g in [0, 1]
 * @returns {Float64Array} weights (N)
 */
export function interpolate(content, previous, gate) {
  return Float64Array.from(content, (weight, n) => gate * weight + (1 - gate) * previous[n]);
}

/**
 * Move weights around a circle: w~(n) = sum of s(j) w(n - j mod N).
 *
 * @param {Vector} weights (N)
 * @param {Vector} shift (S), S odd and at most N; the entry in the middle stays
 * @returns {Float64Array} weights (N)
 */
export function shift(weights, shift) {
  const slots = weights.length;
  const reach = (shift.length - 1) / 2;
  const moved = new Float64Array(slots);
  for (let j = -reach; j <= reach; j++) {
    for (let n = 0; n < slots; n++) moved[(n + j + slots) % slots] += shift[j + reach] * weights[n];
  }
  return moved;
}

/**
 * Undo the blur of a shift: w(n) = w~(n)^γ / sum of w~^γ, which is softmax(γ log w~).
 *
 * @param {Vector} weights (N), at least 0
 * @param {number} sharpening γ
 * @returns {Float64Array} weights (N); all 0 where they were all 0
 */
export function sharpen(weights, sharpening) {
  return softmax(Float64Array.from(weights, (weight) => sharpening * Math.log(weight)));
}

/**
 * Turn gates into weights: content, then interpolate, shift, sharpen.
 *
 * @param {Gates} gates
 * @param {Matrix} memory (N, M)
 * @param {Vector} previous (N), the weights of the step before
 * @returns {Float64Array} weights (N)
 */
export function locate(gates, memory, previous) {
  const content = address(gates.key, memory, { measure: "cosine", strength: gates.strength });
  const gated = interpolate(content, previous, gates.gate);
  return sharpen(shift(gated, gates.shift), gates.sharpening);
}

/**
 * Squash what a linear layer says into the ranges of the gates.
 *
 * @param {Float64Array} raw (M + S + 3): key, shift, gate, strength, sharpening
 * @param {number} width M
 * @returns {Gates}
 */
export function squash(raw, width) {
  const [gate, strength, sharpening] = raw.subarray(-3);
  return {
    key: raw.subarray(0, width).map(Math.tanh),
    strength: softplus(strength),
    gate: sigmoid(gate),
    shift: softmax(raw.subarray(width, -3)),
    sharpening: 1 + softplus(sharpening),
  };
}
