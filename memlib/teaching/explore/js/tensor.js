/**
 * Vectors and matrices, and the few functions on them that every memory shares.
 *
 * @typedef {ArrayLike<number>} Vector numbers in a row
 * @typedef {ArrayLike<Vector>} Matrix an array of rows
 */

/**
 * @param {Vector} a
 * @param {Vector} b
 * @returns {number} the dot product
 */
export function dot(a, b) {
  let sum = 0;
  let i = 0;
  // four at a time take half the time
  for (; i + 3 < a.length; i += 4) {
    sum += a[i] * b[i] + a[i + 1] * b[i + 1] + a[i + 2] * b[i + 2] + a[i + 3] * b[i + 3];
  }
  for (; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/**
 * @param {Vector} vector
 * @returns {number} its length
 */
export function norm(vector) {
  return Math.sqrt(dot(vector, vector));
}

/**
 * @param {number} rows
 * @param {number} columns
 * @param {number} [value]
 * @returns {Float64Array[]} a matrix of one value
 */
export function full(rows, columns, value = 0) {
  return Array.from({ length: rows }, () => new Float64Array(columns).fill(value));
}

/**
 * @param {Vector} scores
 * @returns {Float64Array} their softmax; all 0 where every score is -Infinity
 */
export function softmax(scores) {
  let greatest = -Infinity;
  for (let i = 0; i < scores.length; i++) greatest = Math.max(greatest, scores[i]);
  const weights = new Float64Array(scores.length);
  if (greatest === -Infinity) return weights;
  let sum = 0;
  for (let i = 0; i < scores.length; i++) {
    weights[i] = Math.exp(scores[i] - greatest);
    sum += weights[i];
  }
  for (let i = 0; i < weights.length; i++) weights[i] /= sum;
  return weights;
}

/**
 * @param {number} x
 * @returns {number} 1 / (1 + exp(-x))
 */
export function sigmoid(x) {
  return 1 / (1 + Math.exp(-x));
}

/**
 * @param {number} x
 * @returns {number} log(1 + exp(x))
 */
export function softplus(x) {
  return Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
}

/**
 * @param {Vector} x
 * @param {Matrix} weight a row for each output, as torch stores it
 * @param {Vector} [bias]
 * @returns {Float64Array} weight x + bias
 */
export function linear(x, weight, bias) {
  const out = new Float64Array(weight.length);
  for (let i = 0; i < out.length; i++) out[i] = dot(weight[i], x) + (bias ? bias[i] : 0);
  return out;
}

/**
 * @param {Vector} vector
 * @returns {number} the index of the largest number, the first of equals
 */
export function argmax(vector) {
  let best = 0;
  for (let i = 1; i < vector.length; i++) if (vector[i] > vector[best]) best = i;
  return best;
}

/**
 * @param {number} one
 * @param {number} size
 * @returns {Float64Array} 1 at one place, 0 elsewhere; at -1 all 0
 */
export function onehot(one, size) {
  return Float64Array.from({ length: size }, (_, i) => Number(i === one));
}
