/**
 * A tape, a row a slot, with the head beside it, and the pictures that are read from it.
 *
 * @import { Matrix, Vector } from "../../tensor.js"
 * @typedef {{name: string, to: number, share: number}} Part columns of a slot, up to `to`; its share
 *   of the width
 */
import { el, put, write } from "../../kit/dom.js";
import { heat, percent } from "../../kit/draw.js";

const CELL = 20; // pixels, the height of a slot

/**
 * @param {Part[]} parts of a slot
 * @param {number} slots at most
 * @param {number} limit the number of the full color
 */
export function tape(parts, slots, limit) {
  const rows = Array.from({ length: slots }, (_, n) => {
    const fill = el("span", { class: "ml-fill" });
    const number = el("span", { class: "ml-number" });
    const name = el("div", {}, String(n));
    return {
      name,
      fill,
      number,
      head: el("div", {}, el("span", { class: "ml-track" }, fill), number),
    };
  });
  const maps = parts.map(({ name }) =>
    heat(`The tape: ${name} of each slot`, { limit, cell: CELL }),
  );
  const shares = parts.map(({ share }) => `minmax(0,${share}fr)`).join(" ");
  const title = el("span");
  const element = el(
    "div",
    { class: "ml-tape", style: `grid-template-columns:1.6rem ${shares} minmax(5.4rem,6fr)` },
    el("span", {}),
    ...parts.map(({ name }) => el("span", {}, name)),
    title,
    el("div", {}, ...rows.map(({ name }) => name)),
    ...maps.map((map) => map.element),
    el("div", { class: "ml-heads" }, ...rows.map(({ head }) => head)),
  );
  const show = (
    /** @type {Matrix} */ memory,
    /** @type {Vector} */ weights,
    /** @type {boolean} */ wrote,
  ) => {
    const cut = (/** @type {number} */ from, /** @type {number} */ to) =>
      Array.from(memory, (row) => Array.from(row).slice(from, to));
    maps.forEach((map, i) => {
      map.show(cut(i ? parts[i - 1].to : 0, parts[i].to));
    });
    write(title, wrote ? "head: writes" : "head: reads");
    rows.forEach(({ name, fill, number, head }, n) => {
      const there = n < memory.length;
      put(name, { hidden: !there });
      put(head, { hidden: !there });
      if (!there) return;
      fill.style.width = `${(100 * weights[n]).toFixed(2)}%`;
      put(fill, { class: wrote ? "ml-fill ml-second" : "ml-fill" });
      write(number, weights[n] < 0.0005 ? "" : percent(weights[n]));
    });
  };
  return { element, show };
}

/**
 * Small pictures side by side, each with a name.
 *
 * @param {number} most how many
 * @param {number} cell pixels
 */
export function pictures(most, cell) {
  const all = Array.from({ length: most }, () => {
    const map = heat("A picture that was read", { cell });
    const name = el("figcaption");
    return { map, name, figure: el("figure", {}, map.element, name) };
  });
  const element = el("div", { class: "ml-pictures", style: `--side:${8 * cell}px` });
  element.append(...all.map(({ figure }) => figure));
  const show = (/** @type {{name: string, image: Matrix}[]} */ images) => {
    all.forEach(({ map, name, figure }, i) => {
      put(figure, { hidden: i >= images.length });
      if (i >= images.length) return;
      write(name, images[i].name);
      map.show(images[i].image, `A picture of 8 by 8: ${images[i].name}`);
    });
  };
  return { element, show };
}
