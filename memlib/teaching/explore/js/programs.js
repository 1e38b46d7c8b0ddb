/**
 * Memory programs written by hand: a head that walks and jumps through a memory, untrained
 * (memlib/addressable/programs.py). A program is a generator of steps; it is sent what was read.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 * @import { Gates } from "./gates.js"
 * @typedef {object} Step go where key and move say, then overwrite (or only read) that slot
 * @property {any} [key] content to look for (at most M); null stays with the location (gate 0)
 * @property {any} [move] slots to go forward (or, negative, backward) afterwards, in [-1, 1]
 * @property {any} [add] (M) what to write in place of the slot's content; null only reads
 * @property {any} [strength] β, how sharply the key is looked for
 * @property {any} [sharpening] γ, how sharp the weights are made after the move
 * @property {number} [line] where it stands in a text
 * @typedef {Generator<Step, void, Float64Array>} Program
 * @typedef {object} Moment what one step did
 * @property {Step} step
 * @property {Float64Array} read (M), after its write
 * @property {Float64Array} weights (N), where the head was
 * @property {Matrix} memory (N, M), after its write
 * @property {boolean} wrote
 */
import { locate } from "./gates.js";
import { read, write } from "./verbs.js";

/**
 * @param {Program} program
 * @param {Matrix} memory (N, M), N at least 3; it stays as it is
 * @returns {Moment[]} what each step did
 */
export function run(program, memory) {
  const trace = [...watch(program, memory)];
  if (!trace.length) throw new Error("a program must yield at least one Step; got none");
  return trace;
}

/**
 * The same, step by step. A step that is refused is thrown back at its program, which may say more.
 *
 * @param {Program} program
 * @param {Matrix} memory (N, M)
 * @returns {Generator<Moment, void, void>}
 */
export function* watch(program, memory) {
  const slots = memory.length;
  if (slots < 3) throw new Error(`the number of slots must be at least 3; got ${slots}`);
  /** @type {Vector} */
  let weights = Float64Array.from(memory, (_, n) => (n ? 0 : 1)); // it starts on slot 0
  let asked = program.next();
  while (!asked.done) {
    let moment;
    try {
      moment = take(asked.value, memory, weights);
    } catch (refusal) {
      program.throw(refusal);
      throw refusal;
    }
    yield moment;
    ({ memory, weights } = moment);
    asked = program.next(moment.read);
  }
}

/**
 * One step: go there, write, then read.
 *
 * @param {Step} step
 * @param {Matrix} memory (N, M)
 * @param {Vector} previous (N)
 * @returns {Moment}
 */
export function take(step, memory, previous) {
  const width = memory[0].length;
  const weights = locate(gatesOf(step, width), memory, previous);
  const wrote = step.add !== null && step.add !== undefined;
  if (!wrote) return { step, memory, weights, wrote, read: read(weights, memory) };
  vector("add", step.add);
  if (step.add.length !== width) {
    throw new Error(`add must have shape (M,) with M = ${width}; got (${step.add.length},)`);
  }
  // e = 1: what is added replaces all that lay there
  const written = write(memory, weights, step.add, new Float64Array(width).fill(1));
  return { step, memory: written, weights, wrote, read: read(weights, written) };
}

/**
 * The knobs of a head at their extremes: g is 0 or 1, s is one-hot.
 *
 * @param {Step} step
 * @param {number} width M
 * @returns {Gates}
 */
function gatesOf({ key = null, move = 0, strength = 1000, sharpening = 1 }, width) {
  if (!Number.isInteger(move)) throw new Error(`move must be an integer; got ${kind(move)}`);
  if (Math.abs(move) > 1) throw new Error(`move must be in [-1, 1]; got ${move}`);
  atLeast("strength", strength, 0);
  atLeast("sharpening", sharpening, 1);
  const padded = new Float64Array(width);
  if (key !== null) {
    vector("key", key);
    if (key.length > width) {
      throw new Error(`key must have shape (M,), at most M = ${width}; got (${key.length},)`);
    }
    padded.set(key);
  }
  const shift = [0, 0, 0];
  shift[1 + move] = 1;
  return { key: padded, strength, gate: key === null ? 0 : 1, shift, sharpening };
}

/**
 * @param {string} name
 * @param {any} value
 */
function vector(name, value) {
  if (typeof value?.length !== "number") {
    throw new Error(`${name} must be a vector; got ${kind(value)}`);
  }
}

/**
 * @param {string} name
 * @param {any} value
 * @param {number} low
 */
function atLeast(name, value, low) {
  if (typeof value !== "number" || !(value >= low && value < Infinity)) {
    throw new Error(`${name} must be a number that is at least ${low}; got ${kind(value)}`);
  }
}

/**
 * @param {any} value
 * @returns {string} what it is, in a refusal
 */
function kind(value) {
  if (value === null) return "None";
  return typeof value === "number" ? String(value) : "a vector";
}
