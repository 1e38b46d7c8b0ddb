/**
 * The books that a DNC keeps on its memory: usage, allocation, links (memlib/dnc/bookkeeping.py).
 *
 * @import { Matrix, Vector } from "./tensor.js"
 */
import { linear } from "./tensor.js";
import { read } from "./verbs.js";

/**
 * Retention: ψ = product over heads of (1 - f^r w^r), from where they read one step ago.
 *
 * @param {Vector} free (R), the free gates f
 * @param {Matrix} weights (R, N)
 * @returns {Float64Array} (N), how far each slot is kept
 */
export function retain(free, weights) {
  const kept = new Float64Array(weights[0].length).fill(1);
  for (let r = 0; r < weights.length; r++) {
    for (let n = 0; n < kept.length; n++) kept[n] *= 1 - free[r] * weights[r][n];
  }
  return kept;
}

/**
 * Usage after writes: 1 - (1 - u) times the product of (1 - w).
 *
 * @param {Vector} usage (N)
 * @param {Matrix} weights (W, N)
 * @returns {Float64Array} (N)
 */
export function use(usage, weights) {
  const used = Float64Array.from(usage);
  for (let h = 0; h < weights.length; h++) {
    for (let n = 0; n < used.length; n++) used[n] += (1 - used[n]) * weights[h][n];
  }
  return used;
}

/** Usages closer than that are equal, and the first slot comes first. */
const FAINT = Number.EPSILON ** 2;

/**
 * Find a free slot: a[φ_j] = (1 - u[φ_j]) times the product of u[φ_i] over i < j, where φ
 * lists the slots from the least used to the most used, of equals the first one first.
 *
 * @param {Vector} usage (N)
 * @returns {Float64Array} weights (N), summing to 1 less the product of all usages
 */
export function allocation(usage) {
  const used = Float64Array.from(usage, (u) => u + FAINT);
  const order = Array.from(used.keys()).sort((i, j) => used[i] - used[j]);
  const weights = new Float64Array(used.length);
  let taken = 1;
  for (const n of order) {
    weights[n] = (1 - usage[n]) * taken;
    taken *= usage[n];
  }
  return weights;
}

/**
 * Links and precedence after a write: L_ij = (1 - w_i - w_j) L_ij + w_i p_j, and
 * p = (1 - sum of w) p + w.
 *
 * @param {Matrix} links (N, N): L_ij says how far slot i was written right after slot j
 * @param {Vector} precedence (N), how far each slot was the last written
 * @param {Vector} weights (N)
 * @returns {[links: Float64Array[], precedence: Float64Array]}
 */
export function link(links, precedence, weights) {
  const w = Float64Array.from(weights);
  const left = 1 - w.reduce((sum, weight) => sum + weight, 0);
  // no slot comes after itself
  const entry = (/** @type {number} */ i, /** @type {number} */ j) =>
    i === j ? 0 : (1 - w[i] - w[j]) * links[i][j] + w[i] * precedence[j];
  return [
    Array.from(links, (row, i) => Float64Array.from(row, (_, j) => entry(i, j))),
    w.map((weight, n) => left * precedence[n] + weight),
  ];
}

/**
 * Follow the links from where a head was: to what was written before, L^T w, and after, L w. Both
 * are reads of the links.
 *
 * @param {Matrix} links (N, N)
 * @param {Vector} weights (N)
 * @returns {[back: Float64Array, forth: Float64Array]} each (N)
 */
export function follow(links, weights) {
  return [read(weights, links), linear(weights, links)];
}
