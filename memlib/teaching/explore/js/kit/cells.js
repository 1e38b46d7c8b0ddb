/**
 * Cells to switch on and off, by click, by drawing over them, or by keys.
 */
import { el, put } from "./dom.js";

/**
 * Cells to switch on and off: by click, by drawing over them, or by arrow keys and space. One of
 * them is in the order of the tab key, the arrows lead to the others.
 *
 * @param {object} options
 * @param {string} options.label of the whole
 * @param {number} options.rows
 * @param {number} options.columns
 * @param {(row: number, column: number) => string} options.name of a cell
 * @param {(index: number, on: boolean) => void} options.set what a reader's change does
 * @returns {{element: HTMLElement, show: (cells: ArrayLike<number | boolean>) => void}}
 */
export function cells({ label, rows, columns, name, set }) {
  const buttons = Array.from({ length: rows * columns }, (_, index) =>
    el("button", {
      type: "button",
      class: "ml-cell",
      tabindex: index ? -1 : 0,
      "data-index": index,
      "aria-pressed": "false",
      "aria-label": name(Math.floor(index / columns), index % columns),
    }),
  );
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  /** @type {boolean | undefined} what a stroke of the pointer leaves behind */
  let stroke;
  const isOn = (/** @type {number} */ index) =>
    buttons[index].getAttribute("aria-pressed") === "true";
  const under = (/** @type {PointerEvent} */ event) => {
    const found = document.elementFromPoint(event.clientX, event.clientY);
    return found instanceof HTMLElement && element.contains(found)
      ? Number(found.dataset.index)
      : NaN;
  };
  const focus = (/** @type {number} */ index) => {
    for (const one of buttons) if (one.tabIndex === 0) one.tabIndex = -1;
    buttons[index].tabIndex = 0;
    buttons[index].focus();
  };
  const element = el(
    "div",
    {
      class: "ml-cells",
      role: "group",
      "aria-label": label,
      style: `--columns:${columns}`,
      onpointerdown(/** @type {PointerEvent} */ event) {
        const index = under(event);
        if (!(index >= 0) || event.button) return;
        event.preventDefault();
        focus(index);
        stroke = !isOn(index);
        set(index, stroke);
        element.setPointerCapture(event.pointerId);
      },
      onpointermove(/** @type {PointerEvent} */ event) {
        const index = stroke === undefined ? NaN : under(event);
        if (index >= 0 && isOn(index) !== stroke) set(index, stroke === true);
      },
      onlostpointercapture() {
        stroke = undefined;
      },
      onkeydown(/** @type {KeyboardEvent} */ event) {
        const at = buttons.indexOf(/** @type {any} */ (document.activeElement));
        const step = steps[/** @type {keyof typeof steps} */ (event.key)];
        const to = at + step;
        if (at < 0 || step === undefined) return;
        event.preventDefault();
        const sideways = Math.abs(step) === 1 && columns > 1;
        const sameRow = Math.floor(to / columns) === Math.floor(at / columns);
        if (buttons[to] && !buttons[to].disabled && (!sideways || sameRow)) focus(to);
      },
      onclick(/** @type {MouseEvent} */ event) {
        const at = buttons.indexOf(/** @type {any} */ (event.target));
        if (at >= 0 && event.detail === 0) set(at, !isOn(at)); // by keyboard or a screen reader
      },
    },
    ...buttons,
  );
  const show = (/** @type {ArrayLike<number | boolean>} */ on) => {
    for (const [i, one] of buttons.entries())
      put(one, { "aria-pressed": on[i] ? "true" : "false" });
    const stop = buttons.findIndex((one) => one.tabIndex === 0);
    if (!buttons[stop].disabled) return;
    // the tab key must find the cells even where some are switched off
    buttons[stop].tabIndex = -1;
    buttons[0].tabIndex = 0;
  };
  return { element, show };
}
