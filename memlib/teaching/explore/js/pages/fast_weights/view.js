/**
 * A matrix between its key and what is read, and the list of what was told.
 *
 * @import { Vector } from "../../tensor.js"
 * @import { Held } from "./memory.js"
 */
import { button } from "../../kit/controls.js";
import { el, put, write } from "../../kit/dom.js";
import { bars, heat, round } from "../../kit/draw.js";
import { full } from "../../tensor.js";
import { shown } from "./words.js";

const FULL = 0.6; // the number that has the full color, in all maps
const CELL = 9;
const TOP = 3; // the most alike places that are shown

/** @param {string} rule in words */
export function matrixView(rule) {
  const look = { limit: FULL, cell: CELL };
  const key = heat("the key", look);
  const matrix = heat(`the matrix of the ${rule}`, look);
  const got = heat("what is read", look);
  const grid = [key.element, matrix.element, got.element];
  const most = bars(Array(TOP).fill(""), { show: round });
  const element = el("div", {}, el("div", { class: "ml-matrix" }, ...grid), most.element);
  /** @param {string} name @param {Vector} asked @param {Held} held @param {string[]} places */
  const show = (name, asked, held, places) => {
    const who = shown(name) || "nobody";
    const column = name ? Array.from(asked, (x) => [x]) : full(asked.length, 1);
    const row = name ? held.read : new Float64Array(held.read.length);
    key.show(column, `the key of ${who}, 16 numbers`);
    matrix.show(held.matrix, `the matrix of the ${rule}, 16 by 16 numbers`);
    got.show([row], `what the ${rule} reads for ${who}, 16 numbers`);
    const order = [...places.keys()].sort((a, b) => held.asked[b] - held.asked[a]).slice(0, TOP);
    const alike = order.map((place) => (name ? held.asked[place] : 0));
    most.show(
      alike,
      order.map((place, i) => (alike[i] ? shown(places[place]) : "–")),
    );
  };
  return { element, show };
}

/**
 * @param {number} most how many names
 * @param {(name: string) => void} ask what a press on a name does
 */
export function factList(most, ask) {
  const heads = ["told", "sum", "delta rule"].map((name) => el("th", { scope: "col" }, name));
  /** @type {string[]} */
  let now = [];
  const rows = Array.from({ length: most }, (_, n) => {
    const who = button("", () => ask(now[n]));
    const [old, place] = [el("s"), el("span")];
    const cells = [el("td"), el("td")];
    const row = el("tr", {}, el("th", { scope: "row" }, who, " ", old, " ", place), ...cells);
    return { who, old, place, cells, row };
  });
  const head = el("thead", {}, el("tr", {}, ...heads));
  const body = el("tbody", {}, ...rows.map(({ row }) => row));
  const element = el("table", { class: "ml-facts" }, head, body);
  /** @param {string[]} names @param {number[][]} told @param {string[]} places @param {Held[]} rules */
  const show = (names, told, places, rules) => {
    now = names;
    const said = (/** @type {number | undefined} */ n) => shown(places[n ?? -1] ?? "");
    rules.forEach(({ right }, r) => {
      write(heads[r + 1], `${["sum", "delta rule"][r]}: ${right} of ${names.length}`);
    });
    rows.forEach(({ who, old, place, cells, row }, n) => {
      put(row, { hidden: n >= names.length });
      if (n >= names.length) return;
      const right = told[n].at(-1) ?? -1;
      write(who, shown(names[n]));
      write(old, said(told[n].at(-2)));
      write(place, said(right));
      rules.forEach(({ alike, answers }, r) => {
        const good = answers[n] === right;
        write(cells[r], good ? `✓ ${round(alike[n][right])}` : `✗ ${said(answers[n])}`);
        const share = Math.max(alike[n][right], 0);
        put(cells[r], {
          class: good ? "ml-right" : "ml-wrong",
          style: `--part:${share.toFixed(3)}`,
        });
      });
    });
  };
  return { element, show };
}
