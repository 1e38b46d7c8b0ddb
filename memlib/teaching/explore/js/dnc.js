/**
 * The differentiable neural computer (memlib/dnc/cell.py): a memory that knows what is free and
 * what came after what.
 *
 * @import { Gate, Told } from "./interface.js"
 * @import { Matrix, Vector } from "./tensor.js"
 * @typedef {Float64Array[]} Rows
 * @typedef {object} DNCState all that is carried from step to step
 * @property {Rows} memory (N, M)
 * @property {Rows} reads (R, M), what the read heads read last
 * @property {Rows} weights (R + W, N), where the heads were last, read heads first
 * @property {Float64Array} usage (N)
 * @property {Rows[]} links (W, N, N)
 * @property {Rows} precedence (W, N)
 * @property {Float64Array} hidden (D), of the controller
 * @property {Float64Array} cell (D)
 */
import { allocation, follow, link, retain, use } from "./bookkeeping.js";
import { interpolate, sharpen } from "./gates.js";
import { Interface } from "./interface.js";
import { joined, lstm } from "./recurrent.js";
import { full, linear } from "./tensor.js";
import { address, read, write } from "./verbs.js";

/** Added to weights that are sharpened. */
const FAINT = 1e-6;

/**
 * One step of memory and books, after what the heads are told.
 *
 * @param {Told} told
 * @param {DNCState} state it stays as it is
 * @param {boolean} [deallocate] what is freed is erased
 * @returns {DNCState}
 */
export function change(told, state, deallocate = false) {
  const heads = told.free.length;
  const [before, written] = [state.weights.slice(0, heads), state.weights.slice(heads)];
  // in use is what was written one step ago, less what was read then and is given back now
  const kept = retain(told.free, before);
  const usage = use(state.usage, written).map((u, n) => u * kept[n]);

  const writing = whereToWrite(told, usage, state.memory);
  let memory = state.memory.map((row, n) => (deallocate ? row.map((x) => x * kept[n]) : row));
  const nothing = new Float64Array(memory[0].length);
  // all heads erase, then all add
  for (const [h, w] of writing.entries()) memory = write(memory, w, nothing, told.erase[h]);
  for (const [h, w] of writing.entries()) memory = write(memory, w, told.add[h]);

  const books = writing.map((w, h) => link(state.links[h], state.precedence[h], w));
  const links = books.map(([after]) => after);
  const reading = whereToRead(told, links, before, memory);
  return {
    ...state,
    memory,
    reads: reading.map((w) => read(w, memory)),
    weights: [...reading, ...writing],
    usage,
    links,
    precedence: books.map(([, last]) => last),
  };
}

/**
 * Where to write: w = g^w (g^a a + (1 - g^a) c).
 *
 * @param {Told} told
 * @param {Float64Array} usage (N)
 * @param {Rows} memory (N, M), before the write
 * @returns {Rows} (W, N)
 */
function whereToWrite(told, usage, memory) {
  return Array.from(told.write, (gate, h) => {
    const free = allocation(usage);
    const share = told.allocation[h];
    // the next head sees taken what this one takes
    usage = use(usage, [free.map((a) => gate * share * a)]);
    const content = alike(told, told.free.length + h, memory);
    return interpolate(free, content, share).map((w) => gate * w);
  });
}

/**
 * Where to read: a blend of the slots before those that were read, of those alike, and after.
 *
 * @param {Told} told
 * @param {Rows[]} links (W, N, N)
 * @param {Rows} before (R, N), where the heads were
 * @param {Rows} memory (N, M), after the write
 * @returns {Rows} (R, N)
 */
function whereToRead(told, links, before, memory) {
  return before.map((weights, r) => {
    const moves = links.map((of) => follow(of, weights));
    const [back, forth] = [0, 1].map((way) =>
      moves.map((move, h) => {
        if (!told.sharpening.length) return move[way];
        const power = told.sharpening[way * links.length + h][r];
        const faint = move[way].map((w) => w + FAINT);
        return sharpen(faint, power);
      }),
    );
    return read(told.modes[r], [...back, alike(told, r, memory), ...forth]);
  });
}

