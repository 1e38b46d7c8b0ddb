/**
 * The slots of a text, a row each, and how much each head looks at them from the word asked about.
 *
 * @import { Word } from "./words.js"
 * @typedef {{
 *   words: Word[],
 *   asked: number,
 *   weights: Float64Array[][],
 *   off: string[],
 *   dropped: number[],
 *   notes: string[],
 * }} Shown asked: a position; weights: of each layer and head; notes: what lies in a slot instead
 */
import { el, fresh, put, write } from "../../kit/dom.js";
import { round, shade } from "../../kit/draw.js";

const LAYERS = [1, 2];
const HEADS = LAYERS.flatMap((n) => [1, 2].map((h) => ({ layer: n, head: h })));

/**
 * @param {object} options
 * @param {(position: number) => void} options.ask
 * @param {(position: number) => void} options.drop a slot, or keep it again
 * @param {(part: string) => void} options.toggle switch a head
 * @returns {{element: HTMLElement, show: (shown: Shown) => void}}
 */
export function slotTable({ ask, drop, toggle }) {
  const switches = HEADS.map(({ layer, head }) => {
    const part = `head ${head} of ${layer}`;
    const label = `layer ${layer}, head ${head} takes part`;
    const onchange = () => toggle(part);
    return el("input", { type: "checkbox", "aria-label": label, "data-part": part, onchange });
  });
  const heads = switches.map((input, i) =>
    el("th", { scope: "col" }, el("label", { class: "ml-pick" }, input, `head ${HEADS[i].head}`)),
  );
  const layers = LAYERS.map((n) => el("th", { scope: "colgroup", colspan: 2 }, `layer ${n}`));
  const head = el(
    "thead",
    {},
    el(
      "tr",
      {},
      el("th", { scope: "col", rowspan: 2, class: "ml-slot" }, "slot"),
      ...layers,
      el("th", { scope: "col", rowspan: 2 }, "kept"),
    ),
    el("tr", {}, ...heads),
  );
  const body = el("tbody");
  const element = el("table", { class: "ml-slots" }, head, body);
  const name = fresh();
  /** @type {ReturnType<typeof slotRow>[]} */
  const rows = [];

  const show = (/** @type {Shown} */ shown) => {
    for (const input of switches) input.checked = !shown.off.includes(input.dataset.part || "");
    while (rows.length < shown.words.length) {
      rows.push(slotRow(name, ask, drop));
      body.append(rows[rows.length - 1].element);
    }
    const looks = HEADS.map(({ layer, head }) => ({
      weights: shown.weights[layer - 1]?.[head - 1] ?? [],
      heard: !shown.off.includes(`head ${head} of ${layer}`),
    }));
    for (const [i, row] of rows.entries()) row.show(shown.words[i], looks, shown);
  };
  return { element, show };
}

/**
 * @param {string} name of the radio buttons
 * @param {(position: number) => void} ask
 * @param {(position: number) => void} drop
 */
function slotRow(name, ask, drop) {
  let position = -1;
  const radio = el("input", { type: "radio", name, onchange: () => ask(position) });
  const [said, note, unknown] = [el("span"), el("small"), el("s", { class: "ml-unknown" })];
  const cells = HEADS.map(() => el("td"));
  const kept = el("input", { type: "checkbox", onchange: () => drop(position) });
  const label = el("label", { class: "ml-pick" }, radio, said);
  const why = el("small");
  const strange = el("span", {}, unknown, why);
  const title = el("th", { scope: "row" }, label, note, strange);
  const element = el("tr", {}, title, ...cells, el("td", {}, kept));
  /**
   * @param {Word | undefined} word
   * @param {{weights: ArrayLike<number>, heard: boolean}[]} looks
   * @param {Shown} shown
   */
  const show = (word, looks, { asked, dropped, notes }) => {
    put(element, { hidden: !word });
    if (!word) return;
    position = word.position;
    const known = position >= 0;
    put(label, { hidden: !known });
    put(kept, { hidden: !known, "aria-label": `slot ${position} is kept` });
    put(strange, { hidden: known });
    put(title, { style: shade(known && position === asked ? 0.6 : 0) });
    write(known ? said : unknown, known ? `${position} ${word.said}` : word.said);
    write(note, notes[position] ?? "");
    write(why, word.token < 0 ? "not known" : "too late to be read");
    radio.checked = known && position === asked;
    kept.checked = !dropped.includes(position);
    for (const [i, { weights, heard }] of looks.entries()) {
      const weight = known && position <= asked ? weights[position] : 0;
      write(cells[i], weight >= 0.005 ? round(weight) : "");
      // only of a slot that is gone the weight is 0 in every digit
      const gone = known && position <= asked && !weight;
      put(cells[i], { style: !gone && shade(heard ? weight : 0), class: gone && "ml-gone" });
    }
  };
  return { element, show };
}
