/**
 * Numbers drawn from a seed: the same ones for every reader.
 *
 * @param {number} seed
 * @returns {() => number} draws from [0, 1), by a counter and a mixing of its bits
 */
export function generator(seed) {
  let count = seed;
  return () => {
    count = (count + 0x6d2b79f5) | 0;
    let mixed = Math.imul(count ^ (count >>> 15), count | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
