/**
 * What a network makes of a damaged picture: the query, and every update on the way.
 *
 * @import { Matrix, Vector } from "../../tensor.js"
 * @typedef {object} Asked what the reader has made of it
 * @property {"modern" | "classical"} network
 * @property {number} count how many of the pictures are stored
 * @property {number} asked the picture that is taken
 * @property {string} drawn (64) by pixel its ink, 0 to g, or "." for that of the taken picture
 * @property {string} hole (64) "1" where a pixel is rubbed out
 * @property {"average" | "white" | "grey" | "noise"} fill what stands in the hole
 * @property {number} seed of the noise
 * @property {number} power the strength is two to this power
 * @property {number} steps how many updates
 * @typedef {object} Recall
 * @property {Vector} query
 * @property {Vector} state
 * @property {Vector} weights of the last update; of the classical network the overlaps
 * @property {number[]} energies before the first update and after each
 * @property {Float64Array} picture in ink
 * @property {number} [lowest] energy of a stored pattern, in the classical network
 */
import { ClassicalHopfield, Hopfield, height, sweep } from "../../content.js";
import { generator } from "../../random.js";
import { dot, norm } from "../../tensor.js";
import { read } from "../../verbs.js";

export const INK = 16;

/**
 * @param {Asked} state
 * @param {Matrix} pictures
 * @param {Vector} average
 * @returns {Float64Array} the damaged picture with its hole filled, in ink
 */
export function filled({ asked, drawn, hole, fill, seed }, pictures, average) {
  const next = generator(seed);
  const noise = Float64Array.from(hole, () => INK * next());
  const filling = { average, white: [], grey: Array(64).fill(INK / 2), noise }[fill];
  return Float64Array.from(drawn, (ink, i) => {
    if (hole[i] === "1") return filling[i] ?? 0;
    return ink === "." ? pictures[asked][i] : Number.parseInt(ink, INK + 1);
  });
}

/**
 * Both networks, over the same pictures.
 *
 * @param {Matrix} pictures
 * @param {Vector} average
 * @returns {(state: Asked) => Recall}
 */
export function recaller(pictures, average) {
  // Less the average, at length 1; what equals the average has no direction and stays 0.
  const prepare = (/** @type {Vector} */ picture) => {
    const rest = Float64Array.from(picture, (ink, i) => ink - average[i]);
    const length = norm(rest);
    return length ? rest.map((x) => x / length) : rest;
  };
  const sign = (/** @type {number} */ ink) => (ink >= INK / 2 ? 1 : -1);
  const patterns = Array.from(pictures, prepare);
  const signs = Array.from(pictures, (picture) => Float64Array.from(picture, sign));
  /** @type {Record<number, {joined: Matrix, lowest: number}>} by how many are stored */
  const nets = {};
  const classicalNet = (/** @type {Matrix} */ kept) => {
    const joined = new ClassicalHopfield().connections(kept);
    return { joined, lowest: Math.min(...Array.from(kept, (pattern) => height(pattern, joined))) };
  };

  /** @param {Asked} asked @returns {Recall} */
  const modern = (asked) => {
    const kept = patterns.slice(0, asked.count);
    const net = new Hopfield(2 ** asked.power);
    const query = prepare(filled(asked, pictures, average));
    /** @type {[Vector, Vector]} */
    let [state, weights] = [query, query];
    const energies = [net.energy(state, kept)];
    for (let step = 0; step < asked.steps; step++) {
      [state, weights] = net.forward(state, kept);
      energies.push(net.energy(state, kept));
    }
    return { query, state, weights, energies, picture: read(weights, pictures) };
  };

  /** @param {Asked} asked @returns {Recall} */
  const classical = (asked) => {
    const { count, hole, fill, steps } = asked;
    const kept = signs.slice(0, count);
    nets[count] ??= classicalNet(kept);
    const { joined, lowest } = nets[count];
    // Grey is neither sign: a unit that is not known.
    const unknown = (/** @type {number} */ i) => fill === "grey" && hole[i] === "1";
    const ink = filled(asked, pictures, average);
    const query = ink.map((x, i) => (unknown(i) ? 0 : sign(x)));
    /** @type {Float64Array} */
    let state = query;
    const energies = [height(state, joined)];
    for (let step = 0; step < steps; step++) {
      state = sweep(state, joined);
      energies.push(height(state, joined));
    }
    const weights = Float64Array.from(kept, (pattern) => dot(pattern, state) / state.length);
    const picture = state.map((s) => ((s + 1) * INK) / 2);
    return { query, state, weights, energies, picture, lowest };
  };
  return (asked) => (asked.network === "modern" ? modern(asked) : classical(asked));
}
