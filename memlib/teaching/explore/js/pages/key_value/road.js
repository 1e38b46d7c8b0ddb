/**
 * The road and its stations: a drawing in which they are dragged, and a list of the slots.
 *
 * @import { Frame } from "../../kit/frame.js"
 * @import { Road } from "../key_value.js"
 * @import { Vector } from "../../tensor.js"
 */
import { slider } from "../../kit/controls.js";
import { draw, el, fresh, put, write } from "../../kit/dom.js";
import { drag, snap } from "../../kit/drag.js";
import { percent, plot, round } from "../../kit/draw.js";

export const LOW = -1; // the road, in kilometers
export const HIGH = 5;
export const WARM = 30; // the highest temperature
const KM = [-1, 0, 1, 2, 3, 4, 5];
const tenth = (/** @type {number} */ value) => round(value, 1);
const NEAR = 22; // how near the pointer must be to take hold of a station

/** @param {Frame} frame */
export function map(frame) {
  const { written } = frame.state;
  const x = /** @type {[number, number]} */ ([LOW, HIGH]);
  const top = plot({
    label: "Temperature along the road: the stations and what is read at each place",
    x,
    y: [0, WARM],
    height: 240,
    xticks: [],
    yticks: [0, 10, 20, 30],
    ylabel: "degrees",
  });
  const low = plot({
    label: "How much each station counts where you stand",
    x,
    y: [0, 1],
    height: 125,
    xticks: KM,
    ylabel: "weight",
    xlabel: "kilometers along the road",
  });
  const curve = draw("path", { class: "ml-line" });
  const lines = [top, low].map(() => draw("path", { class: "ml-faint" }));
  const you = draw("circle", { r: 9, style: "fill:var(--ml-accent)" });
  const stations = written.map(() => {
    const style = "cursor:grab";
    const mark = draw("rect", { width: 13, height: 13, x: -6.5, y: -6.5, style });
    // A finger needs more than is seen.
    const reach = draw("circle", { r: NEAR, fill: "transparent", style });
    return draw("g", {}, reach, mark);
  });
  const bars = written.map(() =>
    draw("rect", { width: 14, style: "fill:var(--ml-accent);opacity:.8" }),
  );
  top.inside.append(curve, lines[0], you, ...stations);
  low.inside.append(lines[1], ...bars);
  // Stations are dragged in both directions, the reader to the sides alone.
  top.element.style.touchAction = "none";
  low.element.style.touchAction = "pan-y";

  const stand = (/** @type {number} */ at) => frame.set({ here: snap(at, LOW, HIGH, 0.05) });
  drag(low, () => stand);
  drag(top, (px, py) => {
    const { at, degrees, written } = frame.state;
    const gap = (/** @type {number} */ n) =>
      written[n] ? Math.hypot(top.x(at[n]) - px, top.y(degrees[n]) - py) : Infinity;
    const slot = [...written.keys()].reduce((a, b) => (gap(b) < gap(a) ? b : a));
    if (gap(slot) > NEAR) return stand;
    frame.set({ slot });
    return (km, warm) => move(frame, snap(km, LOW, HIGH, 0.1), snap(warm, 0, WARM, 0.5));
  });

  /**
   * @param {Road} state
   * @param {number[]} places
   * @param {number[]} read at each of them
   * @param {number} value what is read here
   * @param {Vector} weights
   */
  const show = (state, places, read, value, weights) => {
    put(curve, { d: top.line(places.map((place, i) => [place, read[i]])) });
    put(lines[0], { d: `M${top.x(state.here)},${top.y(0)}V${top.y(WARM)}` });
    put(lines[1], { d: `M${low.x(state.here)},${low.y(0)}V${low.y(1)}` });
    put(you, { cx: top.x(state.here), cy: top.y(value) });
    let before = 0;
    state.at.forEach((at, n) => {
      const there = { display: state.written[n] ? undefined : "none" };
      const fill = n === state.slot ? "--ml-second" : "--ml-ink,currentColor";
      const where = `translate(${top.x(at)},${top.y(state.degrees[n])})`;
      put(stations[n], { transform: where, fill: `var(${fill})`, ...there });
      // Bars of stations at one place stand on one another.
      before = 0;
      for (let m = 0; m < n; m++) if (state.at[m] === at) before += weights[m];
      const height = low.y(0) - low.y(weights[n]);
      put(bars[n], { x: low.x(at) - 7, y: low.y(before + weights[n]), height, ...there });
    });
  };
  return { elements: [top.element, low.element], show };
}

/**
 * Moves the chosen station.
 *
 * @param {Frame} frame
 * @param {number} km
 * @param {number} warm
 */
function move(frame, km, warm) {
  const { at, degrees, slot } = frame.state;
  frame.set({ at: at.with(slot, km), degrees: degrees.with(slot, warm) });
}

/**
 * @param {Frame} frame
 * @param {number} count
 */
export function slots(frame, count) {
  const name = fresh();
  const rows = Array.from({ length: count }, (_, n) => {
    const onchange = () => frame.set({ slot: n });
    const input = el("input", { type: "radio", name, value: n, onchange });
    const what = el("span");
    const fill = el("span", { class: "ml-fill" });
    const share = el("span", { class: "ml-number" });
    const row = el(
      "li",
      {},
      el("label", { class: "ml-pick" }, input, what),
      el("span", { class: "ml-track" }, fill),
      share,
    );
    return { input, what, fill, share, row };
  });
  const element = el("ul", { class: "ml-bars ml-slots" }, ...rows.map(({ row }) => row));
  const sliders = [
    chosen(frame, "at", { label: "its kilometer", low: LOW, high: HIGH, step: 0.1, show: tenth }),
    chosen(frame, "degrees", { label: "its degrees", low: 0, high: WARM, step: 0.5, show: tenth }),
  ];
  /** @param {Road} state @param {Vector} weights */
  const show = ({ at, degrees, written, slot }, weights) => {
    rows.forEach(({ input, what, fill, share }, n) => {
      const station = `pair ${written[n]}: km ${tenth(at[n])}, ${tenth(degrees[n])}°`;
      input.checked = n === slot && written[n] > 0;
      put(input, { disabled: !written[n] });
      write(what, written[n] ? station : "free");
      fill.style.width = `${(100 * weights[n]).toFixed(2)}%`;
      write(share, written[n] ? percent(weights[n]) : "");
    });
    for (const one of sliders) put(one.children[1], { disabled: !written[slot] });
  };
  return { element, sliders, show };
}

/**
 * A slider of the chosen slot's entry in a list.
 *
 * @param {Frame} frame
 * @param {"at" | "degrees"} field
 * @param {Parameters<typeof slider>[2]} options
 * @returns {HTMLElement}
 */
function chosen(frame, field, options) {
  const { controls } = frame;
  const entry = {
    set: (/** @type {Record<string, number>} */ { [field]: value }) =>
      frame.set({ [field]: frame.state[field].with(frame.state.slot, value) }),
    controls: {
      push: (/** @type {(state: any) => void} */ sync) =>
        controls.push((state) => {
          sync({ [field]: state[field][state.slot] });
        }),
    },
  };
  return slider(/** @type {any} */ (entry), field, options);
}
