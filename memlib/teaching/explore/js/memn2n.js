/**
 * The end-to-end memory network (memlib/memn2n.py): read a story several times, then answer.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 * @typedef {object} Options
 * @property {number} vocabSize number of words; word 0 is padding
 * @property {number} answers
 * @property {number} [slots] the newest sentences that are readable
 * @property {number} hops
 * @property {"adjacent" | "layerwise" | "none"} [tying]
 * @property {"position" | "bag"} [encoding]
 * @property {boolean} [temporal] add to each sentence a vector for its age
 * @property {boolean} [relu] clip the query at 0 after each hop
 * @property {boolean} [empty] let the slots without a sentence take part in the softmax
 * @property {boolean} [linear] read without softmax
 */
import { full, linear } from "./tensor.js";
import { address, read, similarity } from "./verbs.js";

/** p_j or q_k: places from 0 on, made even from about -1/2 to 1/2. */
const centered = (/** @type {number} */ i, /** @type {number} */ of) => (i + 0.5 - of / 2) / of;

/**
 * Weigh the words of a sentence by their place: l_jk = 1 + 4 p_j q_k.
 *
 * @param {number} words
 * @param {number} width
 * @returns {Float64Array[]} (words, width)
 */
export function positionEncoding(words, width) {
  return full(words, width).map((row, j) =>
    row.map((_, k) => 1 + 4 * centered(j, words) * centered(k, width)),
  );
}

export class MemN2N {
  /**
   * @param {Record<string, any>} tensors by memlib's names: embeddings.0, ..., answer, between
   * @param {Options} options
   */
  constructor(tensors, options) {
    const { vocabSize, answers, slots = 50, hops, tying = "adjacent" } = options;
    const { encoding = "position", temporal = true } = options;
    this.vocabSize = vocabSize;
    this.slots = slots;
    this.encoding = encoding;
    this.temporal = temporal;
    this.relu = options.relu ?? false;
    this.empty = options.empty ?? true;
    this.linear = options.linear ?? false;
    // Which matrices hold the keys and the values of each hop, and the question.
    const each = Array.from({ length: hops }, (_, k) => k);
    this.hops = {
      adjacent: each.map((k) => [k, k + 1]),
      layerwise: each.map(() => [0, 1]),
      none: each.map((k) => [k, hops + k]),
    }[tying];
    this.question = { adjacent: 0, layerwise: 2, none: 2 * hops }[tying];
    const matrices = 1 + Math.max(this.question, ...this.hops.flat());
    /** @type {Matrix[]} the rows of the words, and below them those of the ages */
    this.embeddings = Array.from({ length: matrices }, (_, k) => tensors[`embeddings.${k}`]);
    /** @type {Matrix} */
    this.answer = tensors.answer ?? tensors[`embeddings.${hops}`].slice(1, answers + 1);
    /** @type {Map<number, Float64Array[]>} */
    this.made = new Map();
    /** @type {Matrix | undefined} */
    this.between = tensors.between;
  }

  /**
   * @param {number} words
   * @param {number} width
   * @returns {Float64Array[]} the weights l of a sentence, made once for each length
   */
  places(words, width) {
    const found = this.made.get(words);
    if (found) return found;
    const bag = this.encoding === "bag";
    const places = bag ? full(words, width, 1) : positionEncoding(words, width);
    this.made.set(words, places);
    return places;
  }

  /**
   * A sentence as key, value or query: the sum of l_j * A x_j over its words, and T_A(age).
   *
   * @param {number[]} sentence
   * @param {number} matrix
   * @param {number} [age] 0 for the newest; a question has none
   * @returns {Float64Array}
   */
  encode(sentence, matrix, age) {
    const table = this.embeddings[matrix];
    const words = sentence.filter((word) => word !== 0);
    const places = this.places(words.length, table[0].length);
    const sum = new Float64Array(table[0].length);
    words.forEach((word, j) => {
      for (let k = 0; k < sum.length; k++) sum[k] += places[j][k] * table[word][k];
    });
    if (!this.temporal || age === undefined) return sum;
    return sum.map((x, k) => x + table[this.vocabSize + age][k]);
  }

  /**
   * @param {number[][]} story the sentences from the oldest to the newest
   * @param {number[]} question
   * @returns {[Float64Array, Float64Array[]]} scores of the answers, and where each hop looked; the
   *   weights of a hop sum to 1 together with those of the empty slots
   */
  forward(story, question) {
    const told = [...story.keys()].filter((i) => story[i].some((word) => word !== 0));
    const newest = told.slice(-this.slots);
    const memory = this.embeddings.map((table, k) => {
      const sentences = newest.map((i, n) => this.encode(story[i], k, newest.length - 1 - n));
      return [...sentences, ...full(this.slots - newest.length, table[0].length)];
    });
    const mask = memory[0].map((_, n) => this.empty || n < newest.length);
    let u = this.encode(question, this.question);
    const weights = [];
    for (const [keys, values] of this.hops) {
      const [o, where] = this.hop(u, memory[keys], memory[values], mask);
      const kept = this.between ? linear(u, this.between) : u;
      u = kept.map((x, k) => (this.relu ? Math.max(x + o[k], 0) : x + o[k]));
      const looked = new Float64Array(story.length);
      newest.forEach((i, n) => {
        looked[i] = where[n];
      });
      weights.push(looked);
    }
    return [linear(u, this.answer), weights];
  }

  /**
   * One read: p = softmax(u . m), o = sum of p_i c_i, over all slots that may be read.
   *
   * @param {Vector} u
   * @param {Matrix} keys
   * @param {Matrix} values
   * @param {boolean[]} mask
   * @returns {[Float64Array, Float64Array]} what came back, and from where
   */
  hop(u, keys, values, mask) {
    const where = this.linear
      ? similarity(u, keys, "dot").map((score, n) => (mask[n] ? score : 0))
      : address(u, keys, { measure: "dot", mask });
    return [read(where, values), where];
  }
}
