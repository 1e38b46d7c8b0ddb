/**
 * Steps of addressing (memlib/addressable/gates.py).
 *
 * @import { Vector } from "./tensor.js"
 */
import { softmax } from "./tensor.js";

/**
 * @param {Vector} content (N), weights found by content
 * @param {Vector} previous (N), weights of the step before
 * @param {number} gate g: 1 follows the content
 * @returns {Float64Array} (N)
 */
export function interpolate(content, previous, gate) {
  return Float64Array.from(content, (weight, n) => gate * weight + (1 - gate) * previous[n]);
}

/**
 * @param {Vector} weights (N)
 * @param {number} sharpening the power
 * @returns {Float64Array} (N), summing to 1; all 0 where every weight is
 */
export function sharpen(weights, sharpening) {
  return softmax(Float64Array.from(weights, (weight) => sharpening * Math.log(weight)));
}
