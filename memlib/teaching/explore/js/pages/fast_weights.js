/**
 * Tell two matrices where people live, then say that somebody moved.
 * A name is a key and a place its value: one matrix adds every pair, one corrects what it has.
 *
 * @import { Frame } from "../kit/frame.js"
 * @import { Fact, Held, Story } from "./fast_weights/memory.js"
 */
import { button, check, panel, slider, text } from "../kit/controls.js";
import { el, put } from "../kit/dom.js";
import { round } from "../kit/draw.js";
import { flag, list, number, text as words } from "../kit/fields.js";
import { best, listener } from "./fast_weights/memory.js";
import { factList, matrixView } from "./fast_weights/view.js";
import { LONGEST, shown, wordOf } from "./fast_weights/words.js";

const KNOWN = 24; // facts that the notebook gives
const OWN = 12; // tellings of the reader
const MOST = { low: 0, high: 0.95, step: 0.05, show: round };
const MOVED = [
  ["ada", "nairobi"],
  ["ada", "nairobi"],
];

/** @type {import("../kit/fields.js").Field<any>} a telling: "ada>rome" */
const fact = {
  start: ["ada", "nairobi"],
  parse(said) {
    const pair = said.split(">");
    return pair.length === 2 && pair.every((w) => w && wordOf(w) === w) ? pair : undefined;
  },
  format: (pair) => pair.join(">"),
};

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    facts: number(8, 0, KNOWN, { whole: true }),
    correlation: number(0, 0, MOST.high),
    mean: number(0, 0, MOST.high),
    centre: flag(false),
    rate: number(1, 0.05, 1),
    rounds: number(1, 1, 10, { whole: true }),
    name: words("Ada", LONGEST),
    place: words("Nairobi", LONGEST),
    told: list(/** @type {Fact[]} */ ([]), fact, 0, OWN, "|"),
  },
  tries: [
    {
      text:
        "Tell 16 facts and let the keys share a mean of 0.8: how many different places does the sum " +
        "still name? Then centre the keys, or tell them ten times at rate 0.3: which helps which rule?",
      state: { facts: 16, mean: 0.8 },
    },
    {
      text:
        "Tell all 24 facts, once, at rate 1: which rule keeps more? Tell them five times, then five " +
        "times at rate 0.3.",
      state: { facts: KNOWN, rounds: 5, rate: 0.3 },
    },
    {
      text:
        "Now Ada moves. With 8 facts, told five times at rate 0.3, how often must each rule be told " +
        "that she lives in Nairobi, until it believes it?",
      state: { rounds: 5, rate: 0.3, told: MOVED },
    },
  ],
  largest: { facts: KNOWN, rounds: 10, told: Array(OWN).fill(MOVED[0]), centre: true },
  build,
};

/**
 * @param {Frame} frame
 * @param {{facts: Fact[]}} data names and places, by the first letter two names each
 */
function build(frame, { facts }) {
  const known = facts.map((pair) => /** @type {Fact} */ (pair.map(wordOf)));
  const look = listener(known);
  const now = () => /** @type {Story & {place: string}} */ (frame.state);
  const meant = () => /** @type {Fact} */ ([wordOf(now().name), wordOf(now().place)]);
  const ready = () => meant().every(Boolean) && now().told.length < OWN;
  const tell = (/** @type {Event} */ event) => {
    event.preventDefault();
    if (ready()) frame.set({ told: [...now().told, meant()] });
  };

  const views = { sum: matrixView("sum"), delta: matrixView("delta rule") };
  const rows = factList(KNOWN + OWN, (name) => frame.set({ name: shown(name) }));
  const telling = el("button", { type: "submit" }, "Tell it");
  const back = button("Take the last one back", () => {
    frame.set({ told: now().told.slice(0, -1) });
    if (back.disabled) telling.focus();
  });
  const towns = known.map(([, place]) => shown(place)).join(", ");
  frame.lab.append(
    frame.said,
    el(
      "div",
      { class: "ml-row" },
      panel("The sum: S + β k vᵀ", views.sum.element),
      panel("The delta rule: S + β k (v − Sᵀk)ᵀ", views.delta.element),
    ),
    el(
      "p",
      { class: "ml-note" },
      "Left of each matrix is the key of the name you ask for; below it what is read, " +
        "and the places most like it.",
    ),
    el(
      "form",
      { onsubmit: tell },
      panel(
        "Ask for a name, or tell a fact",
        el(
          "div",
          { class: "ml-row" },
          text(frame, "name", "Name", { maxlength: LONGEST }),
          text(frame, "place", "lives in", { maxlength: LONGEST }),
        ),
        el("div", { class: "ml-bar" }, telling, back),
        el(
          "details",
          {},
          el("summary", {}, "Any name and any place will do"),
          el(
            "p",
            {},
            "Key and value are drawn from the word itself, so the same word is always the same " +
              `vector. What is read is compared with these places, and with those you tell: ${towns}.`,
          ),
        ),
      ),
    ),
    slider(frame, "facts", { label: "facts told", low: 0, high: KNOWN }),
    slider(frame, "rounds", { label: "rounds of telling", low: 1, high: 10 }),
    slider(frame, "rate", { label: "rate β", low: 0.05, high: 1, step: 0.05, show: round }),
    slider(frame, "correlation", { label: "correlation of keys", ...MOST }),
    slider(frame, "mean", { label: "mean of the keys", ...MOST }),
    el(
      "p",
      { class: "ml-note" },
      "Correlation: how alike the keys of two names are that begin with the same letter. Mean: how " +
        "alike those of any two names are. Both are cosines.",
    ),
    check(frame, "centre", "centre the keys: take away the mean key of the 24 names"),
    panel(
      "What comes back, name by name",
      el(
        "p",
        { class: "ml-note" },
        "A bar is how alike what is read is to the place told last; ✗ where another is more alike.",
      ),
      rows.element,
    ),
  );

  return (/** @type {Story} */ state) => {
    const seen = look(state);
    const { sum, delta, names, told, places, key } = seen;
    const [name] = meant();
    views.sum.show(name, key, sum, places);
    views.delta.show(name, key, delta, places);
    rows.show(names, told, places, [sum, delta]);
    put(telling, { disabled: !ready() });
    put(back, { disabled: !state.told.length });
    frame.say(sentence(name, seen), seen);
  };
}

/** @param {string} name @param {ReturnType<ReturnType<typeof listener>>} seen @returns {string} */
function sentence(name, { sum, delta, names, told, places }) {
  if (!names.length) return "Nothing has been told yet: both matrices are all zeros.";
  const score =
    `Of ${names.length} ${names.length === 1 ? "fact" : "facts"} the sum gives back ` +
    `${sum.right}, the delta rule ${delta.right}.`;
  if (!name) return `${score} Type a name to ask for it.`;
  const answer = (/** @type {Held} */ { asked }) =>
    best(asked) < 0 ? "nothing" : `${shown(places[best(asked)])} (${round(Math.max(...asked))})`;
  const both = `the sum says ${answer(sum)}, the delta rule ${answer(delta)}`;
  const own = told[names.indexOf(name)];
  if (!own) return `${score} Nobody said where ${shown(name)} lives, and still ${both}.`;
  return `${score} ${shown(name)} lives in ${shown(places[own.at(-1) ?? 0])}: ${both}.`;
}
