/**
 * Ask the fruit memory.
 * Five slots: what a fruit is like is its key, its price and stock are its value.
 *
 * @import { Frame } from "../kit/frame.js"
 * @import { Matrix } from "../tensor.js"
 */
import { button, choose, panel, slider } from "../kit/controls.js";
import { el, put, write as say } from "../kit/dom.js";
import { bars, percent, round, shade } from "../kit/draw.js";
import { choice, list, number } from "../kit/fields.js";
import { argmax } from "../tensor.js";
import { address, read, write } from "../verbs.js";

const START = [2, 7, 3, 2, 1, 8, 5, 4, 4, 6]; // price and stock of each fruit
const PARTS = ["price", "stock"];
const LEVELS = [0, 0.5, 1]; // of a property, one a click

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    query: list([0, 1, 0, 1], number(0, 0, 1), 4, 4),
    strength: number(20, 0, 40),
    values: list(START, number(0, 0, 10), 10, 10),
    part: choice("stock", PARTS),
    amount: number(9, 0, 10),
  },
  tries: [
    {
      text: "Ask for nothing at all: switch all four cells off. Who answers?",
      state: { query: [0, 0, 0, 0] },
    },
    {
      text: "Ask for something sour alone, then slide the strength to 0: the question is still clear.",
      state: { query: [0, 0, 0, 1], strength: 0 },
    },
    {
      text:
        "Set the strength to 2, write a stock of 9 for something yellow and sour, then ask for " +
        "something red and sweet. Did you mean to change the cherry, whose stock was 4?",
      state: ({ keys }) => {
        const where = address([0, 1, 0, 1], keys, { measure: "cosine", strength: 2 });
        const memory = write(pairs(START), where, [0, 9], [0, 1]);
        return { strength: 2, query: [1, 0, 1, 0], values: memory.flatMap((row) => [...row]) };
      },
    },
  ],
  build,
};

/** @param {number[]} values @returns {number[][]} the price and the stock of each fruit */
function pairs(values) {
  return Array.from({ length: values.length / 2 }, (_, n) => values.slice(2 * n, 2 * n + 2));
}

/**
 * @param {Frame} frame
 * @param {{fruit: string[], like: string[], keys: Matrix}} data
 */
function build(frame, { fruit, like, keys }) {
  const look = (/** @type {any} */ state) =>
    address(state.query, keys, { measure: "cosine", strength: state.strength });

  const asked = like.map((name, i) => {
    const next = () => {
      const query = [...frame.state.query];
      query[i] = LEVELS.find((level) => level > query[i]) ?? 0;
      frame.set({ query });
    };
    return button("", next, { "data-name": name });
  });
  const grid = table(fruit, like, keys);
  const weights = bars(fruit);
  const change = button("Write it", () => {
    const { values, part, amount } = frame.state;
    const one = PARTS.map((name) => (name === part ? 1 : 0));
    const add = one.map((share) => share * amount);
    const memory = write(pairs(values), look(frame.state), add, one);
    frame.set({ values: memory.flatMap((row) => [...row]) });
  });

  frame.lab.append(
    panel("Something that is …", el("div", { class: "ml-bar" }, ...asked)),
    slider(frame, "strength", { label: "strength β", low: 0, high: 40, step: 0.5 }),
    el(
      "div",
      { class: "ml-row" },
      panel("The memory", el("div", { class: "ml-scroll" }, grid.element)),
      panel("Weights: where the question looks", weights.element),
    ),
    panel(
      "Write with the same weights",
      choose(frame, "part", "New", { price: "price", stock: "stock" }),
      slider(frame, "amount", { label: "value", low: 0, high: 10, step: 0.5 }),
      change,
    ),
  );

  return (/** @type {any} */ state) => {
    const where = look(state);
    const value = read(where, pairs(state.values));
    asked.forEach((one, i) => {
      const level = state.query[i];
      say(one, `${like[i]} ${level === 0.5 ? "½" : round(level, Number.isInteger(level) ? 0 : 2)}`);
      put(one, { "aria-pressed": level > 0 ? "true" : "false", style: shade(level) });
    });
    weights.show(where);
    grid.show(pairs(state.values), value);
    const best = argmax(where);
    const sure = where[best] - Math.min(...where) > 1e-9;
    const question =
      like.filter((_, i) => state.query[i] > 0).join(" and ") || "nothing in particular";
    const who = sure
      ? `the ${fruit[best]} answers with ${percent(where[best])}`
      : "all answer alike";
    frame.say(
      `Asked for ${question}, ${who}. Read: price ${round(value[0])}, stock ${round(value[1])}.`,
      { weights: where, value, values: state.values },
    );
  };
}

/**
 * @param {string[]} fruit
 * @param {string[]} like
 * @param {Matrix} keys
 */
function table(fruit, like, keys) {
  const head = ["", ...like, ...PARTS].map((name) => el("th", { scope: "col" }, name));
  const numbers = fruit.map(() => PARTS.map(() => el("td")));
  const out = PARTS.map(() => el("td"));
  const rows = fruit.map((name, n) => {
    const key = Array.from(keys[n], (x) => el("td", { style: shade(x) }, round(x, 1)));
    return el("tr", {}, el("th", { scope: "row" }, name), ...key, ...numbers[n]);
  });
  const last = el("th", { scope: "row", colspan: like.length + 1 }, "read: the weighted sum");
  rows.push(el("tr", {}, last, ...out));
  const element = el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
  const fill = (/** @type {HTMLElement} */ cell, /** @type {number} */ x) => {
    say(cell, round(x, 1));
    put(cell, { style: shade(x / 10) });
  };
  /** @param {Matrix} values @param {ArrayLike<number>} value */
  const show = (values, value) => {
    numbers.forEach((row, n) => {
      row.forEach((cell, i) => {
        fill(cell, values[n][i]);
      });
    });
    out.forEach((cell, i) => {
      fill(cell, value[i]);
    });
  };
  return { element, show };
}
