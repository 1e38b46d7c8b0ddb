/**
 * What is seen of a run: what goes in and comes out, where the heads are, what the slots hold, and
 * the knobs of a step.
 *
 * @import { Frame } from "../../kit/frame.js"
 * @import { State } from "../../ntm.js"
 * @import { Task } from "../../tasks.js"
 * @import { Gates } from "../../gates.js"
 * @import { Matrix, Vector } from "../../tensor.js"
 * @typedef {{from: number, count: number}} Arc slots next to one another on the circle
 * @typedef {{gates: Gates[], erase: Float64Array, add: Float64Array}} Knobs
 * @typedef {{task: Task, logits: Float64Array[], states: State[], wrong: boolean[][],
 *   bits: number}} Run bits: how many are wrong
 */
import { panel } from "../../kit/controls.js";
import { el, put, write } from "../../kit/dom.js";
import { heat, ink, round, shade } from "../../kit/draw.js";
import { timeline } from "../../kit/timeline.js";
import { full, sigmoid } from "../../tensor.js";

const HEIGHT = 256; // of the map of heads, in CSS pixels
const USED = 0.2; // the weight from which on a slot is used
const HEADS = ["read", "write"];
const KNOBS = ["g", "back", "stay", "on", "β", "γ"];
const VECTORS = ["read key", "write key", "erase", "add"];

/**
 * @param {Frame} frame
 * @param {(state: any) => number} steps
 */
export function view(frame, steps) {
  const maps = {
    in: heat("The bits that come in, one column a step"),
    out: heat("The bits that it answers, one column a step"),
    heads: heat("Where the heads are, one column a step, one row a slot"),
    memory: heat("The slots at this step, one row a slot"),
  };
  const ends = [el("span"), el("span")];
  const name = el("div", { class: "ml-ends" }, ends[0], "slot", ends[1]);
  const line = timeline(frame, "step", steps, [
    { name: "in", map: maps.in.element },
    { name: "out", map: maps.out.element, beside: "slots now" },
    { name, map: maps.heads.element, beside: maps.memory.element },
  ]);
  const table = knobTable();
  const strips = VECTORS.map((of) => ({ of, ...heat(`The numbers of the ${of}`, { cell: 14 }) }));
  const rows = strips.flatMap(({ of, element }) => [el("span", {}, of), element]);
  const legend = el(
    "p",
    { class: "ml-legend" },
    el("span", { class: "ml-read" }, "read head"),
    el("span", { class: "ml-write" }, "write head"),
    el("span", {}, "in “out” that color marks a wrong bit"),
  );
  const element = el(
    "div",
    {},
    legend,
    line.element,
    line.controls,
    el(
      "div",
      { class: "ml-row" },
      panel("Knobs of the heads at this step", table.element),
      panel("Vectors at this step", el("div", { class: "ml-strips" }, ...rows)),
    ),
  );

  /** @type {{run?: Run, look?: string, from: number, count: number, limit: number}} */
  let shown = { from: 0, count: 0, limit: 1 };
  /** @param {Run} run draws what is the same at every step, unless that stands there already */
  const paint = (run) => {
    const { look } = ink;
    if (shown.run === run && shown.look === look) return;
    const { task, logits, states, wrong } = run;
    const arc = used(states);
    shown = { run, look, ...arc, limit: largest(states[states.length - 1].memory) };
    maps.in.show(turned(task.inputs));
    const answer = (/** @type {number} */ logit, /** @type {boolean} */ bad) =>
      bad ? -0.3 - 0.7 * sigmoid(logit) : sigmoid(logit);
    const answers = logits.map((row, t) =>
      row.map((logit, i) => (task.mask[t] ? answer(logit, wrong[t][i]) : 0)),
    );
    maps.out.show(turned(answers));
    maps.heads.show(heads(states, arc));
    maps.heads.element.style.height = `${HEIGHT}px`;
  };
  /** @type {(run: Run, t: number, knobs: Knobs) => void} */
  const show = (run, t, { gates, erase, add }) => {
    paint(run);
    const { memory, weights } = run.states[t];
    const [reading, writing] = weights.map((weight) => around(weight, shown));
    const slots = around(memory, shown).map((row, i) => [
      ...[reading[i], -writing[i], 0],
      ...Array.from(row, (number) => number / shown.limit),
    ]);
    maps.memory.show(slots);
    maps.memory.element.style.height = `${HEIGHT}px`;
    write(ends[0], String(shown.from));
    write(ends[1], String((shown.from + shown.count - 1) % memory.length));
    line.show(t);
    table.show(gates);
    [gates[0].key, gates[1].key, erase, add].forEach((vector, i) => {
      strips[i].show([vector]);
    });
  };
  return { element, show };
}

function knobTable() {
  const cells = HEADS.map(() => KNOBS.map(() => el("td")));
  const head = ["", ...KNOBS].map((knob) => el("th", { scope: "col" }, knob));
  const rows = HEADS.map((name, h) => el("tr", {}, el("th", { scope: "row" }, name), ...cells[h]));
  const element = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  const show = (/** @type {Gates[]} */ gates) => {
    gates.forEach(({ gate, shift, strength, sharpening }, h) => {
      [gate, ...Array.from(shift), strength, sharpening].forEach((value, i) => {
        write(cells[h][i], round(value, value < 10 ? 2 : 1));
        put(cells[h][i], { style: i < 4 ? shade(value) : "" });
      });
    });
  };
  return { element, show };
}

/**
 * The slots that a run uses: the shortest arc of their circle, or all of them.
 *
 * @param {State[]} states
 * @returns {Arc}
 */
function used(states) {
  const slots = states[0].memory.length;
  const free = Array(slots).fill(true);
  for (const { weights } of states) {
    for (const weight of weights) for (let n = 0; n < slots; n++) free[n] &&= weight[n] < USED;
  }
  let [longest, end] = [0, 0];
  for (let n = 0, length = 0; n < 2 * slots; n++) {
    length = free[n % slots] ? length + 1 : 0;
    if (length > longest && length <= slots) [longest, end] = [length, n];
  }
  const spare = longest - 4; // two slots on either side stay
  return spare > 4 ? { from: (end - 1) % slots, count: slots - spare } : { from: 0, count: slots };
}

/**
 * @template T
 * @param {ArrayLike<T>} slots
 * @param {Arc} arc
 * @returns {T[]} those of the arc
 */
function around(slots, { from, count }) {
  return Array.from({ length: count }, (_, i) => slots[(from + i) % slots.length]);
}

/**
 * @param {Matrix} rows
 * @returns {number[][]} the columns as rows
 */
function turned(rows) {
  return Array.from(rows[0], (_, i) => Array.from(rows, (row) => row[i]));
}

/**
 * @param {State[]} states
 * @param {Arc} arc
 * @returns {Float64Array[]} a row a slot, a column a step: where it is read, less where it is written
 */
function heads(states, { from, count }) {
  const rows = full(count, states.length);
  states.forEach(({ memory, weights: [reading, writing] }, t) => {
    for (let i = 0; i < count; i++) {
      const n = (from + i) % memory.length;
      rows[i][t] = reading[n] - writing[n];
    }
  });
  return rows;
}

/**
 * @param {Vector[]} memory
 * @returns {number} the size of the largest number in it
 */
function largest(memory) {
  return Math.max(...memory.flatMap((row) => Array.from(row, Math.abs)));
}