/**
 * Where the memory is like the key of a head: c.
 *
 * @param {Told} told
 * @param {number} head
 * @param {Rows} memory (N, M)
 * @returns {Float64Array} (N)
 */
function alike({ key, strength, mask }, head, memory) {
  const seen = mask.length ? memory.map((row) => row.map((x, m) => x * mask[head][m])) : memory;
  return address(key[head], seen, { measure: "cosine", strength: strength[head] });
}

/** A trained machine: a controller, what it tells the heads, and what it answers. */
export class DNC {
  /**
   * @param {Record<string, any>} weights by name, as memlib keeps them
   * @param {object} [options]
   * @param {number} [options.slots] of a memory other than that of the training
   * @param {number} [options.writeHeads] W
   * @param {boolean} [options.maskContent] heads say which features content is compared by
   * @param {boolean} [options.deallocate] what is freed is erased
   * @param {boolean} [options.sharpenLinks] read heads say how sharply they follow links
   */
  constructor(weights, options = {}) {
    const { maskContent, sharpenLinks, deallocate = false, writeHeads = 1 } = options;
    this.weights = weights;
    this.slots = options.slots ?? weights["cell.initial_memory"].length;
    this.writeHeads = writeHeads;
    this.deallocate = deallocate;
    const [reads, width] = [this.#start("reads").length, this.#start("reads")[0].length];
    this.interface = new Interface(width, reads, writeHeads, maskContent, sharpenLinks);
  }

  /** @returns {DNCState} the learned start: all slots free, no head anywhere */
  initialState() {
    const { slots, writeHeads } = this;
    const [memory, reads] = [this.#start("memory"), this.#start("reads")];
    return {
      // each slot holds the same at first, however many there are
      memory: Array.from({ length: slots }, (_, n) => Float64Array.from(memory[n % memory.length])),
      reads,
      weights: full(reads.length + writeHeads, slots),
      usage: new Float64Array(slots),
      links: Array.from({ length: writeHeads }, () => full(slots, slots)),
      precedence: full(writeHeads, slots),
      hidden: this.#start("hidden"),
      cell: this.#start("cell"),
    };
  }

  /**
   * @param {Vector} x (I)
   * @param {DNCState} state where the last step ended; it stays as it is
   * @param {Gate[]} [shut] gates that stay shut, whatever the controller says
   * @returns {[logits: Float64Array, state: DNCState, told: Told]}
   */
  step(x, state, shut) {
    const [hidden, cell] = lstm(
      joined([x, ...state.reads]),
      state.hidden,
      state.cell,
      this.weights,
    );
    const told = this.interface.tell(this.#linear("interface", hidden), shut);
    const after = change(told, { ...state, hidden, cell }, this.deallocate);
    return [this.#linear("output", joined([hidden, ...after.reads])), after, told];
  }

  /**
   * Run over a sequence, a step at a time: yields the share that is done.
   *
   * @param {Matrix} inputs (T, I)
   * @param {Gate[]} [shut]
   * @returns {Generator<number, {logits: Float64Array[], states: DNCState[]}>}
   */
  *run(inputs, shut) {
    /** @type {Float64Array[]} */
    const logits = [];
    /** @type {DNCState[]} */
    const states = [];
    let state = this.initialState();
    for (let t = 0; t < inputs.length; t++) {
      const [said, after] = this.step(inputs[t], state, shut);
      logits.push(said);
      states.push(after);
      state = after;
      yield (t + 1) / inputs.length;
    }
    return { logits, states };
  }

  /** @param {"memory" | "reads" | "hidden" | "cell"} name */
  #start(name) {
    return this.weights[`cell.initial_${name}`];
  }

  /**
   * @param {"interface" | "output"} layer
   * @param {Vector} x
   */
  #linear(layer, x) {
    return linear(x, this.weights[`cell.${layer}.weight`], this.weights[`cell.${layer}.bias`]);
  }
}
