/**
 * Drawings that take their colors from the page: bars, heat maps, plots.
 *
 * @import { Matrix, Vector } from "../tensor.js"
 */
import { draw, el, put, write } from "./dom.js";

/**
 * @param {number} value
 * @param {number} [digits]
 * @returns {string} rounded, with a minus sign that is one
 */
export function round(value, digits = 2) {
  const text = value.toFixed(digits);
  return Number(text) === 0 ? (0).toFixed(digits) : text.replace("-", "\u2212");
}

/**
 * @param {number} share
 * @returns {string} such as "12 %"
 */
export function percent(share) {
  return `${round(100 * share, share >= 0.0005 && share < 0.01 ? 1 : 0)} %`;
}

/**
 * A cell's ground: nothing at 0, the accent at 1, the second color at -1; paler under text.
 *
 * @param {number} value
 * @param {number} [most] how much of the color at 1
 * @returns {string}
 */
export function shade(value, most = 0.45) {
  const part = Math.min(Math.abs(value), 1) * most * 100;
  const color = value < 0 ? "--ml-second" : "--ml-accent";
  return `background:color-mix(in srgb,var(${color}) ${part.toFixed(1)}%,transparent)`;
}

/**
 * Bars from left to right, one a row: label, bar, number.
 *
 * @param {string[]} labels
 * @param {{limit?: number, second?: boolean, show?: (value: number) => string}} [options]
 *   limit: the value of a full bar; second: in the color of writing
 * @returns {{element: HTMLElement, show: (values: Vector, labels?: string[]) => void}}
 */
export function bars(labels, { limit = 1, second = false, show: said = percent } = {}) {
  const rows = labels.map((label) => {
    const name = el("span", { class: "ml-label" }, label);
    const bar = el("span", { class: second ? "ml-fill ml-second" : "ml-fill" });
    const number = el("span", { class: "ml-number" });
    const track = el("span", { class: "ml-track" }, bar);
    return { name, bar, number, row: el("li", {}, name, track, number) };
  });
  const element = el("ul", { class: "ml-bars" }, ...rows.map(({ row }) => row));
  const show = (/** @type {Vector} */ values, /** @type {string[]} */ names = labels) => {
    rows.forEach(({ name, bar, number }, n) => {
      bar.style.width = `${(100 * Math.min(Math.max(values[n] / limit, 0), 1)).toFixed(2)}%`;
      write(number, said(values[n]));
      write(name, names[n]);
    });
  };
  return { element, show };
}

/** What heat maps are drawn with; their look is another one in the dark. */
export const ink = { look: "", above: [0, 0, 0], below: [0, 0, 0] };

/** @param {Element} element whose colors are taken: to ask for them in every drawing would cost */
export function dip(element) {
  const style = getComputedStyle(element);
  const colors = ["--ml-accent", "--ml-second"].map((name) => style.getPropertyValue(name));
  const [above, below] = colors.map(rgb);
  Object.assign(ink, { look: colors.join(), above, below });
}

/**
 * A heat map on a canvas: the accent above 0, the second color below.
 *
 * @param {string} label what it shows, for those who do not see it
 * @param {{limit?: number, cell?: number}} [options] limit: the size of the full color; cell: the
 *   height of a cell in CSS pixels
 * @returns {{element: HTMLCanvasElement, show: (matrix: Matrix, label?: string) => void}}
 */
export function heat(label, { limit = 1, cell = 8 } = {}) {
  const element = el("canvas", { class: "ml-heat", role: "img", "aria-label": label });
  const context = /** @type {CanvasRenderingContext2D} */ (element.getContext("2d"));
  const show = (/** @type {Matrix} */ matrix, /** @type {string} */ name = label) => {
    const rows = matrix.length;
    const columns = rows ? matrix[0].length : 0;
    put(element, { width: columns, height: rows, "aria-label": name });
    element.style.height = `${cell * rows}px`;
    if (!rows || !columns) return;
    const image = context.createImageData(columns, rows);
    for (let i = 0, at = 0; i < rows; i++) {
      for (let j = 0; j < columns; j++, at += 4) {
        const value = matrix[i][j] / limit;
        const color = value < 0 ? ink.below : ink.above;
        for (let c = 0; c < 3; c++) image.data[at + c] = color[c];
        image.data[at + 3] = 255 * Math.min(Math.abs(value), 1);
      }
    }
    context.putImageData(image, 0, 0);
  };
  return { element, show };
}

/**
 * @param {string} color "#0b7285"
 * @returns {number[]}
 */
function rgb(color) {
  const whole = Number.parseInt(color.trim().slice(1), 16) || 0;
  return [whole >> 16, (whole >> 8) & 255, whole & 255];
}

/**
 * A plot with two axes; what is drawn into it uses `x` and `y`.
 *
 * @param {object} options
 * @param {string} options.label
 * @param {[number, number]} options.x
 * @param {[number, number]} options.y
 * @param {number} [options.height] in units of which the width has 600
 * @param {string} [options.xlabel]
 * @param {string} [options.ylabel]
 * @param {number[]} [options.xticks]
 * @param {number[]} [options.yticks]
 */
export function plot({
  label,
  x,
  y,
  height = 260,
  xlabel = "",
  ylabel = "",
  xticks = x,
  yticks = y,
}) {
  const [left, right, top, bottom] = [44, 590, 12, height - (xlabel ? 44 : 26)];
  const toX = (/** @type {number} */ v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left);
  const toY = (/** @type {number} */ v) => bottom - ((v - y[0]) / (y[1] - y[0])) * (bottom - top);
  const axis = `M${left},${top}V${bottom}H${right}`;
  const inside = draw("g");
  const element = draw(
    "svg",
    { class: "ml-plot", viewBox: `0 0 600 ${height}`, role: "img", "aria-label": label },
    draw("path", { d: axis, class: "ml-axis" }),
    ...xticks.map((v) => draw("text", { x: toX(v), y: bottom + 18, class: "ml-middle" }, short(v))),
    ...yticks.map((v) => draw("text", { x: left - 6, y: toY(v) + 5, class: "ml-end" }, short(v))),
    draw("text", { x: (left + right) / 2, y: height - 6, class: "ml-middle" }, xlabel),
    draw("text", { x: left + 6, y: top + 6 }, ylabel),
    inside,
  );
  return {
    element,
    inside,
    x: toX,
    y: toY,
    /** @param {number} px @returns {number} the value at a place of the drawing */
    valueAt: (px) => x[0] + ((px - left) / (right - left)) * (x[1] - x[0]),
    /** @param {ArrayLike<[number, number]>} points @returns {string} of a path */
    line: (points) =>
      Array.from(
        points,
        ([a, b], i) => `${i ? "L" : "M"}${toX(a).toFixed(1)},${toY(b).toFixed(1)}`,
      ).join(""),
  };
}

/**
 * @param {number} value
 * @returns {string}
 */
function short(value) {
  return String(Number(value.toPrecision(4))).replace("-", "\u2212");
}
