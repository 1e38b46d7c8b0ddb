/**
 * A program and its tape: what a line may say, the text, run, step and back.
 *
 * @import { Frame } from "../../kit/frame.js"
 * @import { Moment } from "../../programs.js"
 * @import { Matrix } from "../../tensor.js"
 * @import { Data } from "./run.js"
 */
import { button, panel, slider } from "../../kit/controls.js";
import { el, put, write } from "../../kit/dom.js";
import { editor } from "./editor.js";
import { where } from "./knobs.js";
import { COPY, execute, FOLLOW, LONGEST, REVERSE } from "./run.js";
import { pictures, tape } from "./tape.js";

const PACE = 350; // milliseconds a step while it runs
const MOST = 12; // pictures of what was read
const KNOWN = {
  copy: {
    steps: [
      "yield Step(add=marker)",
      "yield Step(move=+1, add=row1)",
      "yield Step(key=marker, move=+1)",
      "yield Step(move=+1)",
      "yield Step(move=-1)",
    ],
    words:
      "Words: marker and row1 to row8, a slot wide (the last column is the marker's). A part of " +
      "a vector: row1[0 : 4]. Numbers: [1, 0, 0, 0, 0, 0, 0, 0, 1]. What is read may be given a " +
      "name: seen = yield Step(move=+1).",
  },
  list: {
    steps: [
      "node = yield Step(key=start)",
      "node = yield Step(key=node[C : 2 * C])",
      "yield Step(move=+1)",
      "yield Step(add=node)",
    ],
    words:
      "Words: start, the code of the first node; C, how long a code is; and what you name, such " +
      "as node, holds what was read. A part of it: node[C : 2 * C].",
  },
};
const FIELDS =
  "A step may have key (look for it), move (−1, 0 or +1 slot, after that), add (then write it in " +
  "place of the slot), strength (β, else 1000) and sharpening (γ, else 1). Each step reads, last.";

/**
 * @param {Frame} frame
 * @param {Data} data
 */
