/**
 * Stories that are kept for the reader trained on bAbI, and how a story is edited.
 *
 * @typedef {{name: string, story: string, question: string, right?: string}} Kept right: the
 *   answer that the reader should have given
 */

const MILK = `Sandra went to the bedroom.
Mary moved to the hallway.
Sandra took the milk.
Sandra travelled to the kitchen.
Daniel went to the office.
Sandra journeyed to the garden.
Mary went back to the bathroom.`;
const DAY = `Yesterday Julie went to the school.
Julie went to the park this morning.
This afternoon Julie journeyed to the cinema.`;
const WAY = "The kitchen is north of the garden.\nThe office is west of the kitchen.";

/** @type {Kept[]} */
export const KEPT = [
  { name: "Three facts", story: MILK, question: "Where was the milk before the garden?" },
  { name: "A day", story: DAY, question: "Where was Julie before the park?" },
  { name: "Yes or no", story: "Mary went to the garden.", question: "Is Mary in the kitchen?" },
  {
    name: "Wrong: three facts",
    story: MILK,
    question: "Where was the milk before the kitchen?",
    right: "bedroom",
  },
  {
    name: "Wrong: a way",
    story: WAY,
    question: "How do you go from the garden to the office?",
    right: "n,w",
  },
];

/**
 * Each makes new lines of the old ones, of which one is chosen, and says which is chosen then.
 *
 * @type {Record<string, (lines: string[], at: number) => [string[], number]>}
 */
export const EDITS = {
  "Move up": (lines, at) => moved(lines, at, Math.max(at - 1, 0)),
  "Move down": (lines, at) => moved(lines, at, Math.min(at + 1, lines.length - 1)),
  "Tell again": (lines, at) => [lines.toSpliced(at, 0, lines[at]), at + 1],
  "Take out": (lines, at) => [lines.toSpliced(at, 1), Math.max(Math.min(at, lines.length - 2), 0)],
};

/**
 * @param {string[]} lines
 * @param {number} from
 * @param {number} to
 * @returns {[string[], number]}
 */
function moved(lines, from, to) {
  return [lines.toSpliced(from, 1).toSpliced(to, 0, lines[from]), to];
}
