/**
 * Words by number (memlib/tasks/babi.py), and what is typed as sentences.
 */

/**
 * @param {string} sentence
 * @returns {string[]} its words, lower-case and free of punctuation
 */
export function wordsOf(sentence) {
  return sentence.toLowerCase().match(/[^\s.,?!]+/g) ?? [];
}

/**
 * @param {string} text
 * @returns {string[]} its sentences, which end at a point, a question mark or a line
 */
export function sentences(text) {
  const parts = text.match(/[^.?!\n]+[.?!]*/g) ?? [];
  return parts.map((part) => part.trim()).filter((part) => wordsOf(part).length);
}

export class Vocabulary {
  /**
   * @param {string[]} words all of them; number 0 is padding
   */
  constructor(words) {
    this.words = words;
    this.numbers = new Map(words.map((word, number) => [word, number]));
    this.numbers.delete(words[0]);
  }

  /**
   * @param {string} word
   * @returns {boolean}
   */
  has(word) {
    return this.numbers.has(word);
  }

  /**
   * @param {string[]} sentence
   * @returns {number[]} its known words by number; an unknown one is skipped, as if not said
   */
  encode(sentence) {
    return sentence.flatMap((word) => this.numbers.get(word) ?? []);
  }
}
