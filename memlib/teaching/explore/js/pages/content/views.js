/**
 * The stored digits with what each counts, and the way down on the energy.
 *
 * @import { Matrix, Vector } from "../../tensor.js"
 */
import { draw, el, put, write } from "../../kit/dom.js";
import { heat, ink, plot, round } from "../../kit/draw.js";
import { rows } from "../../weights.js";
import { INK } from "./recall.js";

/**
 * @param {string} label
 * @param {number} cell
 * @returns {{element: HTMLCanvasElement, show: (picture: Vector) => void}} a picture of 8 x 8 pixels
 */
export function digit(label, cell) {
  const { element, show } = heat(label, { limit: INK, cell });
  element.style.maxWidth = `${8 * cell}px`;
  return { element, show: (picture) => show(rows(Float32Array.from(picture), [8, 8])) };
}

/**
 * @param {Matrix} pictures
 * @param {(index: number) => void} take what a click on one does
 */
export function shelf(pictures, take) {
  const items = Array.from(pictures, (_, n) => {
    const picture = digit(`a stored ${n % 10}, number ${n + 1}`, 4);
    picture.element.style.maxWidth = "100%";
    picture.element.style.aspectRatio = "1";
    const fill = el("span", { class: "ml-fill" });
    const number = el("span", { class: "ml-share" });
    const track = el("span", { class: "ml-track" }, fill);
    const item = el("li", { onclick: () => take(n) }, picture.element, track, number);
    return { picture, fill, number, item };
  });
  const element = el("ul", { class: "ml-shelf" }, ...items.map(({ item }) => item));
  let look = "";
  /**
   * @param {Vector} weights of those that are stored
   * @param {number} taken
   * @param {(weight: number) => string} said
   */
  const show = (weights, taken, said) => {
    items.forEach(({ picture, fill, number, item }, n) => {
      if (ink.look !== look) {
        picture.show(pictures[n]);
        picture.element.style.height = "auto";
      }
      const weight = n < weights.length ? weights[n] : 0;
      fill.style.width = `${(100 * Math.max(weight, 0)).toFixed(1)}%`;
      write(number, Math.abs(weight) >= 0.005 ? said(weight) : "");
      put(item, { class: n === taken ? "ml-taken" : false, hidden: n >= weights.length });
    });
    look = ink.look;
  };
  return { element, show };
}

/** @param {number} most how many updates */
export function descent(most) {
  const where = plot({
    label: "Energy after each update",
    x: [0, most],
    y: [-0.08, 1.12],
    height: 170,
    xticks: [0, 5, 10, 15, 20],
    yticks: [],
    xlabel: "update",
    ylabel: "energy",
  });
  const line = draw("path", { class: "ml-line" });
  const dots = draw("g", { style: "fill:var(--ml-accent)" });
  const ends = [1, 0].map((y) => draw("text", { x: 40, y: where.y(y) + 5, class: "ml-end" }));
  where.inside.append(line, dots, ...ends);
  /** @param {number[]} energies */
  const show = (energies) => {
    const [high, low] = [Math.max(...energies), Math.min(...energies)];
    const range = high - low > 1e-9 ? high - low : 1;
    const points = energies.map((e, t) => /** @type {[number, number]} */ ([t, (e - low) / range]));
    put(line, { d: where.line(points) });
    dots.replaceChildren(
      ...points.map(([t, y]) => draw("circle", { cx: where.x(t), cy: where.y(y), r: 4 })),
    );
    const digits = Math.abs(low) < 10 ? 2 : 0;
    write(ends[0], range === high - low ? round(high, digits) : "");
    write(ends[1], round(low, digits));
  };
  return { element: where.element, show };
}
