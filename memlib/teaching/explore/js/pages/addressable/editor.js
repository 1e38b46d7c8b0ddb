/**
 * A field for a program: numbered lines, the one that was run and the one that is refused, and
 * steps to click in.
 *
 * @import { Frame } from "../../kit/frame.js"
 */
import { button } from "../../kit/controls.js";
import { el, fresh, put, write } from "../../kit/dom.js";

/**
 * @param {Frame} frame
 * @param {string} field a text
 * @param {number} longest
 */
export function editor(frame, field, longest) {
  const id = fresh();
  const numbers = el("div", { class: "ml-lines", "aria-hidden": "true" });
  const wrong = el("p", { class: "ml-wrong", id });
  const input = el("textarea", {
    wrap: "off",
    spellcheck: "false",
    autocapitalize: "off",
    autocomplete: "off",
    maxlength: longest,
    "data-lm-suppress-shortcuts": "true",
    "aria-label": "Program, one step a line",
    "aria-describedby": id,
    oninput: () => frame.set({ [field]: input.value }),
  });

  /** @param {string} line is put below the one with the cursor, or in its place if that is empty */
  const insert = (line) => {
    const lines = input.value.split("\n");
    const at = input.value.slice(0, input.selectionStart).split("\n").length - 1;
    const empty = lines[at].trim() === "";
    lines.splice(empty ? at : at + 1, empty ? 1 : 0, line);
    const program = lines.join("\n");
    if (program.length > longest) return;
    frame.set({ [field]: program });
    const end = lines.slice(0, empty ? at + 1 : at + 2).join("\n").length;
    input.setSelectionRange(end, end);
  };

  /**
   * @param {string} program
   * @param {number | undefined} now the line that was run
   * @param {string} why what is refused
   */
  const show = (program, now, why) => {
    const lines = program.split("\n");
    if (input.value !== program) input.value = program;
    put(input, { rows: Math.max(lines.length, 6), "aria-invalid": why ? "true" : false });
    const refused = Number(/^Line (\d+)/.exec(why)?.[1]);
    while (numbers.childElementCount > lines.length) numbers.lastElementChild?.remove();
    while (numbers.childElementCount < lines.length) numbers.append(el("span"));
    lines.forEach((_, i) => {
      const line = i + 1;
      const mark = line === refused ? "✗" : line === now ? "▸" : "";
      write(numbers.children[i], `${mark}${line}`);
      put(numbers.children[i], { class: line === refused ? "ml-wrong" : line === now && "ml-now" });
    });
    write(wrong, why);
  };

  const steps = (/** @type {string[]} */ known) =>
    known.map((step) => button(step, () => insert(step), { class: "ml-step" }));
  const element = el("div", {}, el("div", { class: "ml-code" }, numbers, input), wrong);
  return { element, show, steps };
}
