/**
 * A recorded machine on the page: its controls, its run, and a step of it.
 *
 * @import { DNCState } from "../../dnc.js"
 * @import { Frame } from "../../kit/frame.js"
 * @import { Task } from "../../tasks.js"
 * @import { Matrix, Vector } from "../../tensor.js"
 * @import { Scene } from "./books.js"
 *
 * @typedef {object} Run
 * @property {Task} task
 * @property {Float64Array[]} logits
 * @property {DNCState[]} states
 * @property {boolean[][]} wrong bits of each step
 * @property {number[]} rounds wrong bits of each round
 */
import { allocation, use } from "../../bookkeeping.js";
import { DNC } from "../../dnc.js";
import { cells } from "../../kit/cells.js";
import { button, check, choose, panel, slider } from "../../kit/controls.js";
import { el, put } from "../../kit/dom.js";
import { bars, heat, ink, percent } from "../../kit/draw.js";
import { timeline } from "../../kit/timeline.js";
import { wrongBits } from "../../tasks.js";
import { argmax, sigmoid } from "../../tensor.js";
import {
  BITS,
  byRound,
  GATES,
  held,
  LONGEST,
  MACHINES,
  place,
  ROUNDS,
  sequence,
  shut,
  steps,
} from "./machine.js";

/**
 * @param {Frame} frame
 * @param {Record<string, Record<string, any>>} weights of the machines, by name
 */
export function trained(frame, weights) {
  const maps = {
    in: heat("The bits that come in, one column a step"),
    out: heat("The bits that it answers, one column a step"),
    heads: heat("Where the heads are, one column a step, one row a slot"),
    used: heat("How far each slot is in use, one column a step, one row a slot"),
  };
  const tracks = Object.entries(maps).map(([name, { element: map }]) => ({ name, map }));
  const line = timeline(frame, "step", steps, tracks);
  line.element.style.gridTemplateColumns = "2.8rem minmax(0,1fr) 0";
  const edit = editor(frame);
  const rounds = Array.from({ length: ROUNDS }, (_, r) => `round ${r + 1}`);
  const wrongs = bars(rounds, { second: true, limit: 0.5 });
  const progress = el("progress", { max: 1, "aria-label": "How much of the sequence is run" });
  const whole = { step: 1, low: 1 };
  const element = el(
    "div",
    {},
    choose(frame, "machine", "Machine", MACHINES),
    panel("Gates that stay shut", ...GATES.map((gate) => check(frame, `no-${gate}`, gate))),
    slider(frame, "length", { ...whole, label: "vectors a round", high: LONGEST }),
    slider(frame, "rounds", { ...whole, label: "rounds", high: ROUNDS }),
    slider(frame, "slots", { ...whole, label: "slots", low: 4, high: 16 }),
    progress,
    el(
      "p",
      { class: "ml-legend" },
      el("span", { class: "ml-read" }, "read head"),
      el("span", { class: "ml-write" }, "write head"),
      el("span", {}, "in “out” that color marks a wrong bit"),
    ),
    line.element,
    line.controls,
    el("div", { class: "ml-row" }, panel("Wrong bits", wrongs.element), edit.element),
    el("p", {}, "A slot named 3.2 holds the second vector of round 3; a dot is something else."),
  );

  /** @type {{key: string, task: Task, going: ReturnType<DNC["run"]>, run?: Run}} */
  let under;
  /** @param {any} state begins its run, unless it is the one under way */
  const begin = (state) => {
    const { machine, slots, vectors, length, rounds: count } = state;
    const key = JSON.stringify([machine, slots, vectors, length, count, shut(state)]);
    if (under?.key === key) return;
    const { about, ...tensors } = weights[machine];
    const deallocate = about.recipe.options.includes("deallocate");
    const task = sequence(state);
    const going = new DNC(tensors, { slots, deallocate }).run(task.inputs, shut(state));
    under = { key, task, going };
  };

  /** @type {{run?: Run, look?: string}} */
  let painted = {};
  /** @param {any} state @param {Run} run draws what is the same at every step */
  const paint = (state, run) => {
    const { look } = ink;
    if (painted.run === run && painted.look === look) return;
    painted = { run, look };
    const { task, logits, states, wrong } = run;
    maps.in.show(turned(task.inputs));
    const answer = (/** @type {number} */ logit, /** @type {boolean} */ bad) =>
      bad ? -0.3 - 0.7 * sigmoid(logit) : sigmoid(logit);
    const out = logits.map((row, t) =>
      row.map((logit, i) => (task.mask[t] ? answer(logit, wrong[t][i]) : 0)),
    );
    maps.out.show(turned(out));
    maps.heads.show(turned(states.map(({ weights: [r, w] }) => r.map((x, n) => x - w[n]))));
    maps.used.show(turned(states.map(({ usage, weights: [, w] }) => use(usage, [w]))));
    const all = BITS * state.length;
    wrongs.show(rounds.map((_, r) => (run.rounds[r] ?? 0) / all));
    for (const [r, row] of [...wrongs.element.children].entries()) {
      put(row, { hidden: r >= state.rounds });
    }
  };

  /** @param {any} state */
  const show = async (state) => {
    edit.show(state);
    begin(state);
    const mine = under;
    if (!mine.run) {
      const said = await frame.work(mine.going, (value) => put(progress, { value, class: "" }));
      if (!said) return undefined;
      const wrong = wrongBits(mine.task, said.logits);
      mine.run = { task: mine.task, ...said, wrong, rounds: byRound(state, wrong) };
    }
    put(progress, { class: "ml-idle" });
    const { run } = mine;
    paint(state, run);
    const t = Math.min(state.step, run.states.length - 1);
    line.show(t);
    const { usage, links, precedence, weights: heads } = run.states[t];
    const [reading, writing] = heads;
    const used = use(usage, [writing]);
    const books = { usage: used, allocation: allocation(used), precedence: precedence[0] };
    const names = held(state, run.states, t);
    const scene = { ...books, held: names, links: links[0], reading, writing };
    const seen = { inputs: run.task.inputs, logits: run.logits, rounds: run.rounds, ...scene };
    return { scene, seen, sentence: `${moment(state, t, scene)} ${outcome(state, run)}` };
  };
  return { element, show };
}

