/**
 * The two layers of a Transformer (memlib/transformer), one token at a time.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 * @typedef {{position: number, keys: Vector[], values: Vector[]}} Slot what a token wrote: where it
 *   stands in the text, and a key and a value a head
 */
import { linear } from "./tensor.js";
import { address, read } from "./verbs.js";

/**
 * @param {Float64Array} x
 * @param {Vector} weight
 * @param {Vector} bias
 * @returns {Float64Array} x with mean 0 and standard deviation 1, then scaled and shifted
 */
export function layerNorm(x, weight, bias) {
  let mean = 0;
  let square = 0;
  for (let i = 0; i < x.length; i++) mean += x[i] / x.length;
  for (let i = 0; i < x.length; i++) square += (x[i] - mean) ** 2 / x.length;
  const deviation = Math.sqrt(square + 1e-5);
  return x.map((number, i) => ((number - mean) / deviation) * weight[i] + bias[i]);
}

/**
 * @param {number} position t
 * @param {number} width M
 * @param {number} [base]
 * @returns {{cos: Float64Array, sin: Float64Array}} of the angles t base^(-2j/M), j below M/2
 */
export function turns(position, width, base = 10000) {
  const angles = new Float64Array(width / 2).map((_, j) => position * base ** ((-2 * j) / width));
  return { cos: angles.map(Math.cos), sin: angles.map(Math.sin) };
}

/**
 * Tell where a token stands, R_t x: numbers j and j + M/2 are turned together.
 *
 * @param {Vector} x (M)
 * @param {{cos: Vector, sin: Vector}} turns of its position
 * @returns {Float64Array} (M); what is left of a dot product of two is how far they are apart
 */
export function rotate(x, { cos, sin }) {
  const half = x.length / 2;
  const turned = new Float64Array(x.length);
  for (let j = 0; j < half; j++) {
    turned[j] = x[j] * cos[j] - x[j + half] * sin[j];
    turned[j + half] = x[j + half] * cos[j] + x[j] * sin[j];
  }
  return turned;
}

/**
 * @param {Float64Array} x
 * @param {number} heads
 * @returns {Float64Array[]} a part of the same numbers for each head
 */
function split(x, heads) {
  const width = x.length / heads;
  return Array.from({ length: heads }, (_, h) => x.subarray(h * width, (h + 1) * width));
}

/** Attention whose past is a memory: a list of slots, one a token, which the caller keeps. */
export class MemoryAttention {
  /**
   * @param {{query: Matrix, key: Matrix, value: Matrix, output: Matrix}} weights W_Q, W_K, W_V, W_O
   * @param {number} heads H
   */
  constructor({ query, key, value, output }, heads) {
    this.query = query;
    this.key = key;
    this.value = value;
    this.output = output;
    this.heads = heads;
    /** @type {ReturnType<typeof turns>[]} by position, as they are needed */
    this.turns = [];
  }

  /**
   * @param {Matrix} weight W_Q or W_K
   * @param {Vector} x
   * @param {number} position
   * @returns {Float64Array[]} R_t W x of each head
   */
  turned(weight, x, position) {
    this.turns[position] ??= turns(position, weight.length / this.heads);
    return split(linear(x, weight), this.heads).map((part) => rotate(part, this.turns[position]));
  }

  /**
   * What a token writes: k_t = R_t W_K x_t and v_t = W_V x_t.
   *
   * @param {Vector} x
   * @param {number} position
   * @returns {Slot}
   */
  slot(x, position) {
    const keys = this.turned(this.key, x, position);
    return { position, keys, values: split(linear(x, this.value), this.heads) };
  }

  /**
   * Where it looks, by q_t = R_t W_Q x_t.
   *
   * @param {Vector} x
   * @param {number} position
   * @param {Slot[]} slots
   * @returns {Float64Array[]} each head's weights over the slots
   */
  address(x, position, slots) {
    return this.turned(this.query, x, position).map((query, h) =>
      address(
        query,
        slots.map((slot) => slot.keys[h]),
      ),
    );
  }

  /**
   * What comes back: o_t = the sum over heads of W_O times what each has read.
   *
   * @param {Vector[]} weights of each head over the slots
   * @param {Slot[]} slots
   * @returns {Float64Array}
   */
  read(weights, slots) {
    const reads = new Float64Array(this.output[0].length);
    for (const [h, w] of weights.entries()) {
      const values = slots.map((slot) => slot.values[h]);
      reads.set(read(w, values), (h * reads.length) / this.heads);
    }
    return linear(reads, this.output);
  }
}

/** The memory whose slots are learned: f(x) = the sum of relu(x . key_n) value_n. */
export class FeedForward {
  /**
   * @param {Matrix} keys (N, D)
   * @param {Matrix} values (N, D)
   */
  constructor(keys, values) {
    this.keys = keys;
    this.values = values;
  }

  /**
   * @param {Vector} x
   * @returns {Float64Array} how much each slot has to say
   */
  address(x) {
    return linear(x, this.keys).map((score) => Math.max(0, score));
  }

  /**
   * @param {Vector} weights
   * @returns {Float64Array}
   */
  read(weights) {
    return read(weights, this.values);
  }
}
