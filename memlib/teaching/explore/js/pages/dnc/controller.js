/**
 * The puzzle on the page: a row of gates for each kind of step, and what comes back.
 *
 * @import { Frame } from "../../kit/frame.js"
 * @import { Scene } from "./books.js"
 * @import { Table } from "./puzzle.js"
 */
import { allocation, use } from "../../bookkeeping.js";
import { check, choose, panel, slider } from "../../kit/controls.js";
import { el, put, write } from "../../kit/dom.js";
import { shade } from "../../kit/draw.js";
import { choice, flag, number } from "../../kit/fields.js";
import { answers, KINDS, letter, MODES, play, ROUND, right, verdict } from "./puzzle.js";

const GOAL =
  "Three slots, five rounds of three vectors, A to O: all must come back. The first of a round is " +
  "stored with a mark, and the mark is the key. A write goes to a free slot.";
const MEANS = {
  first: "the first vector of a round comes in",
  store: "another vector comes in",
  ask: "the first vector is to be read",
  next: "the next vector is to be read",
};

/** @type {Record<string, any>} */
export const fields = {
  turn: number(0, 0, 29, { whole: true }),
  ...Object.fromEntries(
    KINDS.flatMap((kind) => [
      [`${kind}-free`, flag(false)],
      [`${kind}-write`, flag(false)],
      [`${kind}-mode`, choice("back", MODES)],
    ]),
  ),
};

/** @param {Frame} frame */
export function controller(frame) {
  const modes = Object.fromEntries(MODES.map((mode) => [mode, mode]));
  const kinds = KINDS.map((kind) =>
    panel(
      `${kind}: ${MEANS[kind]}`,
      check(frame, `${kind}-free`, "free"),
      check(frame, `${kind}-write`, "write"),
      choose(frame, `${kind}-mode`, "read", modes),
    ),
  );
  const cells = Array.from({ length: 15 }, () => el("td"));
  const rows = Array.from({ length: 5 }, (_, r) =>
    el("tr", {}, el("th", { scope: "row" }, `round ${r + 1}`), ...cells.slice(3 * r, 3 * r + 3)),
  );
  const head = ["", "first", "second", "third"].map((name) => el("th", { scope: "col" }, name));
  const table = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  const hint = el("p");
  const element = el(
    "div",
    {},
    el("p", {}, GOAL),
    el("div", { class: "ml-row" }, ...kinds),
    panel("What comes back", table),
    el("details", {}, el("summary", {}, "A hint"), hint),
    slider(frame, "turn", {
      ...{ label: "step", low: 0, high: 29, step: 1 },
      show: (turn) => `${turn + 1} of 30`,
    }),
  );

  /**
   * @param {any} state
   * @returns {{scene: Scene, sentence: string, seen: Record<string, any>}}
   */
  const show = (state) => {
    const says = said(state);
    const states = play(says);
    const came = answers(states);
    const good = right(came);
    cells.forEach((cell, k) => {
      write(cell, good[k] ? letter(came[k]) : `${letter(came[k]) || "–"} ✗`);
      put(cell, { style: shade(good[k] ? 1 : -1, 0.3) });
    });
    const judged = verdict(says, good);
    write(hint, judged);
    const { memory, usage, links, precedence, weights } = states[state.turn];
    const [reading, writing] = weights;
    const used = use(usage, [writing]);
    const books = { usage: used, allocation: allocation(used), precedence: precedence[0] };
    const scene = { ...books, held: memory.map(letter), links: links[0], reading, writing };
    const back = good.filter(Boolean).length;
    const all = back === good.length ? `All come back, ${judged}` : `${back} of 15 come back.`;
    const kind = ROUND[state.turn % ROUND.length];
    const round = Math.floor(state.turn / ROUND.length) + 1;
    const now = letter(states[state.turn].reads[0]);
    const sentence = `${all} Round ${round}, ${kind}: ${now ? `${now} is read` : "nothing is read"}.`;
    return { scene, sentence, seen: { table: says, came, good, verdict: judged } };
  };
  return { element, show };
}

/**
 * @param {any} state
 * @returns {Table}
 */
function said(state) {
  const row = (/** @type {string} */ kind) => ({
    free: state[`${kind}-free`],
    write: state[`${kind}-write`],
    mode: state[`${kind}-mode`],
  });
  return { first: row("first"), store: row("store"), ask: row("ask"), next: row("next") };
}
