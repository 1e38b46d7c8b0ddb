/**
 * Dragging in a plot, by mouse, pen or finger. A slider for the same number stands beside it.
 *
 * @import { plot } from "./draw.js"
 * @typedef {(x: number, y: number) => void} Follow takes what is dragged to values of the axes
 */

/**
 * @param {ReturnType<typeof plot>} where
 * @param {(px: number, py: number) => Follow | undefined} grab what is to be dragged from a place
 *   of the drawing, undefined for nothing
 */
export function drag(where, grab) {
  const { element } = where;
  const [x0, x1, y0, y1] = [where.x(0), where.x(1), where.y(0), where.y(1)];
  /** @type {Follow | undefined} */
  let follow;
  const place = (/** @type {PointerEvent} */ event) => {
    const box = element.getBoundingClientRect();
    const { width, height } = element.viewBox.baseVal;
    return [
      ((event.clientX - box.left) / box.width) * width,
      ((event.clientY - box.top) / box.height) * height,
    ];
  };
  const move = (/** @type {PointerEvent} */ event) => {
    const [px, py] = place(event);
    follow?.((px - x0) / (x1 - x0), (py - y0) / (y1 - y0));
  };
  element.addEventListener("pointerdown", (event) => {
    const [px, py] = place(event);
    follow = event.button ? undefined : grab(px, py);
    if (!follow) return;
    // Else the browser selects text, and drags that.
    event.preventDefault();
    element.setPointerCapture(event.pointerId);
    move(event);
  });
  element.addEventListener("pointermove", move);
  element.addEventListener("lostpointercapture", () => {
    follow = undefined;
  });
}

/**
 * @param {number} value
 * @param {number} low
 * @param {number} high
 * @param {number} step
 * @returns {number} the nearest that a slider with these limits can have
 */
export function snap(value, low, high, step) {
  const steps = Math.round(Math.min(Math.max(value, low), high) / step);
  return Number((steps * step).toFixed(6));
}
