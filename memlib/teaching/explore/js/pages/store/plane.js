/**
 * A plane of keys in clusters: which cells are looked into, what is found there, what is missed.
 *
 * @import { Matrix } from "../../tensor.js"
 * @typedef {object} Look
 * @property {number[]} query its place
 * @property {number[]} clusters that are looked into
 * @property {ArrayLike<boolean>} mask which keys are compared
 * @property {number[]} found slots that a search by clusters finds
 * @property {number[]} wanted slots that are nearest
 * @property {number} reach how far the last of them lies from the query
 */
import { draw, el, put } from "../../kit/dom.js";
import { cell } from "./voronoi.js";

const UNIT = 400; // of the drawing, for a length of 1
const KINDS = {
  "ml-key ml-compared": "compared",
  "ml-key": "not compared",
  "ml-key ml-hit": "nearest, found",
  "ml-key ml-missed": "nearest, missed",
};
const SIZE = (/** @type {string} */ kind) => (/hit|missed/.test(kind) ? 6 : 3);

/**
 * @param {object} options
 * @param {string} options.label
 * @param {Matrix} options.keys (N, 2)
 * @param {Matrix} options.centers (C, 2)
 * @param {[number, number]} options.size of the plane
 * @param {(x: number, y: number) => void} options.move what dragging the query does
 */
export function plane({ label, keys, centers, size, move }) {
  const [width, height] = size;
  const box = [
    [0, 0],
    [width, 0],
    [width, height],
    [0, height],
  ];
  const at = (/** @type {ArrayLike<number>} */ p) => [UNIT * p[0], UNIT * (height - p[1])];
  const areas = Array.from(centers, (_, c) => {
    const points = cell(centers, c, box).map((corner) => at(corner).join());
    return draw("polygon", { points: points.join(" ") });
  });
  const crosses = Array.from(centers, (center) => {
    const [x, y] = at(center);
    return draw("path", { d: `M${x - 5},${y}h10M${x},${y - 5}v10`, class: "ml-center" });
  });
  const dots = Array.from(keys, (key) => {
    const [cx, cy] = at(key);
    return draw("circle", { cx, cy });
  });
  const front = draw("g"); // what is nearest, above all others
  const reach = draw("circle", { class: "ml-reach" });
  const query = draw("path", { class: "ml-query" });
  const drag = (/** @type {PointerEvent} */ event) => {
    const frame = element.getBoundingClientRect();
    const x = ((event.clientX - frame.left) / frame.width) * width;
    const y = (1 - (event.clientY - frame.top) / frame.height) * height;
    move(Math.min(Math.max(x, 0), width), Math.min(Math.max(y, 0), height));
  };
  const element = draw(
    "svg",
    {
      class: "ml-plane",
      viewBox: `0 0 ${UNIT * width} ${UNIT * height}`,
      role: "img",
      "aria-label": label,
      onpointerdown(/** @type {PointerEvent} */ event) {
        if (event.button) return;
        event.preventDefault();
        element.setPointerCapture(event.pointerId);
        drag(event);
      },
      onpointermove(/** @type {PointerEvent} */ event) {
        if (element.hasPointerCapture(event.pointerId)) drag(event);
      },
    },
    ...areas,
    ...crosses,
    ...dots,
    reach,
    front,
    query,
  );

  const show = (/** @type {Look} */ look) => {
    const { clusters, mask, found, wanted } = look;
    areas.forEach((area, c) => {
      put(area, { class: clusters.includes(c) ? "ml-area ml-on" : "ml-area" });
    });
    dots.forEach((dot, n) => {
      const near = found.includes(n) ? "ml-key ml-hit" : "ml-key ml-missed";
      const kind = wanted.includes(n) ? near : mask[n] ? "ml-key ml-compared" : "ml-key";
      put(dot, { class: kind, r: SIZE(kind) });
    });
    front.replaceChildren(...wanted.map((n) => dots[n].cloneNode()));
    const [x, y] = at(look.query);
    put(reach, { cx: x, cy: y, r: UNIT * look.reach });
    put(query, { d: `M${x - 9},${y - 9}l18,18M${x - 9},${y + 9}l18,-18` });
  };
  return { element, show };
}

/** @returns {HTMLElement} what the dots of a plane mean */
export function legend() {
  const items = Object.entries(KINDS).map(([kind, text]) => {
    const dot = draw("circle", { cx: 8, cy: 8, r: SIZE(kind), class: kind });
    const sample = draw("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, dot);
    return el("span", {}, sample, text);
  });
  return el("p", { class: "ml-legend" }, ...items);
}
