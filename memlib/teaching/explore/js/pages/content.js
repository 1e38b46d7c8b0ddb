/**
 * Rub out a digit, and let the memory fill the hole.
 * Handwritten digits are stored; one of them is damaged, or another one drawn, and asked for.
 *
 * @import { Frame } from "../kit/frame.js"
 * @import { Matrix, Vector } from "../tensor.js"
 * @import { Asked, Recall } from "./content/recall.js"
 */
import { cells } from "../kit/cells.js";
import { button, choose, panel, slider } from "../kit/controls.js";
import { el, put } from "../kit/dom.js";
import { percent, round, shade } from "../kit/draw.js";
import { bits, choice, number } from "../kit/fields.js";
import { argmax } from "../tensor.js";
import { filled, INK, recaller } from "./content/recall.js";
import { descent, digit, shelf } from "./content/views.js";

const PIXELS = 64;
const STORED = 30;
const STEPS = 20;
const WHOLE = "0".repeat(PIXELS);
const LOWER = WHOLE.slice(32) + "1".repeat(32);
const AS_TAKEN = ".".repeat(PIXELS);
const FILLS = { average: "the average", white: "white paper", grey: "grey", noise: "noise" };

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    network: choice("modern", ["modern", "classical"]),
    asked: number(4, 0, STORED - 1, { whole: true }),
    drawn: {
      start: AS_TAKEN,
      parse: (said) => (/^[.0-9a-g]{64}$/.test(said) ? said : undefined),
      format: String,
    },
    hole: bits(LOWER, PIXELS, PIXELS),
    brush: choice("rub", ["rub", "ink"]),
    fill: choice("average", Object.keys(FILLS)),
    seed: number(1, 1, 9999, { whole: true }),
    count: number(10, 1, STORED, { whole: true }),
    power: number(4, -1, 7),
    steps: number(1, 1, STEPS, { whole: true }),
  },
  tries: [
    {
      text:
        "Set β to 32, take the 0 and leave its hole white: which digit comes back, and how sure is " +
        "it? And with the average in the hole?",
      state: { asked: 0, fill: "white", power: 5 },
    },
    {
      text:
        "Store all 30 digits, set β to about 6 and take the 4: one update finds it. What do more " +
        "updates make of it?",
      state: { count: 30, power: 2.5 },
    },
    {
      text:
        "Switch to the classical network and take one digit after another. What do all the answers " +
        "have in common, and how low do they lie?",
      state: { network: "classical", fill: "grey", steps: 10 },
    },
  ],
  largest: { count: STORED, steps: STEPS },
  build,
};

/**
 * @param {Frame} frame
 * @param {{pictures: Matrix, average: Vector}} data pictures in ink; number n shows the digit n % 10
 */
