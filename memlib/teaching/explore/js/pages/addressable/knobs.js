/**
 * Eight slots and the knobs of one head: each stage beside the knob that makes it.
 *
 * @import { Frame } from "../../kit/frame.js"
 * @import { Data } from "./run.js"
 * @import { Vector } from "../../tensor.js"
 */
import { columns } from "../../kit/columns.js";
import { button, panel, slider } from "../../kit/controls.js";
import { el, write } from "../../kit/dom.js";
import { heat, percent, round } from "../../kit/draw.js";
import { MOST, move } from "./run.js";

/**
 * @param {Frame} frame
 * @param {Data} data
 */
export function knobs(frame, data) {
  const stages = {
    content: columns("Weights by content", 8),
    gated: columns("Weights after the gate", 8),
    moved: columns("Weights after the shift", 8),
    weights: columns("Weights of the head", 8),
  };
  const knob = (
    /** @type {string} */ field,
    /** @type {string} */ label,
    /** @type {[number, number, number]} */ [low, high, step],
    /** @type {(value: number) => string} */ show = String,
  ) => slider(frame, field, { label, low, high, step, show });
  const share = (/** @type {string} */ field, /** @type {string} */ label) =>
    knob(field, label, [0, 1, 0.05], (value) => round(value));
  const shares = el("p", { class: "ml-words" });
  const film = heat("The head over time", { cell: 11 });
  const sentence = el("p", { class: "ml-also" });
  const again = button("Again", () => frame.set({ moves: Math.min(frame.state.moves + 1, MOST) }));

  const element = el(
    "div",
    {},
    el(
      "div",
      { class: "ml-row" },
      panel(
        "1 · Content: find what is like the key",
        stages.content.element,
        knob("seek", "key like slot", [0, 7, 1]),
        knob("strength", "strength β", [0, 50, 1]),
      ),
      panel(
        "2 · Interpolate: or stay where it was",
        stages.gated.element,
        knob("was", "head was on", [0, 7, 1]),
        knob("gate", "gate g", [0, 1, 0.05], (value) => round(value)),
      ),
      panel(
        "3 · Shift: move round the circle",
        stages.moved.element,
        share("back", "back"),
        share("stay", "stay"),
        share("on", "one on"),
        shares,
      ),
      panel(
        "4 · Sharpen: undo the blur",
        stages.weights.element,
        knob("sharpening", "sharpening γ", [1, 20, 0.1], (value) => round(value, 1)),
      ),
    ),
    panel(
      "The same knobs again: the head over time, a row a slot",
      el("div", { class: "ml-bar" }, again),
      knob("moves", "moves made", [1, MOST, 1]),
      film.element,
    ),
    sentence,
  );

  const show = (/** @type {any} */ state) => {
    const seen = move(state, data);
    const { previous, content, gated, moved, weights, history } = seen;
    stages.content.show(content);
    stages.gated.show(gated, previous);
    stages.moved.show(moved, gated);
    stages.weights.show(weights, moved);
    const [back, stay, on] = seen.shares;
    write(shares, `Made to sum to 1: s = (${round(back)}, ${round(stay)}, ${round(on)})`);
    const empty = Array(MOST + 1 - history.length).fill(new Float64Array(8));
    const slots = Array.from(weights, (_, n) => [...history, ...empty].map((past) => past[n]));
    film.show(slots, `The head over ${state.moves} moves: ${where(weights)}`);
    const moves = state.moves === 1 ? "one move" : `${state.moves} moves`;
    write(sentence, `After ${moves}, ${where(weights)}. Its blur is ${round(seen.blur)} slots.`);
    return { ...seen };
  };
  return { element, show };
}

/**
 * @param {Vector} weights
 * @returns {string} where the head is, in words
 */
export function where(weights) {
  const all = Array.from(weights);
  const most = Math.max(...all);
  const alike = all.flatMap((weight, n) => (weight > most - 1e-6 ? [n] : []));
  if (alike.length === 1) return `the head is on slot ${alike[0]} with ${percent(most)}`;
  if (alike.length === all.length) return `the head is on all slots with 1/${all.length} each`;
  const last = alike.pop();
  return `the head is on slots ${alike.join(", ")} and ${last} with ${percent(most)} each`;
}
