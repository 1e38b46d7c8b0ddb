/**
 * What a machine is shown and what it should say (memlib/tasks), one sequence.
 *
 * @import { Matrix } from "./tensor.js"
 * @typedef {object} Task
 * @property {number[][]} inputs (T, I)
 * @property {Matrix} targets (T, O), 0 where they do not count
 * @property {boolean[]} mask (T), true = this step's targets count
 * @property {number} heard steps until all that is to be kept has come in
 */

/**
 * Vectors, a delimiter, and as many steps of silence in which they are to be said again.
 *
 * @param {number[][]} vectors (L, bits)
 * @returns {Task}
 */
export function copy(vectors) {
  const bits = vectors[0].length;
  const silence = vectors.map(() => zeros(bits + 1));
  const delimiter = mark(zeros(bits + 1), bits);
  const inputs = [...vectors.map((vector) => [...vector, 0]), delimiter, ...silence];
  return asked(inputs, vectors, vectors.length);
}

/**
 * @param {Task[]} parts
 * @returns {Task} one after the other, each answered before the next comes
 */
export function inRounds(parts) {
  const inputs = parts.flatMap((part) => part.inputs);
  const last = parts[parts.length - 1];
  return {
    inputs,
    targets: parts.flatMap((part) => Array.from(part.targets)),
    mask: parts.flatMap((part) => part.mask),
    heard: inputs.length - last.inputs.length + last.heard,
  };
}

/**
 * Items of some vectors, each behind a delimiter; a query between two delimiters of another
 * channel; and silence, in which the item after the query's is to be said.
 *
 * @param {number[][][]} items (K, l, bits)
 * @param {number[][]} query (l, bits)
 * @param {number[][]} answer (l, bits)
 * @returns {Task}
 */
export function associativeRecall(items, query, answer) {
  const bits = query[0].length;
  const channel = (/** @type {number} */ i) => mark(zeros(bits + 2), bits + i);
  const put = (/** @type {number[][]} */ vectors) => vectors.map((vector) => [...vector, 0, 0]);
  const shown = items.flatMap((item) => [channel(0), ...put(item)]);
  const silence = query.map(() => zeros(bits + 2));
  const inputs = [...shown, channel(1), ...put(query), channel(1), ...silence];
  return asked(inputs, answer, shown.length);
}

/**
 * @param {number[][]} inputs
 * @param {number[][]} answer the targets of the last steps
 * @param {number} heard
 * @returns {Task}
 */
function asked(inputs, answer, heard) {
  const before = inputs.length - answer.length;
  const silent = zeros(answer[0].length);
  return {
    inputs,
    targets: inputs.map((_, t) => answer[t - before] ?? silent),
    mask: inputs.map((_, t) => t >= before),
    heard,
  };
}

/**
 * @param {Task} task
 * @param {Matrix} logits (T, O), above 0 means a 1
 * @returns {boolean[][]} (T, O), where an answer that counts is wrong
 */
export function wrongBits({ targets, mask }, logits) {
  return mask.map((counts, t) =>
    Array.from(logits[t], (logit, i) => counts && logit > 0 !== targets[t][i] > 0.5),
  );
}

/**
 * @param {number} length
 * @returns {number[]}
 */
function zeros(length) {
  return Array(length).fill(0);
}

/**
 * @param {number[]} vector
 * @param {number} i
 * @returns {number[]} the same with a 1 at place i
 */
function mark(vector, i) {
  return vector.with(i, 1);
}