export function machine(frame, data) {
  const code = editor(frame, "program", LONGEST);
  const tapes = {
    copy: tape(
      [
        { name: "row", to: 8, share: 8 },
        { name: "mark", to: 9, share: 2.4 },
      ],
      12,
      1,
    ),
    list: tape(
      [
        { name: "own code", to: 16, share: 4 },
        { name: "next code", to: 32, share: 4 },
        { name: "payload", to: 96, share: 6 },
      ],
      12,
      1.3,
    ),
  };
  const [copies, payloads] = [pictures(2, 11), pictures(MOST, 6)];
  const known = Object.entries(KNOWN).map(([name, { steps, words }]) => ({
    name,
    element: el(
      "div",
      {},
      el("div", { class: "ml-bar" }, ...code.steps(steps)),
      el("p", { class: "ml-words" }, words),
    ),
  }));
  /** @type {{text: string, tape: "copy" | "list", at: number}[]} */
  const starts = [
    { text: COPY, tape: "copy", at: 10 },
    { text: REVERSE, tape: "copy", at: 10 },
    { text: FOLLOW, tape: "list", at: 1 },
  ];
  const begin = ["Copy a digit", "Copy it backward", "Follow a linked list"].map((name, i) => {
    const { text, tape, at } = starts[i];
    return button(name, () => frame.set({ program: text, tape, at, slots: 10 }));
  });
  let steps = 0; // of the program, as far as it goes
  const go = (/** @type {number} */ at) => frame.set({ at: Math.min(Math.max(at, 0), steps) });
  const here = () => Math.min(frame.state.at, steps);
  const play = async () => {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return go(steps);
    go(here() < steps ? here() + 1 : 0);
    while (here() < steps) {
      const mine = frame.turn;
      await new Promise((done) => setTimeout(done, PACE));
      if (mine !== frame.turn) return; // the reader does something else
      go(here() + 1);
    }
  };
  const clamped = (/** @type {number} */ at) => String(Math.min(at, steps));
  const scrub = slider(frame, "at", {
    label: "step",
    low: 0,
    high: () => steps,
    step: 1,
    show: clamped,
  });
  const size = slider(frame, "slots", { label: "tape slots", low: 3, high: 12, step: 1 });

  const element = panel(
    "A program and its tape",
    el("div", { class: "ml-bar" }, el("span", {}, "Start from:"), ...begin),
    el("p", { class: "ml-words" }, "What a line may say; a click puts it below the cursor:"),
    ...known.map((one) => one.element),
    el("p", { class: "ml-words" }, FIELDS),
    el(
      "div",
      { class: "ml-row" },
      code.element,
      el(
        "div",
        { class: "ml-panel" },
        el(
          "div",
          { class: "ml-bar" },
          button("Run", play),
          button("Step", () => go(here() + 1)),
          button("Back", () => go(here() - 1)),
        ),
        scrub,
        size,
        tapes.copy.element,
        tapes.list.element,
        copies.element,
        payloads.element,
      ),
    ),
  );

  let last = { state: frame.state, ...execute(frame.state, data) };
  const show = (/** @type {any} */ state) => {
    const same = ["tape", "slots", "program"].every((name) => state[name] === last.state[name]);
    if (!same) last = { state, ...execute(state, data) };
    const { moments, start, why } = last;
    steps = moments.length;
    const at = Math.min(state.at, steps);
    const zero = Array.from(start, (_, n) => (n ? 0 : 1));
    const now = at ? moments[at - 1] : undefined;
    const [memory, weights] = [now?.memory ?? start, now?.weights ?? zero];
    const copying = state.tape === "copy";
    const input = scrub.querySelector("input");
    if (input) put(input, { max: steps, "aria-valuetext": clamped(at) }).value = String(at);
    if (scrub.lastChild) write(scrub.lastChild, clamped(at)); // the program may have changed
    code.show(state.program, now?.step.line, why);
    put(size, { hidden: !copying });
    for (const { name, element } of known) put(element, { hidden: name !== state.tape });
    for (const [name, { element }] of Object.entries(tapes)) {
      put(element, { hidden: name !== state.tape });
    }
    tapes[/** @type {"copy" | "list"} */ (state.tape)].show(memory, weights, now?.wrote === true);
    const reads = moments.slice(0, at).filter((moment) => !moment.wrote);
    put(copies.element, { hidden: !copying });
    put(payloads.element, { hidden: copying });
    if (copying)
      copies.show([
        { name: "in", image: data.rows },
        { name: "read", image: out(reads) },
      ]);
    else payloads.show(reads.slice(-MOST).map(({ step, read }) => payload(step.line, read)));
    const sentence = now
      ? `Step ${at} of ${steps}, line ${now.step.line}: ${did(now)}; ${where(weights)}.`
      : "Nothing is done yet: the head is on slot 0.";
    const refusal = why && ` ${why}${steps ? " What stands before it is run." : ""}`;
    const seen = { steps, why, memory, head: weights, reads: reads.map(({ read }) => read) };
    return { sentence: sentence + refusal, seen };
  };
  return { element, show };
}

/**
 * @param {Moment[]} reads
 * @returns {Matrix} the first columns of each read, a row each; the last eight
 */
function out(reads) {
  const rows = reads.slice(-8).map(({ read }) => Array.from(read).slice(0, 8));
  return [...rows, ...Array(8 - rows.length).fill(Array(8).fill(0))];
}

/**
 * @param {number | undefined} line
 * @param {Float64Array} read
 */
function payload(line, read) {
  const image = Array.from({ length: 8 }, (_, i) => read.slice(32 + 8 * i, 40 + 8 * i));
  return { name: `line ${line}`, image };
}

/**
 * @param {Moment} moment
 * @returns {string} what a step did, in words
 */
function did({ step: { key = null, move = 0 }, wrote }) {
  const moved = ["went one back", "", "went one on"][1 + move];
  return [key === null ? "" : "looked for the key", moved, wrote ? "wrote" : "read"]
    .filter(Boolean)
    .join(", ");
}
