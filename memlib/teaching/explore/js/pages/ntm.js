/**
 * A trained machine at its memory.
 * Two recorded Neural Turing Machines: one copies vectors, one finds the next item of a list.
 *
 * @import { Frame } from "../kit/frame.js"
 * @import { Task } from "../tasks.js"
 * @import { Run } from "./ntm/view.js"
 */
import { check, choose, panel } from "../kit/controls.js";
import { el, put } from "../kit/dom.js";
import { percent } from "../kit/draw.js";
import { choice, flag, number } from "../kit/fields.js";
import { NTM } from "../ntm.js";
import { wrongBits } from "../tasks.js";
import { argmax } from "../tensor.js";
import { editors } from "./ntm/editors.js";
import { event, fields, found, sequence, steps } from "./ntm/input.js";
import { view } from "./ntm/view.js";

const TASKS = { copy: "copy", recall: "associative recall" };
const HOLDS = { no: "never", answers: "while it answers", delimiter: "from the delimiter on" };
const SLOTS = { 128: "128", 256: "256" };

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    task: choice("copy", Object.keys(TASKS)),
    ...fields,
    slots: choice("128", Object.keys(SLOTS)),
    hold: choice("no", Object.keys(HOLDS)),
    harden: flag(false),
    step: number(12, 0, 260, { whole: true }),
  },
  largest: { length: 130, slots: "256", from: 60, step: 200 },
  tries: [
    {
      text: "Copy 126 vectors, then 127. What does the one vector too many cost: its own 8 bits?",
      state: { length: 127, step: 127 },
    },
    {
      text:
        "With 127 vectors hold the memory while it answers, so that no answer is written over. " +
        "Then hold it one step earlier, from the delimiter on.",
      state: { length: 127, hold: "answers", step: 127 },
    },
    {
      text:
        "In associative recall wipe out the first two vectors of the query. Then bring them back " +
        "and wipe out the third.",
      state: { task: "recall", query: [0, 0, 26], step: 30 },
    },
  ],
  build,
};

/**
 * @param {Frame} frame
 * @param {Record<string, any>} weights of the machines, by task
 */
function build(frame, weights) {
  const input = editors(frame);
  const output = view(frame, steps);
  const progress = el("progress", { max: 1, "aria-label": "How much of the sequence is run" });
  const lesions = panel(
    "What is done to it",
    choose(frame, "slots", "Slots", SLOTS),
    choose(frame, "hold", "Hold the memory", HOLDS),
    check(frame, "harden", "harden the reads: all weight on the largest"),
  );
  frame.lab.append(
    choose(frame, "task", "Task", TASKS),
    el("div", { class: "ml-row" }, input.element, lesions),
    progress,
    output.element,
  );

  /** @type {{key: string, machine: NTM, task: Task, going: ReturnType<NTM["run"]>}} */
  let under;
  /** @type {Run | undefined} */
  let run;
  /** @param {any} state begins its run, unless it is the one under way */
  const begin = ({ step: _, from: __, ...state }) => {
    const key = JSON.stringify(state);
    if (under?.key === key) return;
    const { slots, hold, harden } = state;
    const machine = new NTM(weights[state.task], Number(slots));
    const task = sequence(state);
    const answers = task.mask.indexOf(true);
    /** @type {Record<string, number>} the step from which on the memory is held */
    const from = { no: Infinity, answers, delimiter: task.heard };
    const going = machine.run(task.inputs, (t) => ({ hold: t >= from[hold], harden }));
    under = { key, machine, task, going };
    run = undefined;
  };

  return async (/** @type {any} */ state) => {
    input.show(state);
    begin(state);
    const { machine, task, going } = under;
    if (!run) {
      const said = await frame.work(going, (value) => put(progress, { value, class: "" }));
      if (!said) return;
      const wrong = wrongBits(task, said.logits);
      run = { task, ...said, wrong, bits: wrong.flat().filter(Boolean).length };
    }
    put(progress, { class: "ml-idle" });
    const t = Math.min(state.step, run.states.length - 1);
    const knobs = machine.knobs(run.states[t].hidden);
    output.show(run, t, knobs);
    frame.say(`${place(run, t, event(state, t))} ${outcome(state, run)}`, {
      ...{ step: t, wrong: run.bits, ...task, logits: run.logits },
      ...{ heads: run.states.map(({ weights }) => weights), ...run.states[t], ...knobs },
    });
  };
}

/**
 * @param {Run} run
 * @param {number} t
 * @param {string} what happens in the step
 * @returns {string} where the heads are
 */
function place({ task, states }, t, what) {
  const { weights } = states[t];
  const slots = weights.map(argmax);
  const [reading, writing] = weights.map((weight, h) => {
    const most = weight[slots[h]];
    return most > 0.5 ? `slot ${slots[h]} (${percent(most)})` : "no slot in particular";
  });
  const caught = t >= task.heard && slots[0] === slots[1] && weights[1][slots[1]] > 0.5;
  return (
    `Step ${t + 1} of ${states.length}, ${what}: the read head is on ${reading}, ` +
    `the write head on ${writing}${caught ? ": it has caught up" : ""}.`
  );
}

/**
 * @param {any} state
 * @param {Run} run
 * @returns {string}
 */
function outcome(state, { task, logits, wrong, bits }) {
  const all = task.mask.filter(Boolean).length * wrong[0].length;
  const count = `${bits} of ${all} bits of the whole answer are wrong.`;
  if (state.task === "copy") return count;
  const k = found(state, logits);
  return `It says ${k < 0 ? "none of the items" : `item ${k + 1}`}: ${count}`;
}
