/**
 * The controls of what the machines are shown.
 *
 * @import { Frame } from "../../kit/frame.js"
 */
import { cells } from "../../kit/cells.js";
import { button, panel, slider } from "../../kit/controls.js";
import { el, put } from "../../kit/dom.js";
import { asked, drawn, flipped, item, MOST, query, SIZE, unfold, vectors } from "./input.js";

const WINDOW = 8; // vectors that are edited at a time

/**
 * @param {Frame} frame
 * @returns {{element: HTMLElement, show: (state: any) => void}}
 */
export function editors(frame) {
  const parts = { copy: copyEditor(frame), recall: recallEditor(frame) };
  const element = el("div", { class: "ml-input" }, parts.copy.element, parts.recall.element);
  const show = (/** @type {any} */ state) => {
    for (const [task, part] of Object.entries(parts)) {
      put(part.element, { hidden: task !== state.task });
      if (task === state.task) part.show(state);
    }
  };
  return { element, show };
}

/** @param {Frame} frame */
function copyEditor(frame) {
  const last = (/** @type {any} */ state) => Math.max(state.length - WINDOW, 0);
  const from = () => Math.min(frame.state.from, last(frame.state));
  const grid = cells({
    label: "Bits of the vectors, one a column",
    rows: 8,
    columns: WINDOW,
    name: () => "",
    set(index, on) {
      const [row, t] = [Math.floor(index / WINDOW), from() + (index % WINDOW)];
      const bits = vectors(frame.state);
      if (t < bits.length) frame.set({ bits: bits.with(t, flipped(bits[t], row, on)) });
    },
  });
  put(grid.element, { style: `grid-template-columns:repeat(${WINDOW},1.5rem)` });
  const range = () => `${from() + 1} to ${Math.min(from() + WINDOW, frame.state.length)}`;
  const window = slider(frame, "from", {
    label: "edit vectors",
    low: 0,
    high: last,
    step: 1,
    show: range,
  });
  const clear = () => frame.set({ bits: Array(frame.state.length).fill(0) });
  const draw = () => frame.set({ bits: [], draw: (frame.state.draw % 9999) + 1 });
  const element = panel(
    "What it is shown: click or draw",
    slider(frame, "length", { label: "vectors", low: 1, high: MOST.copy, step: 1 }),
    window,
    grid.element,
    el("p", { class: "ml-bar" }, button("Draw at random", draw), button("Clear", clear)),
  );
  const show = (/** @type {any} */ state) => {
    const all = vectors(state);
    put(window, { hidden: state.length <= WINDOW });
    grid.show(
      Array.from(grid.element.children, (cell, index) => {
        const [row, t] = [Math.floor(index / WINDOW), from() + (index % WINDOW)];
        put(cell, { "aria-label": `vector ${t + 1}, bit ${row + 1}`, disabled: t >= all.length });
        return t < all.length && unfold(all[t], 8)[row];
      }),
    );
  };
  return { element, show };
}

/** @param {Frame} frame */
function recallEditor(frame) {
  /** @type {(name: string, set: (i: number, row: number, on: boolean) => void) => any} */
  const grid = (name, set) => {
    const one = cells({
      label: `Bits of ${name}`,
      rows: 6,
      columns: SIZE,
      name: (row, column) => `${name}, vector ${column + 1}, bit ${row + 1}`,
      set: (index, on) => set(index % SIZE, Math.floor(index / SIZE), on),
    });
    put(one.element, { style: `grid-template-columns:repeat(${SIZE},1.5rem)` });
    const show = (/** @type {number[]} */ item) =>
      one.show(
        Array.from({ length: 6 * SIZE }, (_, i) => unfold(item[i % SIZE], 6)[Math.floor(i / SIZE)]),
      );
    return { element: panel(name, one.element), show };
  };
  const items = Array.from({ length: MOST.recall }, (_, k) =>
    grid(`item ${k + 1}`, (i, row, on) => {
      const at = SIZE * k + i;
      const { items } = frame.state;
      frame.set({ items: items.with(at, flipped(items[at], row, on)) });
    }),
  );
  const question = grid("query", (i, row, on) => {
    const now = query(frame.state);
    frame.set({ query: now.with(i, flipped(now[i], row, on)) });
  });
  const draw = () => {
    const draw = (frame.state.draw % 9999) + 1;
    frame.set({
      draw,
      query: [],
      items: drawn(draw, frame.state.items.length, 6),
    });
  };
  const show = (/** @type {any} */ state) => {
    items.forEach(({ element, show }, k) => {
      put(element, { hidden: k >= state.count });
      show(item(state, k));
    });
    question.show(query(state));
  };
  const row = el(
    "div",
    { class: "ml-items" },
    ...items.map(({ element }) => element),
    question.element,
  );
  const element = panel(
    "What it is shown: click or draw",
    slider(frame, "count", { label: "items", low: 2, high: MOST.recall, step: 1 }),
    slider(frame, "asked", {
      label: "the query is item",
      low: 1,
      high: (state) => state.count - 1,
      step: 1,
      show: () => String(asked(frame.state)),
      set: (asked) => ({ asked, query: [] }),
    }),
    row,
    el(
      "p",
      { class: "ml-bar" },
      button("Draw at random", draw),
      button("Query as the item is", () => frame.set({ query: [] })),
    ),
  );
  return { element, show };
}
