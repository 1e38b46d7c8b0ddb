/**
 * Take a Transformer apart.
 * The machine of the chapter (results/capitals.safetensors) reads what is typed. Its parts can be
 * switched off, its slots forgotten or written over, and facts written into what it was taught.
 *
 * @import { Frame } from "../kit/frame.js"
 * @typedef {{text: string, asked: number, off: string[], window: number, rule: string,
 *   dropped: number[], edits: number[][], facts: number[][], next: number, slot: number, word: number, into: string,
 *   country: number, capital: number}} State asked: a position, -1 for the last; edits: position,
 *   token and layer (3: both); facts: country and capital; after that: what the fields hold
 */
import { RULES } from "../forgetting.js";
import { button, choose, panel, select, slider, text } from "../kit/controls.js";
import { el, write } from "../kit/dom.js";
import { bars } from "../kit/draw.js";
import { choice, list, number, text as typed } from "../kit/fields.js";
import { asker, CAPITALS, COUNTRIES, MOST } from "./transformer/machine.js";
import { askedAlone, describe, feedForward, notes } from "./transformer/parts.js";
import { slotTable } from "./transformer/table.js";
import { alike } from "./transformer/words.js";

const START = "Ada Bob Peru Lima Cleo Dora Emil Fay Ada Bob";
const NAMES = "Ada Bob Cleo Dora Emil Fay Ada Bob";
const [PERU, POLAND, OSLO, STOCKHOLM] = [6, 11, 51, 62];
const [LONGEST, LAST, BEST] = [400, 63, 5]; // characters, the last token, answers that are shown
const PARTS = [1, 2].flatMap((n) =>
  ["head 1", "head 2", "feed-forward"].map((p) => `${p} of ${n}`),
);

/** @type {(start: number, low: number, high: number) => import("../kit/fields.js").Field<number>} */
const whole = (start, low, high) => number(start, low, high, { whole: true });
/** @type {(size: number, most: number) => import("../kit/fields.js").Field<number[][]>} */
const tuples = (size, most) => list([], list([], whole(0, 0, LAST), size, size, "."), 0, most);

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    text: typed(START, LONGEST),
    asked: whole(-1, -1, MOST - 1),
    off: list([], choice(PARTS[0], PARTS), 0, PARTS.length),
    window: whole(MOST, 1, MOST),
    rule: choice("window", Object.keys(RULES)),
    dropped: list([], whole(0, 0, MOST - 1), 0, MOST),
    edits: tuples(3, 3),
    facts: tuples(2, 4),
    next: whole(PERU, 0, LAST),
    slot: whole(2, 0, MOST - 1),
    word: whole(OSLO, 0, LAST),
    into: choice("1", ["1", "2", "3"]),
    country: whole(POLAND, 0, COUNTRIES - 1),
    capital: whole(STOCKHOLM, CAPITALS, LAST),
  },
  check: (/** @type {State} */ { edits, facts }) =>
    edits.every(([slot, , layer]) => slot < MOST && layer > 0 && layer < 4) &&
    facts.every(([one, to]) => one < COUNTRIES && to >= CAPITALS && to !== one + CAPITALS),
  tries: [
    {
      text: "It says Peru, which stands in slot 2. Untick slot 2, to forget it. Who else knew Peru?",
      state: { dropped: [2] },
    },
    {
      text:
        `Type “${NAMES}”: the last Bob finds Cleo in slot 2. Write the value of Oslo over that slot, ` +
        "into layer 1, then into layer 2. When does the answer change, and is it Oslo?",
      state: { text: NAMES, edits: [[2, OSLO, 2]] },
    },
    {
      text: "Write one fact: the capital of Poland is Stockholm. Who else moves its government?",
      state: { text: "Poland", facts: [[POLAND, STOCKHOLM]], slot: 0 },
    },
  ],
  largest: {
    text: [NAMES, NAMES, NAMES].join(" "),
    edits: [2, 5, 7].map((slot) => [slot, OSLO, 3]),
    facts: [PERU, POLAND].map((country) => [country, STOCKHOLM]),
  },
  build,
};

/**
 * @param {Frame} frame
 * @param {{machine: any, words: string[]}} data
 */
