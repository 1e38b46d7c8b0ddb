/**
 * Content-addressable memory (memlib/content.py): a pattern is completed from a part of itself.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 */
import { dot, full, linear } from "./tensor.js";
import { address, read, write } from "./verbs.js";

/** Modern Hopfield network: attention whose keys and values are the same patterns, repeated. */
export class Hopfield {
  /**
   * @param {number} [strength] β, above 0: small averages all patterns, large picks the nearest
   * @param {number} [steps] how many updates
   */
  constructor(strength = 1, steps = 1) {
    this.strength = strength;
    this.steps = steps;
  }

  /**
   * ξ' = Σ w_n x_n with w = softmax(β X ξ), at each step.
   *
   * @param {Vector} query (M)
   * @param {Matrix} patterns (N, M)
   * @returns {[Float64Array, Float64Array]} the state (M), and the weights (N) of the last step
   */
  forward(query, patterns) {
    /** @type {Float64Array} */
    let state = Float64Array.from(query);
    /** @type {Float64Array} */
    let weights = new Float64Array(patterns.length);
    for (let step = 0; step < this.steps; step++) {
      weights = address(state, patterns, { measure: "dot", strength: this.strength });
      state = read(weights, patterns);
    }
    return [state, weights];
  }

  /**
   * E = -1/β log Σ exp(β x_n·ξ) + 1/2 |ξ|² + C, where C makes it at least 0.
   *
   * @param {Vector} query (M)
   * @param {Matrix} patterns (N, M)
   * @returns {number}
   */
  energy(query, patterns) {
    const scores = Array.from(patterns, (pattern) => this.strength * dot(pattern, query));
    const longest = Math.max(...Array.from(patterns, (pattern) => dot(pattern, pattern)));
    const soft = (Math.log(patterns.length) - logSumExp(scores)) / this.strength;
    return soft + longest / 2 + dot(query, query) / 2;
  }
}

/** Classical Hopfield network: patterns of +1 and -1 in one matrix, recalled unit by unit. */
export class ClassicalHopfield {
  /** @param {number} [steps] how many sweeps over all units */
  constructor(steps = 10) {
    this.steps = steps;
  }

  /**
   * W = 1/M Σ x_n x_n^T with a zero diagonal: every pattern is written with itself as its weights.
   *
   * @param {Matrix} patterns (N, M), entries +1 and -1
   * @returns {Float64Array[]} (M, M)
   */
  connections(patterns) {
    const width = patterns[0].length;
    let stored = full(width, width);
    for (const pattern of Array.from(patterns)) stored = write(stored, pattern, pattern);
    return stored.map((row, i) => row.map((x, j) => (i === j ? 0 : x / width)));
  }

  /**
   * @param {Vector} query (M), entries +1 and -1, or 0 where unknown
   * @param {Matrix} patterns (N, M)
   * @returns {Float64Array} the state (M) after all sweeps
   */
  forward(query, patterns) {
    const connections = this.connections(patterns);
    let state = Float64Array.from(query);
    for (let step = 0; step < this.steps; step++) state = sweep(state, connections);
    return state;
  }

  /**
   * @param {Vector} query (M)
   * @param {Matrix} patterns (N, M)
   * @returns {number}
   */
  energy(query, patterns) {
    return height(query, this.connections(patterns));
  }
}

/**
 * s_i <- sign(Σ W_ij s_j), one unit after the other; one without a field keeps its value.
 *
 * @param {Vector} query (M)
 * @param {Matrix} connections (M, M)
 * @returns {Float64Array<ArrayBuffer>} the state (M) after one sweep
 */
export function sweep(query, connections) {
  const state = Float64Array.from(query);
  for (let unit = 0; unit < state.length; unit++) {
    // M times the field is a whole number; what rounding left of it must not flip a sign.
    const field = Math.round(state.length * dot(connections[unit], state));
    if (field) state[unit] = Math.sign(field);
  }
  return state;
}

/**
 * E = -1/2 s^T W s
 *
 * @param {Vector} state (M)
 * @param {Matrix} connections (M, M)
 * @returns {number}
 */
export function height(state, connections) {
  return -dot(linear(state, connections), state) / 2;
}

/**
 * @param {Vector} scores
 * @returns {number} log Σ exp(scores)
 */
function logSumExp(scores) {
  let greatest = -Infinity;
  for (let i = 0; i < scores.length; i++) greatest = Math.max(greatest, scores[i]);
  let sum = 0;
  for (let i = 0; i < scores.length; i++) sum += Math.exp(scores[i] - greatest);
  return greatest + Math.log(sum);
}
