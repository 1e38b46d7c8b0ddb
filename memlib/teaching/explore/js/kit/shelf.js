/**
 * Where words are typed: which are known, one click away, and which are not.
 *
 * @import { Child } from "./dom.js"
 * @import { Frame } from "./frame.js"
 * @typedef {HTMLInputElement | HTMLTextAreaElement} Input
 */

import { wordsOf } from "../vocabulary.js";
import { button } from "./controls.js";
import { el, put, write } from "./dom.js";

/**
 * A shelf of the known words for the text fields of a page: a click puts one where the reader
 * types, or in place of a word that is not known.
 *
 * @param {Frame} frame
 * @param {Record<string, HTMLElement>} fields by their name in the state, as `text` makes them
 * @param {string[]} known
 * @returns {{element: HTMLElement, skipped: HTMLElement, show: () => void}} skipped: the words that
 *   are not known, each a button
 */
export function shelf(frame, fields, known) {
  const inputs = Object.entries(fields).map(([field, label]) => ({
    field,
    label: label.firstElementChild?.textContent?.toLowerCase(),
    input: /** @type {Input} */ (label.lastElementChild),
  }));
  let last = inputs[0];
  const place = el("p");
  const offer = () => {
    const { value, selectionStart, selectionEnd } = last.input;
    const chosen = value.slice(selectionStart ?? 0, selectionEnd ?? 0);
    const where = chosen ? `put in place of “${chosen}”` : `put into the ${last.label}`;
    write(place, `The word you choose is ${where}.`);
  };
  const list = wordList("Known words", [".", ...known], (word) => {
    const { text, caret } = inserted(last.input, word);
    frame.set({ [last.field]: text });
    last.input.setSelectionRange(caret, caret);
    offer();
  });
  const summary = el(
    "summary",
    {},
    `The ${known.length} words that it knows; others are passed over`,
  );
  const element = el("details", { class: "ml-shelf" }, summary, place, list.element);
  for (const one of inputs) {
    for (const event of ["focus", "keyup", "pointerup", "select"]) {
      one.input.addEventListener(event, () => {
        last = one;
        offer();
      });
    }
  }
  offer();

  /** @param {string} word that is not known; the next one chosen takes its place */
  const replace = (word) => {
    for (const one of inputs) {
      for (const { 0: said, index } of one.input.value.matchAll(/[^\s.,?!]+/g)) {
        if (said.toLowerCase() !== word) continue;
        last = one;
        one.input.setSelectionRange(index, index + said.length);
        /** @type {HTMLDetailsElement} */ (element).open = true;
        offer();
        list.focus(word[0]);
        return;
      }
    }
  };
  const every = new Set(known);
  const skipped = el("p", { class: "ml-words", hidden: true });
  let before = "";
  const show = () => {
    const words = inputs.flatMap(({ input }) => wordsOf(input.value));
    const strange = [...new Set(words)].filter((word) => !every.has(word));
    put(skipped, { hidden: !strange.length });
    if (strange.join(" ") === before) return;
    before = strange.join(" ");
    const buttons = strange.slice(0, 12).map((word) => {
      return button(word, () => replace(word), { class: "ml-unknown" });
    });
    skipped.replaceChildren("Not known; choose one to replace it:", ...buttons);
  };
  return { element, skipped, show };
}

/**
 * Words to choose from. One of them is in the order of the tab key; arrows, Home, End and the
 * letter that a word begins with lead to the others.
 *
 * @param {string} label
 * @param {string[]} words
 * @param {(word: string) => void} pick
 * @returns {{element: HTMLElement, focus: (letter: string) => void}}
 */
function wordList(label, words, pick) {
  const buttons = words.map((word, i) => button(word, () => pick(word), { tabindex: i ? -1 : 0 }));
  const focus = (/** @type {number} */ to) => {
    for (const [i, one] of buttons.entries()) put(one, { tabindex: i === to ? 0 : -1 });
    buttons[to].focus();
  };
  /** @param {string} letter @param {number} [after] */
  const begins = (letter, after = -1) => {
    const all = [...words.keys()].filter((i) => words[i].startsWith(letter));
    return all.find((i) => i > after) ?? all[0] ?? -1;
  };
  const onkeydown = (/** @type {KeyboardEvent} */ event) => {
    const { key } = event;
    const at = buttons.indexOf(/** @type {any} */ (event.target));
    const keys = { ArrowLeft: at - 1, ArrowUp: at - 1, ArrowRight: at + 1, ArrowDown: at + 1 };
    const ends = { Home: 0, End: words.length - 1 };
    /** @type {number | undefined} */
    let to = { ...keys, ...ends }[/** @type {"Home"} */ (key)];
    const letter = key.length === 1 && key !== " " && !event.ctrlKey && !event.metaKey;
    if (letter) to = begins(key.toLowerCase(), at);
    if (to === undefined) return;
    event.preventDefault();
    if (buttons[to]) focus(to);
  };
  const own = { class: "ml-words", role: "group", "aria-label": label };
  const still = { "data-lm-suppress-shortcuts": "true" };
  const element = el("div", { ...own, ...still, onkeydown }, ...buttons);
  return { element, focus: (letter) => focus(Math.max(begins(letter), 0)) };
}

/**
 * @param {string[]} words
 * @param {(word: string) => boolean} known
 * @returns {Child[]} the words of a sentence, those that are not known struck out
 */
export function marked(words, known) {
  return words.flatMap((word, i) => [
    i ? " " : "",
    known(word) ? word : el("s", { class: "ml-unknown" }, word),
  ]);
}

/**
 * Put a word where a field's caret is, or in place of what is selected there.
 *
 * @param {Input} input
 * @param {string} word
 * @returns {{text: string, caret: number}}
 */
function inserted(input, word) {
  const { value, selectionStart, selectionEnd } = input;
  const before = value.slice(0, selectionStart ?? value.length);
  const after = value.slice(selectionEnd ?? value.length);
  const open = /[^\s]$/.test(before) && word !== "." ? " " : "";
  const close = /^[^\s.,?!]/.test(after) ? " " : "";
  const start = before + open + word;
  return { text: start + close + after, caret: start.length };
}
