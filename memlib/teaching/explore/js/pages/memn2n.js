/**
 * Tell a story, and ask the trained reader.
 * It is the network of results/babi_joint.safetensors, at half precision.
 *
 * @import { Frame } from "../kit/frame.js"
 * @typedef {{story: string, question: string, empty: boolean, hops: string, at: number}} State
 *   hops: how many are shown; at: the sentence that is chosen
 */
import { button, check, choose, panel, text } from "../kit/controls.js";
import { el, put, write } from "../kit/dom.js";
import { bars, percent } from "../kit/draw.js";
import { choice, flag, number, text as typed } from "../kit/fields.js";
import { shelf } from "../kit/shelf.js";
import { MemN2N } from "../memn2n.js";
import { argmax, softmax } from "../tensor.js";
import { sentences, Vocabulary, wordsOf } from "../vocabulary.js";
import { hopTable } from "./memn2n/hops.js";
import { EDITS, KEPT } from "./memn2n/stories.js";

const [LONGEST, LONGEST_QUESTION] = [2500, 120]; // characters
const BEST = 4; // answers that are shown
const [MILK, JULIE, MARY] = KEPT.map(({ story, question }) => ({ story, question }));
const NOTHING = "Tell it a sentence with a word that it knows: of nothing it answers nothing.";
const TELEGRAMS = "Mary kitchen.\nJohn football.\nDaniel hallway.\nJohn office.\nSandra garden.";

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    story: typed(MILK.story, LONGEST),
    question: typed(MILK.question, LONGEST_QUESTION),
    empty: flag(true),
    hops: choice("3", ["0", "1", "2", "3"]),
    at: number(0, 0, LONGEST, { whole: true }),
  },
  tries: [
    {
      text: "Write telegrams, two words each, and ask with one word. Does it miss the grammar?",
      state: { story: TELEGRAMS, question: "Football?" },
    },
    {
      text:
        "A story told out of order, Julie's, who says when she was where: move its sentences " +
        "into every order you like. Does the answer ever change?",
      state: JULIE,
    },
    {
      text: "It is sure that Mary is not in the kitchen. Now switch the empty slots off.",
      state: MARY,
    },
  ],
  build,
};

/**
 * @param {Frame} frame
 * @param {{reader: any}} data
 */
function build(frame, { reader }) {
  const { words, recipe } = reader.about;
  const vocabulary = new Vocabulary(words);
  const said = words.filter((/** @type {string} */ word) => /^\w+$/.test(word)).sort();
  const fields = {
    story: text(frame, "story", "Story", { rows: 7, maxlength: LONGEST }),
    question: text(frame, "question", "Question", { maxlength: LONGEST_QUESTION }),
  };
  const known = shelf(frame, fields, said);
  const kept = KEPT.map(({ name, story, question }) =>
    button(name, () => frame.set({ story, question, at: 0, empty: true })),
  );
  const edits = Object.entries(EDITS).map(([name, edit]) =>
    button(name, () => {
      const lines = sentences(frame.state.story);
      const [changed, at] = edit(lines, Math.min(frame.state.at, lines.length - 1));
      const story = changed.join("\n");
      if (story.length <= LONGEST) frame.set({ story, at });
    }),
  );
  const table = hopTable(
    recipe.hops,
    (word) => vocabulary.has(word),
    (at) => frame.set({ at }),
  );
  const best = bars(Array.from({ length: BEST }, () => ""));
  const none = el("p");
  const answer = panel("Answer", best.element, none);

  frame.lab.append(
    el("div", { class: "ml-bar" }, ...kept),
    known.element,
    el(
      "div",
      { class: "ml-row" },
      el("div", {}, fields.story, known.skipped),
      el("div", {}, fields.question, check(frame, "empty", "empty slots take part"), answer),
    ),
    panel(
      "Where each hop looks",
      choose(frame, "hops", "Show", { 0: "no hop", 1: "1 hop", 2: "2 hops", 3: "3 hops" }),
      table.element,
      el("div", { class: "ml-bar" }, "The chosen sentence:", ...edits),
    ),
  );

  return (/** @type {State} */ state) => {
    const found = ask(reader, state);
    const { told, count, ready, scores, weights, nothing } = found;
    const shown = ready ? Number(state.hops) : 0;
    const done = ready && shown === weights.length;
    const rest = `no sentence: ${state.empty ? `${found.left} empty slots` : "switched off"}`;
    const at = Math.min(state.at, told.length - 1);
    table.show({ story: told, weights, nothing, rest, shown, at });
    known.show();
    best.show(
      found.best.map(({ sure }) => sure),
      found.best.map(({ name }) => name),
    );
    put(best.element, { hidden: !done });
    put(none, { hidden: done });
    write(none, ready ? `comes after hop ${weights.length}` : "none: there is nothing to go by");
    const mine = KEPT.findIndex(
      ({ story, question }) => story === state.story && question === state.question,
    );
    for (const [i, one] of kept.entries()) put(one, { "aria-pressed": String(i === mine) });
    for (const one of edits) one.disabled = !told.length;
    const missing = count ? "Ask something with a word that it knows." : NOTHING;
    const sentence = ready ? describe(found, shown, KEPT[mine]?.right) : missing;
    frame.say(sentence, ready ? { scores, weights, nothing } : {});
  };
}

/**
 * What the reader makes of a story and a question.
 *
 * @param {any} reader its tensors, and what is known about its training
 * @param {State} state
 */
function ask(reader, { story, question, empty }) {
  const { words, answers, recipe } = reader.about;
  const vocabulary = new Vocabulary(words);
  const sizes = { vocabSize: words.length, answers: answers.length };
  const model = new MemN2N(reader, { ...recipe, ...sizes, empty });
  const told = sentences(story).map(wordsOf);
  const heard = told.map((sentence) => vocabulary.encode(sentence));
  const asked = vocabulary.encode(wordsOf(question));
  const [scores, weights] = model.forward(heard, asked);

  const count = heard.filter((sentence) => sentence.length).length;
  const sum = (/** @type {Float64Array} */ row) => row.reduce((a, b) => a + b, 0);
  const sure = softmax(scores);
  const order = [...sure.keys()].sort((a, b) => sure[b] - sure[a]);
  return {
    told,
    count,
    ready: count > 0 && asked.length > 0,
    left: Math.max(0, model.slots - count), // slots without a sentence
    scores,
    weights,
    nothing: weights.map((row) => (empty ? Math.max(0, 1 - sum(row)) : 0)),
    best: order.slice(0, BEST).map((a) => ({ name: answers[a], sure: sure[a] })),
  };
}

/**
 * @param {ReturnType<typeof ask>} found
 * @param {number} shown how many hops
 * @param {string} [right] the right answer, where the reader's is wrong
 * @returns {string} where the hops look, and what is answered
 */
function describe({ told, weights, nothing, best }, shown, right) {
  const looks = weights.slice(0, shown).map((row, k) => {
    const most = argmax(row);
    const empty = nothing[k] > row[most];
    const where = empty ? "no sentence" : `“${told[most].join(" ")}”`;
    const share = percent(empty ? nothing[k] : row[most]);
    return `${k ? `hop ${k + 1}` : "Hop 1 looks most"} at ${where} (${share})`;
  });
  const [{ name, sure }] = best;
  const end =
    shown < weights.length
      ? `Where would you look ${shown ? "next" : "first"}?`
      : `The answer: ${name} (${percent(sure)} sure).${right ? ` Wrong: it is ${right}.` : ""}`;
  return `${shown ? `${looks.join(", ")}. ` : ""}${end}`.replaceAll(" %", "\u00a0%");
}
