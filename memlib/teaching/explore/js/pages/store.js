/**
 * Ask 719 facts, and look into clusters.
 * A store of facts in plain English, and an approximate search on a plane.
 *
 * @import { Frame } from "../kit/frame.js"
 * @typedef {object} Data
 * @property {string[]} facts
 * @property {string[]} bare the same without their answers
 * @property {string[]} words
 * @property {Parameters<typeof unpackRows>[0]} vectors of the words
 * @property {string[]} phrases ways to ask, with {} for a country
 * @property {string[]} countries
 * @property {number[][]} points
 * @property {number[][]} centers
 */

import { button, check, panel, slider, text as textField } from "../kit/controls.js";
import { breath, el, put, write as say } from "../kit/dom.js";
import { snap } from "../kit/drag.js";
import { percent, round } from "../kit/draw.js";
import { flag, list, number, text } from "../kit/fields.js";
import { address, Clusters, nearest } from "../store.js";
import { norm } from "../tensor.js";
import { similarity } from "../verbs.js";
import { unpackRows } from "../weights.js";
import { Words } from "../words.js";
import { offers, reading, results } from "./store/asking.js";
import { legend, plane } from "./store/plane.js";

const FACTS = 719;
const STOPS = [1, 2, 3, 6, 10, 20, 50, 100, 300, FACTS]; // of k
const CLUSTERS = 17;
const NEAREST = 5; // keys wanted on the plane
const LIKE = "dot"; // of vectors of length 1: their cosine
const FAR = "negative_squared_distance";
const STEP = 0.01;
const SIZE = /** @type {[number, number]} */ ([1.5, 1]);

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: {
    question: text("What do you pay with in Kenya?", 120),
    k: number(6, 1, FACTS, { whole: true }),
    strength: number(20, 0, 60),
    answer: flag(true),
    own: text("", 120),
    gone: list([], number(0, 0, FACTS - 1, { whole: true }), 0, FACTS),
    x: number(0.86, 0, SIZE[0]),
    y: number(0.58, 0, SIZE[1]),
    effort: number(1, 1, CLUSTERS, { whole: true }),
  },
  check: (state) => STOPS.includes(state.k),
  largest: { k: FACTS, effort: CLUSTERS, own: "The capital of Burundi is Gitega." },
  tries: [
    {
      text:
        "Ask for the capital of Wales, which no fact tells, with k = 1: the store is entirely " +
        "sure. How sure is it of the same fact when it reads all 719?",
      state: { question: "What is the capital of Wales?", k: 1 },
    },
    {
      text:
        "Take the answer out of the key: now it knows what you pay with in Kenya. Then ask in " +
        "which country Casablanca is, without the answer and with it.",
      state: { question: "In which country is Casablanca?", answer: false },
    },
    {
      text:
        "One cluster is often enough. Drag the query to 0.56 from left and 0.10 from below, and " +
        "look into three: how many of the five nearest are found, and how many does it take?",
      state: { x: 0.56, y: 0.1, effort: 3 },
    },
  ],
  build,
};

/**
 * @param {Frame} frame
 * @param {Data} data
 */
