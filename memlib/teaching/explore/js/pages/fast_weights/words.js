/**
 * Words as vectors of length 1, drawn from the word itself: the same ones for every reader.
 */
import { generator } from "../../random.js";
import { norm } from "../../tensor.js";

export const LONGEST = 12; // letters of a word
const WIDTH = 16;
const STRANGE = /[^\p{L}\p{M}\p{N}' -]+/gu;
// of twenty the one whose counts of right answers are nearest to the mean of 200 random draws
const SALT = 17;

/**
 * @typedef {object} Alike how the keys are made
 * @property {number} correlation the cosine that names of the same first letter have on average
 * @property {number} mean the cosine that all of them have on average
 * @property {boolean} centre whether the mean key of the known names is taken away
 */

/**
 * @param {string} said
 * @returns {string} the word that is meant: small letters, no more than fit; perhaps none
 */
export function wordOf(said) {
  const plain = said.replace(STRANGE, " ").normalize("NFC").toLowerCase().normalize("NFC");
  const short = [...plain.trim().replace(/\s+/g, " ")].slice(0, LONGEST);
  return short.join("").trim();
}

/** @param {string} word @returns {string} with a capital */
export function shown(word) {
  const [first = "", ...rest] = word;
  return first.toUpperCase() + rest.join("");
}

/**
 * @param {string} text
 * @returns {Float64Array} normal numbers from a seed, which is the text's hash (FNV-1a); length 1
 */
function vector(text) {
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  const next = generator(hash);
  const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return unit(Float64Array.from({ length: WIDTH }, normal));
}

/** @param {Float64Array} vector @returns {Float64Array} at length 1; zeros stay zeros */
function unit(vector) {
  const length = norm(vector);
  return length ? vector.map((x) => x / length) : vector;
}

/** @param {string} place @returns {Float64Array} */
export function valueFor(place) {
  return vector(`${SALT} value ${place}`);
}

/**
 * @param {Alike} alike
 * @param {string[]} known the names whose mean key is taken away
 * @returns {(name: string) => Float64Array} the key of a name
 */
export function keyer({ correlation, mean, centre }, known) {
  const common = vector(`${SALT} mean`);
  /** @type {(a: Float64Array, share: number, b: Float64Array) => Float64Array} */
  const mixed = (a, share, b) =>
    unit(a.map((x, i) => Math.sqrt(share) * x + Math.sqrt(1 - share) * b[i]));
  const raw = (/** @type {string} */ name) => {
    const [initial = ""] = name;
    const letter = vector(`${SALT} letter ${initial}`);
    return mixed(common, mean, mixed(letter, correlation, vector(`${SALT} key ${name}`)));
  };
  if (!centre) return raw;
  const middle = new Float64Array(WIDTH);
  for (const name of known) {
    raw(name).forEach((x, i) => {
      middle[i] += x / known.length;
    });
  }
  return (name) => unit(raw(name).map((x, i) => x - middle[i]));
}
