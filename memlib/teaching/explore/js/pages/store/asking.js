/**
 * Asking a store in words: questions offered, how a text is read, and the facts that are found.
 *
 * @import { Frame } from "../../kit/frame.js"
 * @import { Words } from "../../words.js"
 */
import { button, pick } from "../../kit/controls.js";
import { el, put, write as say } from "../../kit/dom.js";
import { percent } from "../../kit/draw.js";
import { pieces } from "../../words.js";

const SHOWN = 6; // facts

/**
 * Questions to choose from: a way to ask, and a country.
 *
 * @param {Frame} frame
 * @param {{phrases: string[], countries: string[]}} data
 */
export function offers(frame, { phrases, countries }) {
  /** @param {string} question @returns {number[]} which phrase and which country, 0 for neither */
  const parts = (question) => {
    for (const [p, phrase] of phrases.entries()) {
      const [before, after] = phrase.split("{}");
      const country = question.slice(before.length, question.length - after.length);
      const c = question === before + country + after ? countries.indexOf(country) : -1;
      if (c >= 0) return [p + 1, c + 1];
    }
    return [0, 0];
  };
  const ask = (/** @type {number} */ p, /** @type {number} */ c) => {
    const country = countries[(c || 1) - 1];
    frame.set({ question: phrases[(p || 1) - 1].replace("{}", () => country) });
  };
  const shown = phrases.map((phrase) => phrase.replace("{}", "…"));
  const way = pick("Or choose", ["a way to ask", ...shown], (p) =>
    ask(p, parts(frame.state.question)[1]),
  );
  const about = pick("about", ["a country", ...countries], (c) =>
    ask(parts(frame.state.question)[0], c),
  );
  return {
    element: el("div", { class: "ml-row" }, way.element, about.element),
    show(/** @type {string} */ question) {
      const [p, c] = parts(question);
      way.show(p);
      about.show(c);
    },
  };
}

/**
 * How a text is read: with the words as they are known, and those that are not struck out.
 *
 * @param {Words} words
 */
export function reading(words) {
  const element = el("p", { class: "ml-read ml-words" });
  /** @param {string} text @returns {string[]} what is not known */
  const show = (text) => {
    const all = pieces(text);
    const found = words.encode(text);
    const parts = all.flatMap((piece, i) =>
      found[i] < 0 ? [" ", el("s", {}, piece.trim())] : [words.words[found[i]]],
    );
    element.replaceChildren(...(all.length ? ["read as:", ...parts] : []));
    return all.filter((_, i) => found[i] < 0).map((piece) => piece.trim());
  };
  return { element, show };
}

/**
 * The first facts that are found, each with its weight and a button that deletes it.
 *
 * @param {(n: number) => void} remove
 */
export function results(remove) {
  /** @type {number[]} */
  let shown = [];
  const rows = Array.from({ length: SHOWN }, (_, i) => {
    const name = el("span", { class: "ml-label" });
    const bar = el("span", { class: "ml-fill" });
    const share = el("span", { class: "ml-number" });
    const erase = button("Delete", () => remove(shown[i]));
    const track = el("span", { class: "ml-track" }, bar);
    return { name, bar, share, erase, row: el("li", {}, name, track, share, erase) };
  });
  const rest = el("span", { class: "ml-rest" });
  const share = el("span", { class: "ml-number" });
  const last = el("li", {}, rest, share);
  const element = el("ul", { class: "ml-found" }, ...rows.map(({ row }) => row), last);
  /** @param {number[]} slots @param {Float64Array} weights @param {string[]} texts */
  const show = (slots, weights, texts) => {
    shown = slots;
    rows.forEach((one, i) => {
      put(one.row, { hidden: i >= slots.length });
      if (i >= slots.length) return;
      say(one.name, texts[slots[i]]);
      one.bar.style.width = `${(100 * weights[i]).toFixed(2)}%`;
      say(one.share, percent(weights[i]));
      put(one.erase, { "aria-label": `Delete: ${texts[slots[i]]}` });
    });
    const others = slots.length - SHOWN;
    put(last, { hidden: others <= 0 });
    say(rest, `the other ${others} together`);
    say(share, percent(weights.subarray(SHOWN).reduce((a, b) => a + b, 0)));
  };
  return { element, show };
}
