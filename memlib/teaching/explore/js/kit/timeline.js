/**
 * A run over its steps: heat maps one below the other with a line at the step that is looked at, and
 * what moves it: run, step, a slider, a press on the maps.
 *
 * @import { Child } from "./dom.js"
 * @import { Frame } from "./frame.js"
 */
import { button, slider } from "./controls.js";
import { el, put, write } from "./dom.js";

/**
 * @typedef {object} Track
 * @property {Child} name at the left
 * @property {HTMLElement} map one column a step
 * @property {Child} [beside] at the right
 *
 * @param {Frame} frame
 * @param {string} field the step that is looked at, from 0
 * @param {(state: any) => number} length of the run, in steps
 * @param {Track[]} tracks
 * @returns {{element: HTMLElement, controls: HTMLElement, show: (step: number) => void}}
 */
export function timeline(frame, field, length, tracks) {
  const line = el("span");
  const cursor = el("div", { class: "ml-cursor", style: `grid-row:1/span ${tracks.length}` }, line);
  const parts = tracks.flatMap(({ name, map, beside = "" }, row) => {
    put(map, { onpointerdown: press, onpointermove: press });
    const all = [el("div", {}, name), map, el("div", { class: "ml-beside" }, beside)];
    for (const one of all) one.style.gridRow = String(row + 1);
    return all;
  });
  const element = el("div", { class: "ml-film" }, ...parts, cursor);

  /** @param {PointerEvent} event */
  function press(event) {
    if (!(event.buttons & 1)) return;
    const { left, width } = tracks[0].map.getBoundingClientRect();
    const share = (event.clientX - left) / width;
    go(Math.floor(share * length(frame.state)));
  }
  const go = (/** @type {number} */ step) =>
    frame.set({ [field]: Math.min(Math.max(step, 0), length(frame.state) - 1) });
  const at = () => Math.min(frame.state[field], length(frame.state) - 1);

  let timer = 0;
  let next = 0; // the step that the player shows next, if nobody else has moved
  const stop = () => {
    clearInterval(timer);
    timer = 0;
    write(run, "Run");
  };
  const tick = () => {
    if (frame.state[field] !== next - 1) return stop();
    go(next);
    next += 1;
    if (next >= length(frame.state)) stop();
  };
  const run = button("Run", () => {
    if (timer) return stop();
    const last = length(frame.state) - 1;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return go(last);
    go(at() < last ? at() : 0);
    next = at() + 1;
    timer = setInterval(tick, Math.min(250, 6000 / last));
    write(run, "Stop");
  });
  const controls = el(
    "div",
    {},
    slider(frame, field, {
      label: "step",
      low: 0,
      high: (state) => length(state) - 1,
      step: 1,
      show: () => `${at() + 1} of ${length(frame.state)}`,
    }),
    el(
      "p",
      { class: "ml-bar" },
      run,
      button("Step back", () => go(at() - 1)),
      button("Step", () => go(at() + 1)),
    ),
  );
  const show = (/** @type {number} */ step) => {
    const steps = length(frame.state);
    put(line, { style: `left:${(100 * step) / steps}%;width:max(2px,${100 / steps}%)` });
  };
  return { element, controls, show };
}