function build(frame, { machine, words: names }) {
  const ask = asker(machine, names);
  /** @type {(from: number, to: number) => Record<string, string>} */
  const some = (from, to) =>
    Object.fromEntries([...names.entries()].filter(([token]) => token >= from && token < to));
  const countries = { countries: some(0, COUNTRIES) };
  const capitals = { capitals: some(CAPITALS, LAST + 1) };
  const rules = Object.fromEntries(Object.keys(RULES).map((rule) => [rule, rule]));
  const known = { names: some(COUNTRIES, CAPITALS), ...countries, ...capitals };

  /** @param {string} said what is done to slots stays as long as their words do */
  const rewrite = (said) => {
    const { text, dropped, edits } = /** @type {State} */ (frame.state);
    const same = alike(text, said, names, MOST);
    const kept = {
      dropped: dropped.filter((n) => n < same),
      edits: edits.filter(([n]) => n < same),
    };
    frame.set({ text: said, asked: -1, ...kept });
  };
  /** @param {number} token */
  const add = (token) => rewrite(`${frame.state.text} ${names[token]}`.trim().slice(0, LONGEST));
  /** @param {string} field a list @param {any} value that it has, or has not */
  const toggle = (field, value) => {
    const without = frame.state[field].filter((/** @type {any} */ one) => one !== value);
    const had = without.length < frame.state[field].length;
    frame.set({ [field]: had ? without : [...without, value] });
  };
  const part = (/** @type {string} */ name) => toggle("off", name);

  const field = text(frame, "text", "Your text", {
    maxlength: LONGEST,
    oninput: (/** @type {any} */ event) => rewrite(event.target.value),
  });
  const list = Object.entries(known).map(([kind, of]) =>
    el("p", {}, `${kind[0].toUpperCase()}${kind.slice(1)}: ${Object.values(of).join(", ")}`),
  );
  const shelf = el(
    "details",
    {},
    el("summary", {}, "It knows 64 words: 16 countries, their capitals and 32 names"),
    ...list,
  );
  const best = bars(Array.from({ length: BEST }, () => ""));
  const learned = [1, 2].map((layer) => feedForward(layer, part));
  const table = slotTable({
    ask: (asked) => frame.set({ asked }),
    drop: (slot) => toggle("dropped", slot),
    toggle: part,
  });
  const [alone, facts] = [el("p"), el("p")];
  const follow = button("Add what it says", () => add(frame.seen.best));
  const overwrite = button("Write into the slot", () => {
    const { slot, word, edits } = /** @type {State} */ (frame.state);
    const into = Number(frame.state.into);
    const left = edits.filter(([n, , layers]) => n !== slot || (layers | into) !== into);
    frame.set({ edits: [...left.slice(-2), [slot, word, into]] });
  });
  const learn = button("Write the fact", () => {
    const { country, capital, facts } = /** @type {State} */ (frame.state);
    const others = facts.filter(([one]) => one !== country).slice(-3);
    frame.set({ facts: capital === country + CAPITALS ? others : [...others, [country, capital]] });
  });
  const back = [
    button("Undo slots", () => frame.set({ edits: [] })),
    button("Undo facts", () => frame.set({ facts: [] })),
  ];
  const slots = (/** @type {State} */ state) => ({
    slots: Object.fromEntries(ask(state).tokens.map((token, n) => [n, `${n} ${names[token]}`])),
  });
  const bar = (/** @type {HTMLElement[]} */ ...parts) => el("div", { class: "ml-bar" }, ...parts);
  const pair = (/** @type {HTMLElement[]} */ ...parts) => el("div", { class: "ml-pair" }, ...parts);
  const row = (/** @type {HTMLElement[]} */ ...parts) => el("div", { class: "ml-row" }, ...parts);

  frame.lab.append(
    shelf,
    field,
    bar(
      select(frame, "next", "One that it knows", () => known),
      button("Add it", () => add(frame.state.next)),
    ),
    row(
      el(
        "div",
        { class: "ml-stay" },
        panel("What comes after the chosen word", best.element, bar(follow)),
        slider(frame, "window", {
          label: "slots that a query reads",
          low: 1,
          high: MOST,
          step: 1,
          show: (n) => (n < MOST ? String(n) : "all"),
        }),
        choose(frame, "rule", "chosen by", rules),
        panel(
          "Feed-forward memories, 64 slots each",
          ...learned.map(({ element }) => element),
          alone,
        ),
      ),
      panel("Where the heads look", el("div", { class: "ml-scroll" }, table.element)),
    ),
    row(
      panel(
        "Write over a slot of the text",
        pair(
          select(frame, "slot", "Slot", slots),
          select(frame, "word", "gets the value of", () => known),
        ),
        choose(frame, "into", "in", { 1: "layer 1", 2: "layer 2", 3: "both" }),
        bar(overwrite, back[0]),
      ),
      panel(
        "Write a fact into the feed-forward memories",
        pair(
          select(frame, "country", "The capital of", () => countries),
          select(frame, "capital", "is", () => capitals),
        ),
        bar(learn, back[1]),
        facts,
      ),
    ),
  );

  return (/** @type {State} */ state) => {
    const answer = ask(state);
    const { words, tokens, asked, step, shares } = answer;
    const order = [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, BEST);
    best.show(
      order.map((token) => shares[token]),
      order.map((token) => (step ? names[token] : "–")),
    );
    follow.disabled = !step || tokens.length === MOST;
    table.show({
      words,
      asked,
      weights: step?.weights ?? [],
      off: state.off,
      dropped: state.dropped,
      notes: notes(state.edits, names),
    });
    for (const [n, memory] of learned.entries())
      memory.show(state.off, step?.activations[n] ?? new Float64Array(64));
    const countries = askedAlone(answer, names);
    write(alone, countries);
    write(facts, state.facts.map(([one, to]) => `${names[one]}: ${names[to]}`).join(", "));
    overwrite.disabled = state.slot >= tokens.length;
    back[0].disabled = !state.edits.length;
    back[1].disabled = !state.facts.length;
    const sentence = describe(answer, names);
    frame.say(state.facts.length ? `${sentence} ${countries}` : sentence, {
      tokens,
      asked,
      best: order[0],
      alone: answer.alone,
      shares,
      ...step,
    });
  };
}
