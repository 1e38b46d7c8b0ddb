/**
 * A Transformer that predicts each next token from those before it (memlib/transformer/decoder.py).
 *
 * What it remembers is a list of slots a layer. Whoever holds the lists can do to them what cannot
 * be done to a text: leave slots out, or change what lies in one.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 * @import { Slot } from "./layers.js"
 * @typedef {{
 *   attention: MemoryAttention,
 *   feedForward: FeedForward,
 *   norms: ((x: Float64Array) => Float64Array)[],
 * }} Block a layer of each kind, each with the norm of what it is given
 * @typedef {Slot[][]} Cache of each layer the slots, the oldest first
 * @typedef {{logits: Float64Array, weights: Float64Array[][], activations: Float64Array[]}} Step
 *   a score for each token that may come next; of each layer the weights of each head over the
 *   positions so far, and those of the feed-forward memory over its slots
 * @typedef {{position: number, layers: ReadonlyArray<number>, token: number}} Edit
 *   in these layers, counted from 1, the slot gets the value that another token would have written
 * @typedef {{
 *   without?: ReadonlyArray<string>,
 *   window?: number,
 *   forget?: {rule: string, slots: number},
 *   dropped?: ReadonlyArray<number>,
 *   edits?: ReadonlyArray<Edit>,
 * }} Cuts parts that add nothing, "head 1 of 2" (the layer last) or "feed-forward of 1"; how many
 *   positions a query reads; how many slots stay, and the rule that chooses them, of `RULES`; slots
 *   that are forgotten, or edited, once their own token has read
 */
import { keep, RULES } from "./forgetting.js";
import { FeedForward, layerNorm, MemoryAttention } from "./layers.js";
import { dot, linear } from "./tensor.js";
import { write } from "./verbs.js";

export class Decoder {
  /**
   * @param {Record<string, any>} tensors by their names in the checkpoint
   * @param {{layers: number, heads: number}} sizes
   */
  constructor(tensors, sizes) {
    this.tensors = tensors;
    this.sizes = sizes;
    this.embedding = tensors.embedding.map(double);
    this.norm = norm(tensors, "norm");
    this.blocks = Array.from({ length: sizes.layers }, (_, n) =>
      block(tensors, `blocks.${n}`, sizes.heads),
    );
  }

  /** @returns {Cache} as long as nothing has been read */
  cache() {
    return this.blocks.map(() => []);
  }

  /**
   * Read one token: in each layer it writes a slot, then looks at all of them.
   *
   * @param {number} token
   * @param {number} position where it stands in the text
   * @param {Cache} cache it stays as it is
   * @param {ReadonlyArray<string>} [without] parts that add nothing
   * @returns {[Step, Cache]} what comes next, and the memory after
   */
  step(token, position, cache, without = []) {
    /** @type {(w: Float64Array, part: string) => Float64Array} */
    const heard = (w, part) => (without.includes(part) ? w.map(() => 0) : w);
    /** @type {Omit<Step, "logits">} */
    const seen = { weights: [], activations: [] };
    /** @type {Cache} */
    const after = [];
    /** @type {Float64Array} */
    let x = Float64Array.from(this.embedding[token]);
    for (const [n, { attention, feedForward, norms }] of this.blocks.entries()) {
      const asked = norms[0](x);
      const slots = [...cache[n], attention.slot(asked, position)];
      const weights = attention.address(asked, position, slots);
      const heads = weights.map((w, h) => heard(w, `head ${h + 1} of ${n + 1}`));
      x = sum(x, attention.read(heads, slots));
      const activations = feedForward.address(norms[1](x));
      x = sum(x, feedForward.read(heard(activations, `feed-forward of ${n + 1}`)));
      seen.weights.push(weights.map((w) => spread(w, slots, position)));
      seen.activations.push(activations);
      after.push(slots);
    }
    return [{ ...seen, logits: linear(this.norm(x), this.embedding) }, after];
  }

