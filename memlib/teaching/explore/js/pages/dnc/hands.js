/**
 * The books by hand: the reader says where the heads are, a move a step.
 *
 * @import { Scene } from "./books.js"
 * @typedef {object} Books
 * @property {Float64Array[]} memory (N, 26), a letter each
 * @property {Float64Array} usage (N), before the write of this step
 * @property {Float64Array[]} links (N, N)
 * @property {Float64Array} precedence (N)
 * @property {Float64Array} writing (N)
 * @property {Float64Array} reading (N); a head stays where it is, unless it is moved
 * @property {number} letters how many were written
 * @typedef {{firm: number, erased: boolean}} Ways how firmly writes are made; what is freed is erased
 */
import { allocation, follow, link, retain, use } from "../../bookkeeping.js";
import { percent } from "../../kit/draw.js";
import { argmax, full, onehot } from "../../tensor.js";
import { read, write } from "../../verbs.js";

export const SLOTS = 6;
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const NONE = new Float64Array(SLOTS);

/** A move: write, read or free a slot, write to a free one, read back, read forth. */
export const MOVES = [
  ...["w", "r", "f"].flatMap((what) => Array.from(NONE, (_, n) => `${what}${n}`)),
  ...["a", "b", "t"],
];

/**
 * @param {string[]} moves
 * @param {Ways} ways
 * @returns {Books[]} before the first move, and after each
 */
export function replay(moves, ways) {
  /** @type {Books[]} */
  const all = [
    {
      memory: full(SLOTS, LETTERS.length),
      usage: NONE,
      links: full(SLOTS, SLOTS),
      precedence: NONE,
      writing: NONE,
      reading: NONE,
      letters: 0,
    },
  ];
  for (const move of moves) all.push(step(all[all.length - 1], move, ways));
  return all;
}

/**
 * @param {Books} before
 * @param {string} move
 * @param {Ways} ways
 * @returns {Books}
 */
function step(before, move, { firm, erased }) {
  const slot = Number(move[1]);
  const kept = retain([move[0] === "f" ? 1 : 0], [before.reading]);
  const usage = use(before.usage, [before.writing]).map((u, n) => u * kept[n]);
  const where = { w: onehot(slot, SLOTS), a: allocation(usage) }[move[0]];
  const writing = where?.map((w) => firm * w) ?? NONE;

  const letter = onehot(before.letters % LETTERS.length, LETTERS.length);
  const left = before.memory.map((row, n) => (erased ? row.map((x) => x * kept[n]) : row));
  const memory = write(left, writing, letter, new Float64Array(LETTERS.length).fill(1));
  const [links, precedence] = link(before.links, before.precedence, writing);

  const [back, forth] = follow(links, before.reading);
  const reading = { r: onehot(slot, SLOTS), b: back, t: forth }[move[0]] ?? before.reading;
  const letters = before.letters + (where ? 1 : 0);
  return { memory, usage, links, precedence, writing, reading, letters };
}

/**
 * @param {Books} books
 * @returns {Scene}
 */
export function scene({ memory, usage, writing, ...books }) {
  const used = use(usage, [writing]);
  return { ...books, held: memory.map(most), usage: used, allocation: allocation(used), writing };
}

/**
 * @param {Float64Array} letters
 * @returns {string} the one with most of the weight, or nothing
 */
function most(letters) {
  return letters[argmax(letters)] > 0.01 ? LETTERS[argmax(letters)] : "";
}

/**
 * @param {Books[]} all
 * @param {string[]} moves
 * @returns {string} what the last move did, and what is next
 */
export function told(all, moves) {
  const now = all[all.length - 1];
  const { usage, allocation: free } = scene(now);
  const used = Object.keys(usage).filter((n) => usage[Number(n)] > 0.5);
  const next = free[argmax(free)] > 0.5 ? `slot ${argmax(free)}` : "no slot in particular";
  const move = moves[moves.length - 1];
  return (
    `${move ? said(all[all.length - 2], now, move) : "Nothing is written yet."} ` +
    `In use: ${used.join(", ") || "none"}. The next write to a free slot goes to ${next}.`
  );
}

/**
 * @param {Books} before
 * @param {Books} now
 * @param {string} move
 * @returns {string}
 */
function said(before, now, move) {
  const slot = Number(move[1]);
  if (move[0] === "w" || move[0] === "a") {
    const letter = LETTERS[before.letters % LETTERS.length];
    const over = most(before.memory[argmax(now.writing)]);
    if (place(now.writing) === "nowhere") return `No slot is free: ${letter} goes nowhere.`;
    return `${letter} is written to ${place(now.writing)}${over && `, over ${over}`}.`;
  }
  if (move[0] === "f") {
    const was = place(before.reading);
    if (was === "nowhere") return "Nothing was read: the free gate gives nothing back.";
    const other = before.reading[slot] < 0.5 ? `, not slot ${slot}` : "";
    return `The free gate gives back what was read last: ${was}${other}.`;
  }
  const way = { r: "Read", b: "Back", t: "Forth" }[move[0]];
  const came = most(read(now.reading, now.memory)) || "nothing";
  return `${way}: the head is ${place(now.reading).replace(/^slot/, "on slot")}, and reads ${came}.`;
}

/**
 * @param {Float64Array} weights
 * @returns {string} "slot 3", "slot 3 (80 %)", "nowhere"
 */
function place(weights) {
  const slot = argmax(weights);
  if (weights[slot] < 0.01) return "nowhere";
  return weights[slot] > 0.995 ? `slot ${slot}` : `slot ${slot} (${percent(weights[slot])})`;
}
