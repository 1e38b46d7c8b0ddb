/**
 * What is drawn of the books: slots in a ring with their links as arrows, and all numbers beside.
 *
 * @import { Matrix, Vector } from "../../tensor.js"
 * @typedef {object} Scene
 * @property {string[]} held what each slot holds, in a word
 * @property {Vector} usage (N), with the write of this step
 * @property {Vector} allocation (N), where a write to a free slot goes next
 * @property {Vector} precedence (N)
 * @property {Matrix} links (N, N)
 * @property {Vector} writing (N), where the write head is
 * @property {Vector} reading (N)
 */
import { panel } from "../../kit/controls.js";
import { draw, el, fresh, put, write } from "../../kit/dom.js";
import { round, shade } from "../../kit/draw.js";
import { argmax } from "../../tensor.js";

const COLUMNS = ["slot", "holds", "in use", "next free", "last", "write", "read"];
const FAINT = 0.02; // what is less is not drawn
const TIP = 4; // of an arrow, its length

/**
 * @param {(slot: number) => void} pick what a click on a slot does, where it does something
 */
export function books(pick) {
  const [left, right] = [el("div"), el("div", { class: "ml-scroll" })];
  const legend = el(
    "p",
    { class: "ml-legend" },
    el("span", { class: "ml-read" }, "read"),
    el("span", { class: "ml-write" }, "written"),
    el("span", { class: "ml-used" }, "in use"),
    el("span", { class: "ml-next" }, "next free"),
  );
  const element = el(
    "div",
    { class: "ml-row" },
    panel("Slots, and which was written after which", left, legend),
    panel("The books", right),
  );
  let made = "";
  /** @type {ReturnType<typeof ring>} */
  let circle;
  /** @type {ReturnType<typeof table>} */
  let numbers;
  /** @type {(scene: Scene, picked?: boolean) => void} */
  const show = (scene, picked = false) => {
    const count = scene.usage.length;
    if (made !== `${count} ${picked}`) {
      made = `${count} ${picked}`;
      [circle, numbers] = [ring(count, picked ? pick : undefined), table(count)];
      left.replaceChildren(circle.element);
      right.replaceChildren(numbers.element);
    }
    circle.show(scene);
    numbers.show(scene);
  };
  return { element, show };
}

/**
 * @param {number} count
 * @param {(slot: number) => void} [pick]
 */
