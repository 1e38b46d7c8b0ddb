/**
 * The Neural Turing Machine: a controller that learns to use a memory (memlib/ntm.py), with R read
 * heads and one write head, and an LSTM as its controller.
 *
 * @import { Gates } from "./gates.js"
 * @import { Matrix, Vector } from "./tensor.js"
 * @typedef {object} State all that a machine carries from step to step
 * @property {Vector[]} memory (N, M)
 * @property {Vector[]} reads (R, M), what was read last
 * @property {Vector[]} weights (R + 1, N), where the heads were last, the write head at the end
 * @property {Vector} hidden (D), the controller's hidden state
 * @property {Vector} cell (D), the LSTM's cell
 *
 * @typedef {object} Lesion what is taken away in a step (experiments/ntm_ablation.py)
 * @property {boolean} [hold] the memory stays as it was
 * @property {boolean} [harden] a read head has all its weight on its largest
 */
import { locate, squash } from "./gates.js";
import { joined, lstm } from "./recurrent.js";
import { argmax, linear, sigmoid } from "./tensor.js";
import { read, write } from "./verbs.js";

/** A trained machine; its parameters do not depend on the number of slots. */
export class NTM {
  /**
   * @param {Record<string, any>} weights as `unpack` gives them, under memlib's names
   * @param {number} [slots] as many as it was trained with, if not said
   */
  constructor(weights, slots = weights["cell.initial_memory"].length) {
    this.weights = weights;
    this.slots = slots;
    this.width = weights["cell.initial_memory"][0].length;
    this.readHeads = weights["cell.initial_reads"].length;
  }

  /** @returns {State} the learned state before the first step, every head on slot 0 */
  initialState() {
    const w = this.weights;
    const empty = w["cell.initial_memory"];
    const onZero = Float64Array.from({ length: this.slots }, (_, n) => Number(n === 0));
    return {
      // each slot holds the same at first, however many there are
      memory: Array.from({ length: this.slots }, (_, n) => empty[n % empty.length]),
      reads: w["cell.initial_reads"],
      weights: Array(this.readHeads + 1).fill(onZero),
      hidden: w["cell.initial_hidden"],
      cell: w["cell.initial_cell"],
    };
  }

  /**
   * @param {Vector} x (I)
   * @param {State} state where the last step ended; it stays as it is
   * @param {Lesion} [lesion]
   * @returns {[Float64Array, State]} logits (O) and the new state
   */
  step(x, state, { hold = false, harden = false } = {}) {
    // eq. 1: h_t = c(x_t, r_(t-1), h_(t-1))
    const seen = joined([x, ...state.reads]);
    const [hidden, cell] = lstm(seen, state.hidden, state.cell, this.weights);
    const { gates, erase, add } = this.knobs(hidden);
    const weights = gates.map((gate, h) => locate(gate, state.memory, state.weights[h]));
    const reading = weights.slice(0, -1).map((w) => (harden ? oneHot(w) : w));
    const writing = weights[this.readHeads];

    const memory = hold ? state.memory : write(state.memory, writing, add, erase);
    const reads = reading.map((w) => read(w, memory));
    const logits = this.linear("output", joined([hidden, ...reads]));
    return [logits, { memory, reads, weights: [...reading, writing], hidden, cell }];
  }

  /**
   * Run over a sequence, a step at a time: yields the share that is done.
   *
   * @param {Matrix} inputs (T, I)
   * @param {(t: number) => Lesion} [lesion] of each step
   * @returns {Generator<number, {logits: Float64Array[], states: State[]}>}
   */
  *run(inputs, lesion = () => ({})) {
    /** @type {Float64Array[]} */
    const logits = [];
    /** @type {State[]} */
    const states = [];
    let state = this.initialState();
    for (let t = 0; t < inputs.length; t++) {
      [logits[t], state] = this.step(inputs[t], state, lesion(t));
      states.push(state);
      yield (t + 1) / inputs.length;
    }
    return { logits, states };
  }

  /**
   * What the controller tells the heads: (k, s, g, β, γ) of each, and e and a of the write head.
   *
   * @param {Vector} hidden h_t (D)
   * @returns {{gates: Gates[], erase: Float64Array, add: Float64Array}}
   */
  knobs(hidden) {
    const said = this.linear("interface", hidden);
    const heads = said.subarray(0, -2 * this.width);
    const size = heads.length / (this.readHeads + 1);
    return {
      gates: Array.from({ length: this.readHeads + 1 }, (_, h) =>
        squash(heads.subarray(h * size, (h + 1) * size), this.width),
      ),
      erase: said.subarray(heads.length, heads.length + this.width).map(sigmoid),
      add: said.subarray(-this.width).map(Math.tanh),
    };
  }

  /**
   * @param {"interface" | "output"} layer
   * @param {Vector} x
   * @returns {Float64Array}
   */
  linear(layer, x) {
    return linear(x, this.weights[`cell.${layer}.weight`], this.weights[`cell.${layer}.bias`]);
  }
}

/**
 * @param {Vector} weights
 * @returns {Float64Array} 1 at the largest, 0 elsewhere
 */
function oneHot(weights) {
  const largest = argmax(weights);
  return Float64Array.from(weights, (_, n) => Number(n === largest));
}