async function build(frame, data) {
  const words = new Words(data.words, unpackRows(data.vectors));
  await breath();
  const embed = (/** @type {string[]} */ texts) => texts.map((one) => words.embed(one));
  const whole = embed(data.facts);
  const bare = once(() => embed(data.bare)); // when it is asked for
  await breath();
  const clusters = new Clusters(data.points, data.centers, FAR);

  const offered = offers(frame, data);
  const [question, own] = [reading(words), reading(words)];
  const found = results((n) => {
    frame.set(n < FACTS ? { gone: [...frame.state.gone, n] } : { own: "" });
  });
  const back = button("", () => frame.set({ gone: [] }));
  const map = plane({
    label: "Keys on a plane, in cells around the centers of clusters, and a query among them",
    keys: data.points,
    centers: data.centers,
    size: SIZE,
    move: (x, y) => frame.set({ x: snap(x, 0, SIZE[0], STEP), y: snap(y, 0, SIZE[1], STEP) }),
  });
  const looked = el("p");
  const known = data.words.length.toLocaleString("en");
  frame.lab.append(
    panel(
      "Ask in plain English",
      el(
        "p",
        {},
        `${known} words are known: those of the facts and of the questions offered here, and ` +
          "2,000 other common ones. What is not known is left out, and struck out below.",
      ),
      textField(frame, "question", "Question", { maxlength: 120 }),
      question.element,
      offered.element,
    ),
    slider(frame, "k", {
      label: "facts read, k",
      stops: STOPS,
      show: (k) => (k === FACTS ? `all ${FACTS}` : String(k)),
    }),
    slider(frame, "strength", { label: "strength β", low: 0, high: 60, step: 1 }),
    check(frame, "answer", "the answer is in the key"),
    panel("What is found", found.element, back),
    panel(
      "Tell it something",
      textField(frame, "own", "A fact of your own; its key is the whole sentence", {
        maxlength: 120,
      }),
      own.element,
    ),
    panel(
      "Look into clusters: drag the query",
      map.element,
      legend(),
      slider(frame, "x", { label: "query, from left", low: 0, high: SIZE[0], step: STEP }),
      slider(frame, "y", { label: "query, from below", low: 0, high: SIZE[1], step: STEP }),
      slider(frame, "effort", { label: "clusters looked into", low: 1, high: CLUSTERS, step: 1 }),
      looked,
    ),
  );

  const ask = once((asked, k, strength, answer, told, gone) => {
    const query = words.embed(asked);
    const more = words.embed(told);
    const keys = [...(answer ? whole : bare()), more];
    const mask = keys.map((_, n) => (n < FACTS ? !gone.includes(n) : norm(more) > 0));
    const held = mask.filter(Boolean).length;
    const most = norm(query) > 0 ? Math.min(k, held) : 0;
    const [slots, weights] = address(query, keys, most, { measure: LIKE, strength, mask });
    const texts = [...data.facts, told];
    const [like] = similarity(query, [keys[slots[0] ?? FACTS]], LIKE);
    const unknown = [...question.show(asked), ...own.show(told)];
    offered.show(asked);
    found.show(slots, weights, texts);
    put(back, { disabled: gone.length === 0 });
    say(back, `Put back what was deleted: ${gone.length}`);
    const lead = most
      ? `“${texts[slots[0]]}” leads with ${percent(weights[0])} of the weight (similarity ` +
        `${round(like)}).`
      : "Nothing that is known is asked, so nothing is read.";
    const not = unknown.length ? ` Not known and left out: ${unknown.join(", ")}.` : "";
    return { said: lead + not, seen: { slots, weights, like, held, unknown } };
  });
  const look = once((x, y, effort) => {
    const query = [x, y];
    const there = clusters.nearest(query, NEAREST, effort);
    const wanted = nearest(query, data.points, NEAREST, FAR);
    const [last] = similarity(query, [data.points[wanted[NEAREST - 1]]], FAR);
    map.show({ query, ...there, wanted, reach: Math.sqrt(-last) });
    const { found: slots, clusters: cells, compared } = there;
    const hit = wanted.filter((n) => slots.includes(n)).length;
    say(
      looked,
      `${compared} comparisons instead of ${data.points.length}: ${CLUSTERS} centers and ` +
        `${compared - CLUSTERS} keys.`,
    );
    const said =
      ` On the plane ${hit} of the ${NEAREST} nearest keys are found in ${effort} of ` +
      `${CLUSTERS} clusters.`;
    return { said, seen: { wanted, found: slots, cells, compared, reach: Math.sqrt(-last) } };
  });
  return (
    /** @type {any} */ { question: asked, k, strength, answer, own: told, gone, ...place },
  ) => {
    const one = ask(asked, k, strength, answer, told, gone);
    const other = look(place.x, place.y, place.effort);
    frame.say(one.said + other.said, { ...one.seen, ...other.seen });
  };
}

/**
 * @template T
 * @param {(...given: any[]) => T} make
 * @returns {(...given: any[]) => T} the same, made anew only where something else is given
 */
function once(make) {
  /** @type {any[] | undefined} */
  let last;
  /** @type {T} */
  let made;
  return (...given) => {
    if (!last || given.some((one, i) => one !== last?.[i])) {
      made = make(...given);
      last = given;
    }
    return made;
  };
}