function ring(count, pick) {
  const head = fresh();
  const tip = draw("path", { d: "M0,0L10,5L0,10Z" });
  const size = { markerWidth: TIP, markerHeight: TIP, markerUnits: "userSpaceOnUse" };
  const box = { viewBox: "0 0 10 10", refX: 9, refY: 5, orient: "auto" };
  const marker = draw("marker", { id: head, ...box, ...size }, tip);
  const picture = draw("svg", { viewBox: "0 0 100 100", role: "img" }, marker);
  const places = Array.from({ length: count }, (_, n) => {
    const turn = (2 * Math.PI * n) / count - Math.PI / 2;
    return [50 + 41 * Math.cos(turn), 50 + 41 * Math.sin(turn)];
  });
  const slots = places.map(([x, y], n) => {
    const [what, number] = [el("b"), el("small", {}, String(n))];
    const all = { class: "ml-slot", style: `left:${x}%;top:${y}%`, "data-slot": n };
    const node = pick
      ? el("button", { type: "button", onclick: () => pick(n), ...all }, what, number)
      : el("span", { "aria-hidden": "true", ...all }, what, number);
    return { node, what };
  });
  const many = count > 8 ? " ml-many" : "";
  const element = el("div", { class: `ml-ring${many}` }, picture, ...slots.map(({ node }) => node));
  const far = count > 8 ? 7 : 9.5; // an arrow ends beside its slot, and begins where no other's tip is

  /** @type {(from: number, to: number) => string} */
  const curve = (from, to) => {
    const [[ax, ay], [bx, by]] = [places[from], places[to]];
    const [mx, my] = [(ax + bx) / 2 - (by - ay) / 8, (ay + by) / 2 + (bx - ax) / 8];
    /** @type {(x: number, y: number, away: number) => string} */
    const beside = (x, y, away) => {
      const share = Math.min(away / Math.hypot(mx - x, my - y), 0.9);
      return `${(x + share * (mx - x)).toFixed(1)},${(y + share * (my - y)).toFixed(1)}`;
    };
    return `M${beside(ax, ay, far + 1.5 * TIP)}Q${mx.toFixed(1)},${my.toFixed(1)} ${beside(bx, by, far)}`;
  };
  const arrows = places.flatMap((_, from) =>
    [...places.keys()].flatMap((to) => {
      const line = { class: "ml-arrow", "marker-end": `url(#${head})` };
      return from === to ? [] : { from, to, path: draw("path", { ...line, d: curve(from, to) }) };
    }),
  );
  picture.append(...arrows.map(({ path }) => path));

  const show = (/** @type {Scene} */ scene) => {
    const { held, usage, allocation, links, writing, reading } = scene;
    const next = allocation[argmax(allocation)] > 0.5 ? argmax(allocation) : -1;
    slots.forEach(({ node, what }, n) => {
      write(what, held[n]);
      put(node, { style: `left:${places[n][0]}%;top:${places[n][1]}%;${look(scene, n)}` });
      node.classList.toggle("ml-free", n === next);
      if (pick) put(node, { "aria-label": spoken(n, held[n], usage[n], writing[n], reading[n]) });
    });
    for (const { from, to, path } of arrows) {
      const weight = links[to][from];
      const opacity = (0.15 + 0.85 * Math.min(weight, 1)).toFixed(2);
      put(path, { hidden: weight <= FAINT, opacity });
    }
    const strong = arrows.filter(({ from, to }) => links[to][from] > 0.5);
    const listed = strong.map(({ from, to }) => `slot ${from} to slot ${to}`).join(", ");
    put(picture, { "aria-label": `Links that are strong: ${listed || "none at all"}` });
  };
  return { element, show };
}

/**
 * @param {Scene} scene
 * @param {number} n
 * @returns {string} a slot's ground says how far it is in use, its rings where the heads are
 */
function look({ usage, writing, reading }, n) {
  const part = (/** @type {number} */ share) => `${(100 * Math.min(share, 1)).toFixed(0)}%`;
  return `--used:${part(0.3 * usage[n])};--written:${part(writing[n])};--looked:${part(reading[n])}`;
}

/**
 * @param {number} n
 * @param {string} held
 * @param {number} used
 * @param {number} written
 * @param {number} looked
 * @returns {string}
 */
function spoken(n, held, used, written, looked) {
  const heads = (written > 0.5 ? ", written now" : "") + (looked > 0.5 ? ", read now" : "");
  return `Slot ${n}: ${held || "empty"}, ${round(100 * used, 0)} % in use${heads}`;
}

/** @param {number} count */
function table(count) {
  const head = COLUMNS.map((name) => el("th", { scope: "col" }, name));
  const cells = Array.from({ length: count }, () => COLUMNS.slice(1).map(() => el("td")));
  const rows = cells.map((row, n) => el("tr", {}, el("th", { scope: "row" }, String(n)), ...row));
  const element = el(
    "table",
    { class: "ml-books" },
    el("thead", {}, el("tr", {}, ...head)),
    el("tbody", {}, ...rows),
  );
  const show = (/** @type {Scene} */ scene) => {
    const { usage, allocation, precedence, writing, reading } = scene;
    cells.forEach(([what, ...row], n) => {
      write(what, scene.held[n] || "–");
      [usage, allocation, precedence, writing, reading].forEach((of, i) => {
        write(row[i], round(of[n]));
        // in use and last written are gray, what is to be written is orange
        const gray = `background:color-mix(in srgb,currentColor ${(30 * of[n]).toFixed(0)}%,transparent)`;
        put(row[i], { style: i === 4 ? shade(of[n]) : i % 2 ? shade(-of[n]) : gray });
      });
    });
  };
  return { element, show };
}
