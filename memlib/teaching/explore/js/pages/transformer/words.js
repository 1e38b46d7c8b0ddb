/**
 * What is typed as words that the machine knows, and others.
 *
 * @typedef {{said: string, token: number, position: number}} Word token: -1 where it is not known;
 *   position: -1 there, and after the last word that is read
 */

/**
 * @param {string} text
 * @param {string[]} known by token
 * @param {number} most how many are read
 * @returns {Word[]}
 */
export function wordsOf(text, known, most) {
  const tokens = new Map(known.map((word, token) => [word.toLowerCase(), token]));
  let position = 0;
  return (text.match(/[^\s.,;:?!]+/g) ?? []).map((said) => {
    const token = tokens.get(said.toLowerCase()) ?? -1;
    const read = token >= 0 && position < most;
    return { said: known[token] ?? said, token, position: read ? position++ : -1 };
  });
}

/**
 * @param {string} before
 * @param {string} after
 * @param {string[]} known
 * @param {number} most
 * @returns {number} how many slots hold the same words in both texts, from the first on
 */
export function alike(before, after, known, most) {
  const [a, b] = [before, after].map((text) =>
    wordsOf(text, known, most).filter(({ position }) => position >= 0),
  );
  const first = a.findIndex(({ token }, position) => token !== b[position]?.token);
  return first < 0 ? a.length : first;
}