/**
 * The vectors of the round that is looked at, to change.
 *
 * @param {Frame} frame
 */
function editor(frame) {
  const round = () => Math.min(place(frame.state, frame.state.step).round, frame.state.rounds - 1);
  const grid = cells({
    label: "Bits of the vectors of this round, one vector a column",
    rows: BITS,
    columns: LONGEST,
    name: () => "",
    set(index, on) {
      const at = LONGEST * round() + (index % LONGEST);
      const bit = 1 << Math.floor(index / LONGEST);
      const { vectors } = frame.state;
      frame.set({ vectors: vectors.with(at, on ? vectors[at] | bit : vectors[at] & ~bit) });
    },
  });
  const any = () => Math.floor(Math.random() * 2 ** BITS);
  const others = button("Other vectors", () =>
    frame.set({ vectors: frame.state.vectors.map(any) }),
  );
  const element = panel("The vectors of this round: click or draw", grid.element, others);
  /** @param {any} state */
  const show = ({ vectors, length }) => {
    grid.show(
      Array.from(grid.element.children, (cell, index) => {
        const [row, column] = [Math.floor(index / LONGEST), index % LONGEST];
        const name = `vector ${column + 1}, bit ${row + 1}`;
        put(cell, { "aria-label": name, disabled: column >= length });
        return column < length && (vectors[LONGEST * round() + column] >> row) & 1;
      }),
    );
  };
  return { element, show };
}

/**
 * @param {any} state
 * @param {number} t
 * @param {Scene} scene
 * @returns {string} what happens in a step
 */
function moment(state, t, { writing, reading }) {
  const { round, at } = place(state, t);
  const what =
    at < state.length
      ? `vector ${at + 1} comes in`
      : at === state.length
        ? "the delimiter"
        : `answer ${at - state.length}`;
  const on = (/** @type {Vector} */ weights) => {
    const slot = argmax(weights);
    return weights[slot] > 0.5 ? `slot ${slot} (${percent(weights[slot])})` : "no slot";
  };
  return `Round ${round + 1}, ${what}: written to ${on(writing)}, read from ${on(reading)}.`;
}

/**
 * @param {any} state
 * @param {Run} run
 * @returns {string} how the whole run ends
 */
function outcome({ length, rounds }, run) {
  const wrong = run.wrong.flat().filter(Boolean).length;
  const first = run.rounds.findIndex((count) => count > 0) + 1;
  const count = `${wrong} of ${BITS * length * rounds} bits are wrong`;
  return wrong ? `${count}, the first in round ${first}.` : `${count}.`;
}

/**
 * @param {Matrix} rows
 * @returns {number[][]} the columns as rows
 */
function turned(rows) {
  return Array.from(rows[0], (_, i) => Array.from(rows, (row) => row[i]));
}