function build(frame, { pictures, average }) {
  const recall = recaller(pictures, average);
  const now = () => /** @type {Asked & {brush: "rub" | "ink"}} */ (frame.state);
  const replaced = (
    /** @type {string} */ all,
    /** @type {number} */ i,
    /** @type {string} */ one,
  ) => all.slice(0, i) + one + all.slice(i + 1);

  const given = cells({
    label: "The given picture",
    rows: 8,
    columns: 8,
    name: (row, column) => `row ${row + 1}, column ${column + 1}`,
    set(i, on) {
      const { brush, hole, drawn } = now();
      if (brush === "rub") return frame.set({ hole: replaced(hole, i, on ? "1" : "0") });
      const ink = on ? INK.toString(INK + 1) : "0";
      frame.set({ hole: replaced(hole, i, "0"), drawn: replaced(drawn, i, ink) });
    },
  });
  const answer = digit("What the memory recalls", 35);
  const stored = shelf(pictures, (asked) => frame.set({ asked, drawn: AS_TAKEN }));
  const fall = descent(STEPS);
  const other = button("Other noise", () => frame.set({ seed: (now().seed % 9999) + 1 }));
  const more = button("One more update", () => frame.set({ steps: now().steps + 1 }));
  const kind = (/** @type {number} */ n) => `${n % 10} (no. ${n + 1})`;
  const beta = (/** @type {number} */ power) => round(2 ** power, power < 3 ? 1 : 0);
  const strength = slider(frame, "power", {
    label: "strength β",
    low: -1,
    high: 7,
    step: 0.25,
    show: beta,
  });

  frame.lab.append(
    choose(frame, "network", "Network", { modern: "modern", classical: "classical" }),
    el(
      "div",
      { class: "ml-row" },
      panel("Given: draw on it", given.element),
      panel("Recalled", answer.element),
    ),
    frame.said,
    choose(frame, "brush", "The brush", { rub: "rubs out", ink: "draws ink" }),
    el(
      "div",
      { class: "ml-bar" },
      button("Rub out the lower half", () => frame.set({ hole: LOWER })),
      button("As it was", () => frame.set({ hole: WHOLE, drawn: AS_TAKEN })),
      button("Blank paper", () => frame.set({ hole: WHOLE, drawn: WHOLE })),
    ),
    choose(frame, "fill", "The hole is filled with", FILLS),
    slider(frame, "asked", {
      label: "digit taken",
      low: 0,
      high: STORED - 1,
      step: 1,
      show: kind,
    }),
    slider(frame, "count", { label: "digits stored", low: 1, high: STORED, step: 1 }),
    strength,
    slider(frame, "steps", { label: "updates", low: 1, high: STEPS, step: 1 }),
    el("div", { class: "ml-bar" }, more, other),
    panel("The stored digits: their weights, or how alike (classical)", stored.element),
    panel("The way down", fall.element),
  );

  return (/** @type {ReturnType<typeof now>} */ state) => {
    const modern = state.network === "modern";
    const found = recall(state);
    const ink = filled(state, pictures, average);
    given.show(
      Array.from(ink, (x, i) =>
        state.brush === "rub" ? state.hole[i] === "1" : state.hole[i] === "0" && x >= INK / 2,
      ),
    );
    ink.forEach((x, i) => {
      const part = state.hole[i] === "1" ? -x / INK : x / INK;
      put(given.element.children[i], { style: shade(part, 1) });
    });
    answer.show(found.picture);
    stored.show(found.weights, state.asked, modern ? percent : round);
    fall.show(found.energies);
    put(more, { disabled: state.steps === STEPS });
    put(other, { hidden: state.fill !== "noise" });
    strength.hidden = !modern;
    frame.say(modern ? shares(state, found) : signs(state, found, pictures), { ...found });
  };
}

/** @param {Asked} state @param {Recall} found @returns {string} */
function shares({ asked, steps }, { weights, energies }) {
  const best = argmax(weights);
  let spread = 0;
  for (let n = 0; n < weights.length; n++) {
    if (weights[n]) spread -= weights[n] * Math.log(weights[n]);
  }
  const who = best === asked ? `the ${asked % 10} that was taken` : `another one, a ${best % 10},`;
  return (
    `After ${steps} update${steps > 1 ? "s" : ""} ${who} has ${percent(weights[best])}; ` +
    `${round(Math.exp(spread), 1)} digits share the answer. Energy ${round(energies[steps], 3)}.`
  );
}

/** @param {Asked} state @param {Recall} found @param {Matrix} pictures @returns {string} */
function signs({ asked, steps }, { state, energies, lowest }, pictures) {
  const same = Array.from(state, (s, i) => s === (pictures[asked][i] >= INK / 2 ? 1 : -1));
  return (
    `After ${steps} update${steps > 1 ? "s" : ""} of every pixel ${same.filter(Boolean).length} of 64 pixels are ` +
    `those of the ${asked % 10}. Energy ${round(energies[steps], 1)}; ` +
    `the lowest of a stored digit is ${round(lowest ?? 0, 1)}.`
  );
}
