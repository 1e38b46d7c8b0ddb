/**
 * Where each hop of a memory network looks: a row a sentence, a column a hop.
 *
 * @import { Vector } from "../../tensor.js"
 * @typedef {object} Look
 * @property {string[][]} story the words of each sentence
 * @property {Vector[]} weights (K, N), of each hop
 * @property {Vector} nothing (K), the weight on slots without a sentence
 * @property {string} rest what is said of these slots
 * @property {number} shown how many hops are to be seen
 * @property {number} at which sentence is chosen
 */
import { el, fresh, put, write } from "../../kit/dom.js";
import { percent } from "../../kit/draw.js";
import { marked } from "../../kit/shelf.js";

const MOST = 60; // rows, of the newest sentences

/**
 * @param {number} hops
 * @param {(word: string) => boolean} known
 * @param {(at: number) => void} choose what a click on a sentence does
 * @returns {{element: HTMLElement, show: (look: Look) => void}}
 */
export function hopTable(hops, known, choose) {
  const name = fresh();
  let first = 0; // the sentence of the first row
  const rows = Array.from({ length: MOST }, (_, n) => {
    const onchange = () => choose(first + n);
    const radio = el("input", { type: "radio", name, onchange });
    const words = el("span");
    const inside = el("span", { class: "ml-pick" }, radio, words);
    const head = el("th", { scope: "row", onclick: onchange }, inside);
    return { ...line(head, hops), radio, words, text: "" };
  });
  const rest = el("th", { scope: "row" });
  const nothing = line(rest, hops);
  const older = el("p", { hidden: true });
  const names = Array.from({ length: hops }, (_, k) => el("th", { scope: "col" }, `hop ${k + 1}`));
  const body = el("tbody", {}, ...rows.map(({ row }) => row), nothing.row);
  const head = el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "sentence"), ...names));
  const element = el("div", {}, older, el("table", { class: "ml-hops" }, head, body));

  const show = (/** @type {Look} */ look) => {
    first = Math.max(0, look.story.length - MOST);
    put(older, { hidden: first === 0 });
    write(older, `${first} older sentences are not drawn.`);
    const shown = look.story.slice(first);
    rows.forEach((row, n) => {
      put(row.row, { hidden: n >= shown.length });
      if (n >= shown.length) return;
      const text = shown[n].join(" ");
      if (row.text !== text) row.words.replaceChildren(...marked(shown[n], known));
      row.text = text;
      row.radio.checked = first + n === look.at;
      put(row.radio, { "aria-label": `choose: ${text}` });
      row.show(look.weights.slice(0, look.shown).map((weights) => weights[first + n]));
    });
    write(rest, look.rest);
    nothing.show(Array.from(look.nothing).slice(0, look.shown));
  };
  return { element, show };
}

/**
 * @param {HTMLElement} head
 * @param {number} hops
 * @returns {{row: HTMLElement, show: (weights: number[]) => void}} a row of bars
 */
function line(head, hops) {
  const bars = Array.from({ length: hops }, () => {
    const fill = el("span", { class: "ml-fill" });
    const number = el("span", { class: "ml-number" });
    const track = el("span", { class: "ml-track" }, fill);
    return { fill, number, cell: el("td", {}, el("span", {}, track, number)) };
  });
  const row = el("tr", {}, head, ...bars.map(({ cell }) => cell));
  const show = (/** @type {number[]} */ weights) => {
    bars.forEach(({ fill, number }, k) => {
      fill.style.width = `${(100 * (weights[k] ?? 0)).toFixed(2)}%`;
      write(number, k in weights ? percent(weights[k]) : "?");
    });
  };
  return { row, show };
}
