/**
 * Which slots of a cache stay (memlib/transformer/forgetting.py): a rule gives a score a slot.
 *
 * @import { Slot } from "./layers.js"
 * @typedef {ArrayLike<number>[]} Looks of each query so far its weights by position, summed over the
 *   heads
 */

/**
 * @template T
 * @param {T[]} slots the oldest first
 * @param {ArrayLike<number>} scores
 * @param {number} n
 * @returns {T[]} the n best, the oldest first; of equal ones the older stays
 */
export function keep(slots, scores, n) {
  const order = [...slots.keys()].sort((a, b) => compare(scores[b], scores[a]) || a - b);
  const stay = new Set(order.slice(0, n));
  return slots.filter((_, i) => stay.has(i));
}

/** @type {(slots: Slot[]) => number[]} the rule `window`, a name that browsers have taken */
export function newest(slots) {
  return slots.map(({ position }) => position);
}

/** @type {(slots: Slot[], first?: number) => number[]} the first tokens, then the newest */
export function sinks(slots, first = 4) {
  return slots.map(({ position }) => (position < first ? Infinity : position));
}

/** @type {(slots: Slot[], looks: Looks, recent?: number) => number[]} those with most weight so far */
export function heavyHitters(slots, looks, recent = 8) {
  const total = looked(slots, looks);
  return slots.map(({ position }, i) => (position >= looks.length - recent ? Infinity : total[i]));
}

/**
 * @param {Slot[]} slots
 * @param {Looks} looks
 * @param {number} [last] queries whose looks count; their own slots stay in any case
 * @param {number} [pool] slots side by side of which it is a mean
 * @returns {number[]} those with most weight of the last queries, and their neighbors
 */
export function lookedAt(slots, looks, last = 32, pool = 5) {
  const own = slots.map(({ position }) => position >= looks.length - last);
  const late = looked(slots, looks.slice(-last)).map((weight, i) => (own[i] ? 0 : weight));
  return slots.map((_, i) => {
    if (own[i]) return Infinity;
    const side = (pool - 1) / 2;
    const near = late.slice(Math.max(0, i - side), i + side + 1);
    return near.reduce((sum, weight) => sum + weight) / pool;
  });
}

/** @type {(slots: Slot[], looks: Looks) => number[]} all that queries gave to each slot */
function looked(slots, looks) {
  return slots.map(({ position }) => looks.reduce((sum, row) => sum + (row[position] ?? 0), 0));
}

/** @type {(a: number, b: number) => number} a - b, for infinite ones too */
function compare(a, b) {
  return a === b ? 0 : a - b;
}

/**
 * By name, as in the chapter: half of the n slots that stay are the newest where looks count.
 *
 * @type {Record<string, (slots: Slot[], looks: Looks, n: number) => number[]>}
 */
export const RULES = {
  window: newest,
  sinks: (slots) => sinks(slots),
  "heavy hitters": (slots, looks, n) => heavyHitters(slots, looks, Math.floor(n / 2)),
  "looked at": (slots, looks, n) =>
    lookedAt(slots, looks, Math.max(1, Math.min(8, Math.floor(n / 2)))),
};
