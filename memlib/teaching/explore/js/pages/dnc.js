/**
 * Be the controller.
 * The books of a DNC by hand, exercise 4 as a puzzle, and the recorded machines with gates shut.
 *
 * @import { Frame } from "../kit/frame.js"
 */
import { button, check, choose, slider } from "../kit/controls.js";
import { el, put } from "../kit/dom.js";
import { percent } from "../kit/draw.js";
import { choice, flag, list, number } from "../kit/fields.js";
import { books } from "./dnc/books.js";
import { controller, fields as gates } from "./dnc/controller.js";
import { MOVES, replay, scene, told } from "./dnc/hands.js";
import { fields as machine } from "./dnc/machine.js";
import { trained } from "./dnc/trained.js";

const PARTS = { hands: "by hand", puzzle: "the puzzle", machine: "a trained machine" };
const TOOLS = { w: "writes to it", r: "reads it", f: "frees it" };
const LONGEST = 60; // moves that are kept

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    part: choice("hands", Object.keys(PARTS)),
    moves: list(["a", "a", "a", "a", "r1"], choice("a", MOVES), 0, LONGEST),
    tool: choice("w", Object.keys(TOOLS)),
    firm: number(1, 0, 1),
    erased: flag(false),
    ...gates,
    ...machine,
  },
  tries: [
    {
      text: "By hand: the head is on slot 1. Free slot 2. Which slot is given back?",
      state: { moves: ["a", "a", "a", "a", "r1", "f2"], tool: "f" },
    },
    {
      text:
        "The puzzle: open the free gate at first, store, ask and next, so that slots are given back " +
        "before they are read. Can all vectors still come back? (Let store read forth.)",
      state: {
        part: "puzzle",
        turn: 3,
        ...{ "first-free": true, "first-write": true, "first-mode": "back" },
        ...{ "store-free": true, "store-write": true, "store-mode": "forth" },
        ...{ "ask-free": true, "ask-mode": "alike", "next-free": true, "next-mode": "forth" },
      },
    },
    {
      text:
        "A trained machine, two vectors a round: shut the free gate and count the wrong bits. Then " +
        "shut the write gate, too. Are there more, or fewer?",
      state: { part: "machine", length: 2, "no-free": true, "no-write": true, step: 49 },
    },
  ],
  largest: { part: "machine", slots: 16, "no-free": true, step: 105 },
  build,
};

/**
 * @param {Frame} frame
 * @param {Record<string, any>} weights of the machines, by name
 */
function build(frame, weights) {
  const parts = {
    hands: byHand(frame),
    puzzle: controller(frame),
    machine: trained(frame, weights),
  };
  const ring = books((slot) => move(frame, frame.state.tool + slot));
  frame.lab.append(
    choose(frame, "part", "Who is in control:", PARTS),
    ...Object.values(parts).map(({ element }) => element),
    ring.element,
  );
  return async (/** @type {any} */ state) => {
    for (const [name, { element }] of Object.entries(parts)) {
      put(element, { hidden: name !== state.part });
    }
    const part = parts[/** @type {keyof typeof parts} */ (state.part)];
    const shown = await part.show(state);
    if (!shown) return;
    ring.show(shown.scene, state.part === "hands");
    frame.say(shown.sentence, shown.seen);
  };
}

/**
 * @param {Frame} frame
 * @param {string} one
 */
function move(frame, one) {
  const { moves } = frame.state;
  if (moves.length < LONGEST) frame.set({ moves: [...moves, one] });
}

/** @param {Frame} frame */
function byHand(frame) {
  const undo = () => frame.set({ moves: frame.state.moves.slice(0, -1) });
  const element = el(
    "div",
    {},
    choose(frame, "tool", "A click on a slot", TOOLS),
    el(
      "p",
      { class: "ml-bar" },
      button("Write to a free slot", () => move(frame, "a")),
      button("Read back", () => move(frame, "b")),
      button("Read forth", () => move(frame, "t")),
      button("Undo", undo),
      button("Clear", () => frame.set({ moves: [] })),
    ),
    slider(frame, "firm", { label: "write gate", low: 0, high: 1, step: 0.05, show: percent }),
    check(frame, "erased", "what is freed is erased, too"),
  );
  const show = (/** @type {any} */ state) => {
    const all = replay(state.moves, state);
    const now = all[all.length - 1];
    const shown = scene(now);
    return {
      scene: shown,
      sentence: told(all, state.moves),
      seen: { memory: now.memory, ...shown },
    };
  };
  return { element, show };
}
