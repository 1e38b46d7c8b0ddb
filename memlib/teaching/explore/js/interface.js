/**
 * What the controller of a DNC tells its heads, and in which order (memlib/dnc/interface.py).
 *
 * @import { Vector } from "./tensor.js"
 * @typedef {"free" | "allocate" | "write" | "back" | "alike" | "forth"} Gate
 * @typedef {object} Told read heads first
 * @property {Float64Array[]} key k (R + W, M), masked already
 * @property {Float64Array} strength β (R + W), at least 1
 * @property {Float64Array[]} mask (R + W, M); empty unless content is masked
 * @property {Float64Array[]} add v (W, M)
 * @property {Float64Array[]} erase e (W, M)
 * @property {Float64Array} free f (R)
 * @property {Float64Array} allocation g^a (W)
 * @property {Float64Array} write g^w (W)
 * @property {Float64Array[]} modes π (R, 2 W + 1): back, alike, forth
 * @property {Float64Array[]} sharpening s (2 W, R), at least 1: back, forth; empty unless links are sharp
 */
import { sigmoid, softmax, softplus } from "./tensor.js";

/** A gate that is told so is shut, whatever comes. */
const SHUT = -1000;
/** The least of a content mask: no feature is ever quite hidden. */
const MASK_MIN = 0.1;

/** Squashes raw numbers into the ranges of what they say. */
export class Interface {
  /**
   * @param {number} width M of a slot
   * @param {number} reads number of read heads R
   * @param {number} writes number of write heads W
   * @param {boolean} [masked] there are masks
   * @param {boolean} [sharpened] there are sharpenings
   */
  constructor(width, reads, writes, masked = false, sharpened = false) {
    const heads = reads + writes;
    this.writes = writes;
    this.parts = {
      key: [heads, width],
      add: [writes, width],
      strength: [1, heads],
      sharpening: sharpened ? [2 * writes, reads] : [0, 0],
      mask: masked ? [heads, width] : [0, 0],
      erase: [writes, width],
      free: [1, reads],
      allocation: [1, writes],
      write: [1, writes],
      modes: [reads, 2 * writes + 1],
    };
  }

  /**
   * @param {Vector} raw
   * @param {Gate[]} [shut] gates that stay shut
   * @returns {Told}
   */
  tell(raw, shut = []) {
    const part = this.#split(raw);
    /** @type {(name: Gate, x: number) => number} */
    const unless = (name, x) => (shut.includes(name) ? SHUT : x);
    /** @type {(i: number) => Gate} */
    const way = (i) => (i < this.writes ? "back" : i > this.writes ? "forth" : "alike");
    const mask = part.mask.map((row) => row.map((x) => MASK_MIN + (1 - MASK_MIN) * sigmoid(x)));
    return {
      key: mask.length ? part.key.map((row, h) => row.map((x, m) => x * mask[h][m])) : part.key,
      strength: part.strength[0].map(power),
      mask,
      add: part.add,
      erase: part.erase.map((row) => row.map(sigmoid)),
      free: part.free[0].map((x) => sigmoid(unless("free", x))),
      allocation: part.allocation[0].map((x) => sigmoid(unless("allocate", x))),
      write: part.write[0].map((x) => sigmoid(unless("write", x))),
      modes: part.modes.map((row) => softmax(row.map((x, i) => unless(way(i), x)))),
      sharpening: part.sharpening.map((row) => row.map(power)),
    };
  }

  /**
   * @param {Vector} raw
   * @returns {Record<string, Float64Array[]>} rows of every part, one after the other
   */
  #split(raw) {
    let from = 0;
    const next = () => raw[from++];
    const rows = (/** @type {number[]} */ [count, size]) =>
      Array.from({ length: count }, () => Float64Array.from({ length: size }, next));
    return Object.fromEntries(
      Object.entries(this.parts).map(([name, shape]) => [name, rows(shape)]),
    );
  }
}

/**
 * @param {number} x
 * @returns {number} at least 1
 */
function power(x) {
  return 1 + softplus(x);
}
