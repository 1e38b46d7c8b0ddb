/**
 * Turn the knobs, then write the program.
 * Above, the four stages of one head's step; below, a tape and a program typed for it.
 *
 * @import { Frame } from "../kit/frame.js"
 * @import { Data } from "./addressable/run.js"
 */
import { choice, number, text } from "../kit/fields.js";
import { knobs } from "./addressable/knobs.js";
import { machine } from "./addressable/machine.js";
import { COPY, FOLLOW, LONGEST, MOST } from "./addressable/run.js";

const whole = { whole: true };

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    seek: number(5, 0, 7, whole),
    strength: number(5, 0, 50),
    was: number(1, 0, 7, whole),
    gate: number(0, 0, 1),
    back: number(0.1, 0, 1),
    stay: number(0.1, 0, 1),
    on: number(0.8, 0, 1),
    sharpening: number(1, 1, 20),
    moves: number(1, 1, MOST, whole),
    tape: choice("copy", ["copy", "list"]),
    slots: number(10, 3, 12, whole),
    program: text(COPY, LONGEST),
    at: number(10, 0, LONGEST, whole),
  },
  tries: [
    {
      text:
        "Let the head go back and on with equal shares, never stay, and sharpen by γ = 20. " +
        "Press Again, and again. In how many places is it?",
      state: { back: 0.5, stay: 0, on: 0.5, sharpening: 20 },
    },
    {
      text:
        "Give the copy program one slot too few: 8, for a marker and 8 rows. " +
        "Which row is missing in what is read?",
      state: { slots: 8, at: 17 },
    },
    {
      text: "Write the marker a hundred times fainter in line 1. Will the jump still find it?",
      state: { program: COPY.replace("marker", "0.01 * marker"), at: 17 },
    },
  ],
  largest: { moves: MOST, tape: "list", program: Array(3).fill(FOLLOW).join("\n"), at: 30 },
  build,
};

/**
 * @param {Frame} frame
 * @param {Data} data
 */
function build(frame, data) {
  const above = knobs(frame, data);
  const below = machine(frame, data);
  frame.lab.append(above.element, below.element);
  const own = ["tape", "slots", "program", "at"];
  const others = Object.keys(page.fields).filter((name) => !own.includes(name));
  const [walk, run] = [changed(others, above.show), changed(own, below.show)];
  return (/** @type {any} */ state) => {
    const { sentence, seen } = run(state);
    frame.say(sentence, { ...walk(state), ...seen });
  };
}

/**
 * @template T
 * @param {string[]} fields of a state
 * @param {(state: any) => T} show
 * @returns {(state: any) => T} the same, but drawn only where one of the fields has changed, or where
 *   the same state is drawn again (in other colors)
 */
function changed(fields, show) {
  /** @type {any} */
  let before;
  /** @type {T} */
  let seen;
  return (state) => {
    const same = before && before !== state && fields.every((name) => before[name] === state[name]);
    if (!same) seen = show(state);
    before = state;
    return seen;
  };
}
