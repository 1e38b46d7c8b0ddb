/**
 * Parts of the page: a feed-forward memory with its switch, and what is said.
 *
 * @import { Answer } from "./machine.js"
 */
import { el } from "../../kit/dom.js";
import { heat, percent, round } from "../../kit/draw.js";
import { argmax } from "../../tensor.js";

/**
 * @param {number} layer
 * @param {(part: string) => void} toggle
 * @returns {{element: HTMLElement, show: (off: string[], activations: ArrayLike<number>) => void}}
 */
export function feedForward(layer, toggle) {
  const part = `feed-forward of ${layer}`;
  const input = el("input", { type: "checkbox", onchange: () => toggle(part), "data-part": part });
  const label = el("label", { class: "ml-pick" }, input, `layer ${layer}`);
  const strip = heat(`Weights of the 64 slots of feed-forward memory ${layer}`, { cell: 16 });
  return {
    element: el("div", { class: "ml-learned" }, label, strip.element),
    show(off, activations) {
      input.checked = !off.includes(part);
      const most = Math.max(1e-9, ...Array.from(activations));
      strip.show([Array.from(activations, (weight) => weight / most)]);
    },
  };
}

/**
 * @param {Answer} answer
 * @param {string[]} names
 * @returns {string} what comes next, and where the deepest layer looks for it
 */
export function describe({ tokens, asked, step, shares }, names) {
  if (!step) return "Type a word that it knows: of nothing it says nothing.";
  const next = argmax(shares);
  const looks = step.weights[step.weights.length - 1];
  const head = argmax(looks.map((weights) => Math.max(...weights)));
  const slot = argmax(looks[head]);
  const where = `“${names[tokens[slot]]}” in slot ${slot} (${round(looks[head][slot])})`;
  const says = `After “${names[tokens[asked]]}” in slot ${asked} it says ${names[next]}`;
  return `${says}, ${percent(shares[next])}. In layer 2, head ${head + 1} looks most at ${where}.`;
}

/**
 * @param {Answer} answer
 * @param {string[]} names
 * @returns {string} which countries, as texts of one word, get the capital that they should
 */
export function askedAlone({ alone, capitals }, names) {
  const wrong = alone.flatMap((token, country) =>
    token === capitals[country] ? [] : `${names[country]} (${names[token]})`,
  );
  const right = `Each asked alone, ${16 - wrong.length} of 16 countries get the capital they should`;
  if (!wrong.length) return `${right}.`;
  const more = wrong.length > 5 ? ` and ${wrong.length - 5} more` : "";
  return `${right}; not ${wrong.slice(0, 5).join(", ")}${more}.`;
}

/**
 * @param {number[][]} edits
 * @param {string[]} names
 * @returns {string[]} by position, what lies in a slot instead
 */
export function notes(edits, names) {
  /** @type {string[]} */
  const found = [];
  for (const [position, token, layers] of edits) {
    const where = layers === 3 ? "both layers" : `layer ${layers}`;
    found[position] = `${found[position] ?? ""} ${names[token]} in ${where}`.trim();
  }
  return found;
}
