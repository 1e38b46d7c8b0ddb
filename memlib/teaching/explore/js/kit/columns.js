/**
 * Weights as columns, a slot each, with the weights of before as dotted outlines.
 *
 * @import { Vector } from "../tensor.js"
 */
import { draw, put, write } from "./dom.js";
import { round } from "./draw.js";

const [WIDE, HIGH, TOP, FOOT] = [34, 70, 16, 18]; // a column, a weight of 1, and what is around

/**
 * @param {string} label what they are, for those who do not see them
 * @param {number} slots
 * @returns {{element: SVGSVGElement, show: (weights: Vector, before?: Vector) => void}}
 */
export function columns(label, slots) {
  const bottom = TOP + HIGH;
  const parts = Array.from({ length: slots }, (_, n) => {
    const x = n * WIDE;
    const middle = x + WIDE / 2;
    return {
      ghost: draw("rect", { class: "ml-faint", x: x + 3, width: WIDE - 6 }),
      bar: draw("rect", { class: "ml-area", x: x + 7, width: WIDE - 14 }),
      number: draw("text", { class: "ml-middle", x: middle }),
      slot: draw("text", { class: "ml-middle", x: middle, y: bottom + FOOT - 3 }, String(n)),
    };
  });
  const element = draw(
    "svg",
    { class: "ml-columns", viewBox: `0 0 ${slots * WIDE} ${bottom + FOOT}`, role: "img" },
    draw("path", { class: "ml-axis", d: `M0,${bottom}H${slots * WIDE}` }),
    ...parts.flatMap(({ ghost, bar, number, slot }) => [ghost, bar, number, slot]),
  );
  const rise = (/** @type {Element} */ rect, /** @type {number} */ weight) =>
    put(rect, { y: (bottom - HIGH * weight).toFixed(2), height: (HIGH * weight).toFixed(2) });
  const show = (/** @type {Vector} */ weights, /** @type {Vector | undefined} */ before) => {
    parts.forEach(({ ghost, bar, number }, n) => {
      rise(bar, weights[n]);
      rise(ghost, before ? before[n] : 0);
      put(number, { y: (bottom - HIGH * weights[n] - 4).toFixed(2) });
      write(number, weights[n] < 0.005 ? "" : round(weights[n]));
    });
    const numbers = Array.from(weights, (weight) => round(weight)).join(", ");
    put(element, { "aria-label": `${label}, from slot 0 on: ${numbers}` });
  };
  return { element, show };
}