  /**
   * Read a text.
   *
   * @param {ArrayLike<number>} tokens
   * @param {Cuts} [cuts]
   * @returns {Step[]} one a token
   */
  forward(tokens, { without, window = Infinity, forget, dropped = [], edits = [] } = {}) {
    let cache = this.cache();
    const looks = cache.map(() => /** @type {Float64Array[]} */ ([])); // of each layer's queries
    return Array.from(tokens, (token, position) => {
      const past = cache.map((slots) => slots.filter((slot) => position - slot.position < window));
      const [step, after] = this.step(token, position, past, without);
      cache = after;
      for (const edit of edits.filter((edit) => edit.position === position)) {
        const [, other] = this.step(edit.token, position, past, without);
        cache = cache.map((slots, n) =>
          edit.layers.includes(n + 1) ? [...slots.slice(0, -1), valued(slots, other[n])] : slots,
        );
      }
      if (dropped.includes(position)) cache = cache.map((slots) => slots.slice(0, -1));
      for (const [n, heads] of step.weights.entries())
        looks[n].push(heads.reduce((a, b) => sum(a, b)));
      if (forget) {
        const { rule, slots: n } = forget;
        cache = cache.map((slots, layer) => keep(slots, RULES[rule](slots, looks[layer], n), n));
      }
      return step;
    });
  }
}

/**
 * Write a fact into the feed-forward memories: what each of them answers to a country is mirrored,
 * to speak for another capital as much as it spoke for the country's own.
 *
 * @param {Decoder} model it stays as it is
 * @param {number} country
 * @param {number} here the token of its capital
 * @param {number} there that of the other one
 * @returns {Decoder}
 */
export function teach(model, country, here, there) {
  const apart = sum(model.embedding[here], model.embedding[there], -1);
  for (let n = 0; n < model.blocks.length; n++) {
    const memory = model.blocks[n].feedForward;
    const weights = model.forward([country])[0].activations[n];
    const share = (2 * dot(memory.read(weights), apart)) / dot(apart, apart);
    const size = Math.max(dot(weights, weights), 1e-6);
    const values = write(
      memory.values,
      weights.map((w) => w / size),
      apart.map((number) => -share * number),
    );
    const tensors = { ...model.tensors, [`blocks.${n}.feed_forward.values`]: values };
    model = new Decoder(tensors, model.sizes);
  }
  return model;
}

/** @type {(a: Float64Array, b: Vector, times?: number) => Float64Array} a and so many times b */
function sum(a, b, times = 1) {
  return a.map((number, i) => number + times * b[i]);
}

/** @type {(row: Vector) => Float64Array} */
function double(row) {
  return row instanceof Float64Array ? row : Float64Array.from(row);
}

/** @type {(slots: Slot[], other: Slot[]) => Slot} the last slot, with the value of another */
function valued(slots, other) {
  return { ...slots[slots.length - 1], values: other[other.length - 1].values };
}

/** @type {(weights: Vector, slots: Slot[], last: number) => Float64Array} 0 where no slot is */
function spread(weights, slots, last) {
  const out = new Float64Array(last + 1);
  for (const [i, { position }] of slots.entries()) out[position] = weights[i];
  return out;
}

/** @type {(tensors: Record<string, any>, name: string) => (x: Float64Array) => Float64Array} */
function norm(tensors, name) {
  return (x) => layerNorm(x, tensors[`${name}.weight`], tensors[`${name}.bias`]);
}

/** @type {(tensors: Record<string, any>, name: string, heads: number) => Block} */
function block(tensors, name, heads) {
  // numbers of one kind in all vectors are multiplied faster
  /** @type {(part: string) => Matrix} */
  const matrix = (part) => tensors[`${name}.${part}`].map(double);
  const [query, key, value, output] = ["query", "key", "value", "output"].map((part) =>
    matrix(`attention.${part}.weight`),
  );
  return {
    attention: new MemoryAttention({ query, key, value, output }, heads),
    feedForward: new FeedForward(matrix("feed_forward.keys"), matrix("feed_forward.values")),
    norms: [norm(tensors, `${name}.attention_norm`), norm(tensors, `${name}.feed_forward_norm`)],
  };
}
