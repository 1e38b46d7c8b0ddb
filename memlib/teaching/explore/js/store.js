/**
 * A store of N pairs, of which a query reads the k nearest (memlib/store), exactly or by clusters.
 *
 * @import { Matrix, Vector } from "./tensor.js"
 * @import { Measure } from "./verbs.js"
 * @typedef {{measure?: Measure, strength?: number, mask?: ArrayLike<boolean>}} Options mask: true
 *   = there is such a pair
 */
import { similarity, read as sum, address as weigh } from "./verbs.js";

/**
 * @param {Vector} query (M)
 * @param {Matrix} keys (N, M)
 * @param {number} k
 * @param {Measure} [measure]
 * @param {ArrayLike<boolean>} [mask] true = may be found
 * @returns {number[]} slots (k), the most similar first; -1 where fewer than k may be found
 */
export function nearest(query, keys, k, measure = "cosine", mask) {
  const scores = similarity(query, keys, measure);
  const there = [...scores.keys()].filter((n) => !mask || mask[n]);
  const best = there.sort((a, b) => scores[b] - scores[a]).slice(0, k);
  return Array.from({ length: k }, (_, i) => best[i] ?? -1);
}

/**
 * Where to look: w_n = exp(strength K(q, k_n)) / sum of the same over the k nearest.
 *
 * @param {Vector} query (M)
 * @param {Matrix} keys (N, M)
 * @param {number} k
 * @param {Options} [options]
 * @returns {[number[], Float64Array]} slots (k) and their weights (k), 0 for -1
 */
export function address(query, keys, k, { measure = "cosine", strength = 1, mask } = {}) {
  const slots = nearest(query, keys, k, measure, mask);
  return [slots, weights(query, keys, slots, { measure, strength })];
}

/**
 * @param {Vector} query (M)
 * @param {Matrix} keys (N, M)
 * @param {number[]} slots (k), found by whatever search
 * @param {Options} [options]
 * @returns {Float64Array} weights (k)
 */
export function weights(query, keys, slots, { measure = "cosine", strength = 1 } = {}) {
  const there = slots.filter((n) => n >= 0);
  const found = weigh(
    query,
    there.map((n) => keys[n]),
    { measure, strength },
  );
  return Float64Array.from(slots, (_, i) => found[i] ?? 0);
}

/**
 * What comes back: the values of the k nearest, weighted.
 *
 * @param {Vector} query (M)
 * @param {Matrix} keys (N, M)
 * @param {Matrix} values (N, V)
 * @param {number} k
 * @param {Options} [options]
 * @returns {Float64Array} (V)
 */
export function read(query, keys, values, k, options) {
  const [slots, found] = address(query, keys, k, options);
  const there = slots.filter((n) => n >= 0);
  return sum(
    found.subarray(0, there.length),
    there.map((n) => values[n]),
  );
}

/**
 * The backend "ivf": keys in clusters, each key with the center that is nearest.
 */
export class Clusters {
  /**
   * @param {Matrix} keys (N, M)
   * @param {Matrix} centers (C, M)
   * @param {Measure} [measure]
   */
  constructor(keys, centers, measure = "negative_squared_distance") {
    this.keys = keys;
    this.centers = centers;
    this.measure = measure;
    /** the cluster of each key */
    this.of = Array.from(keys, (key) => nearest(key, centers, 1, measure)[0]);
  }

  /**
   * @param {Vector} query (M)
   * @param {number} k
   * @param {number} effort how many clusters are looked into
   * @returns {{found: number[], clusters: number[], mask: boolean[], compared: number}} which slots,
   *   in which clusters, what is compared, and how many comparisons it takes
   */
  nearest(query, k, effort) {
    const clusters = nearest(query, this.centers, effort, this.measure);
    const within = this.of.map((one) => clusters.includes(one));
    const few = within.filter(Boolean).length < Math.min(k, this.keys.length);
    const mask = few ? within.fill(true) : within; // too few: an exact search
    const found = nearest(query, this.keys, k, this.measure, mask);
    const compared = this.centers.length + mask.filter(Boolean).length;
    return { found, clusters, mask, compared };
  }
}
