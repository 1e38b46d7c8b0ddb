/**
 * Texts as vectors: a text is the sum of its words (memlib/teaching/words.py), at length 1.
 *
 * @import { Matrix } from "./tensor.js"
 */
import { norm } from "./tensor.js";

const PIECE = / ?(?:[\p{L}\p{N}]+|[^\s\p{L}\p{N}]+)/gu;

/**
 * @param {string} text
 * @returns {string[]} the runs of letters and of signs, each with the space before it
 */
export function pieces(text) {
  return ` ${text.trim().split(/\s+/).join(" ")}`.match(PIECE) ?? [];
}

export class Words {
  /**
   * @param {string[]} words
   * @param {Matrix} vectors one a word
   */
  constructor(words, vectors) {
    this.words = words;
    this.vectors = vectors;
    this.at = new Map(words.map((word, n) => [word, n]));
  }

  /**
   * @param {string} piece
   * @returns {number} which word it is: as it is written, or with a capital, or in small letters;
   *   -1 for none
   */
  find(piece) {
    const known = this.at.get(piece);
    if (known !== undefined) return known;
    const small = piece.toLowerCase();
    const capital = small.replace(/\p{L}/u, (letter) => letter.toUpperCase());
    return this.at.get(capital) ?? this.at.get(small) ?? -1;
  }

  /**
   * @param {string} text
   * @returns {number[]} the word of each piece, -1 where it is not known
   */
  encode(text) {
    return pieces(text).map((piece) => this.find(piece));
  }

  /**
   * @param {string} text
   * @returns {Float64Array} its vector; all 0 where no word is known
   */
  embed(text) {
    const sum = new Float64Array(this.vectors[0].length);
    for (const n of this.encode(text)) {
      if (n < 0) continue;
      const vector = this.vectors[n];
      for (let i = 0; i < sum.length; i++) sum[i] += vector[i];
    }
    const length = norm(sum) || 1;
    for (let i = 0; i < sum.length; i++) sum[i] /= length;
    return sum;
  }
}
