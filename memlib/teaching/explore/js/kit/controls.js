/**
 * Native controls of a state's fields. Each takes a change of the reader to the frame, and takes
 * over the state when it changes elsewhere (reset, a link, another control).
 *
 * @import { Child } from "./dom.js"
 * @import { Frame } from "./frame.js"
 */
import { el, fresh, put, write } from "./dom.js";

/**
 * @param {string} name
 * @param {...Child} children
 * @returns {HTMLElement} a named part of an explorable
 */
export function panel(name, ...children) {
  const id = fresh();
  const title = el("p", { class: "ml-name", id }, name);
  return el("div", { class: "ml-panel", role: "group", "aria-labelledby": id }, title, ...children);
}

/**
 * @param {string} label
 * @param {() => void} onclick
 * @param {Record<string, any>} [attributes]
 * @returns {HTMLButtonElement}
 */
export function button(label, onclick, attributes = {}) {
  return el("button", { type: "button", onclick, ...attributes }, label);
}

/**
 * @param {Frame} frame
 * @param {string} field a number
 * @param {{label: string, low?: number, high?: number | ((state: any) => number), step?: number,
 *   stops?: number[], show?: (value: number) => string,
 *   set?: (value: number) => Record<string, any>}} options high: it may depend on the state; stops:
 *   the numbers that it may be, where they are not evenly spaced; show: the number as it is written
 *   and announced; set: what a change does, if it is more than the field
 * @returns {HTMLElement}
 */
export function slider(frame, field, options) {
  const { label, stops, show = String, set = (value) => ({ [field]: value }) } = options;
  const { low = 0, high = (stops?.length ?? 2) - 1, step = 1 } = options;
  const place = (/** @type {number} */ value) => (stops ? stops.indexOf(value) : value);
  const most = typeof high === "number" ? () => high : high;
  const change = () => {
    const at = Number(input.value);
    frame.set(set(stops ? stops[at] : at));
  };
  const range = { min: low, max: most(frame.state), step, "aria-label": label, oninput: change };
  const input = el("input", { type: "range", "data-lm-suppress-shortcuts": "true", ...range });
  const number = el("output", { "aria-hidden": "true" });
  frame.controls.push((state) => {
    put(input, { max: most(state) });
    if (Number(input.value) !== place(state[field])) input.value = String(place(state[field]));
    write(number, show(state[field]));
    put(input, { "aria-valuetext": show(state[field]) });
  });
  return el("label", { class: "ml-slide" }, el("span", {}, label), input, number);
}

/**
 * @param {Frame} frame
 * @param {string} field true or false
 * @param {string} label
 * @returns {HTMLElement}
 */
export function check(frame, field, label) {
  const onchange = () => frame.set({ [field]: input.checked });
  const input = el("input", { type: "checkbox", onchange });
  frame.controls.push((state) => {
    input.checked = state[field];
  });
  return el("label", { class: "ml-pick" }, input, label);
}

/**
 * @param {Frame} frame
 * @param {string} field a choice
 * @param {string} label
 * @param {Record<string, string>} options by value, what is shown
 * @returns {HTMLElement}
 */
export function choose(frame, field, label, options) {
  const name = fresh();
  const inputs = Object.keys(options).map((value) => {
    const onchange = () => frame.set({ [field]: value });
    return el("input", { type: "radio", name, value, onchange });
  });
  frame.controls.push((state) => {
    for (const input of inputs) input.checked = input.value === state[field];
  });
  const labels = inputs.map((input) =>
    el("label", { class: "ml-pick" }, input, options[input.value]),
  );
  return el("fieldset", { class: "ml-choose" }, el("legend", {}, label), ...labels);
}

/**
 * One of many: what is chosen is not part of the state, but what `onchange` makes of it.
 *
 * @param {string} label
 * @param {string[]} options what is shown; the first stands for none of them
 * @param {(index: number) => void} onchange
 * @returns {{element: HTMLElement, show: (index: number) => void}} index: of an option
 */
export function pick(label, options, onchange) {
  const select = el(
    "select",
    { "data-lm-suppress-shortcuts": "true", onchange: () => onchange(select.selectedIndex) },
    ...options.map((option) => el("option", {}, option)),
  );
  const show = (/** @type {number} */ index) => {
    select.selectedIndex = index;
  };
  return { element: el("label", { class: "ml-text" }, el("span", {}, label), select), show };
}

/**
 * @param {Frame} frame
 * @param {string} field a number or a choice
 * @param {string} label
 * @param {(state: any) => Record<string, Record<string, string>>} groups by name the options: by
 *   value, what is shown
 * @returns {HTMLElement}
 */
export function select(frame, field, label, groups) {
  const onchange = () => {
    const number = typeof frame.state[field] === "number";
    frame.set({ [field]: number ? Number(input.value) : input.value });
  };
  const input = el("select", { "aria-label": label, onchange });
  let before = "";
  frame.controls.push((state) => {
    const now = groups(state);
    if (JSON.stringify(now) !== before) input.replaceChildren(...optgroups(now));
    before = JSON.stringify(now);
    input.value = String(state[field]);
  });
  return el("label", { class: "ml-text" }, el("span", {}, label), input);
}

/** @type {(groups: Record<string, Record<string, string>>) => HTMLElement[]} */
function optgroups(groups) {
  return Object.entries(groups).map(([label, options]) =>
    el(
      "optgroup",
      { label },
      ...Object.entries(options).map(([value, name]) => el("option", { value }, name)),
    ),
  );
}

/**
 * @param {Frame} frame
 * @param {string} field a text
 * @param {string} label
 * @param {Record<string, any>} [attributes] of the input: maxlength, list, ...; with `rows` it has
 *   several lines
 * @returns {HTMLElement}
 */
export function text(frame, field, label, attributes = {}) {
  const oninput = () => frame.set({ [field]: input.value });
  const plain = { autocomplete: "off", autocapitalize: "off", spellcheck: "false" };
  const input = el(attributes.rows ? "textarea" : "input", {
    ...(attributes.rows ? {} : { type: "text" }),
    ...plain,
    "data-lm-suppress-shortcuts": "true",
    oninput,
    ...attributes,
  });
  frame.controls.push((state) => {
    if (input.value !== state[field]) input.value = state[field];
  });
  return el("label", { class: "ml-text" }, el("span", {}, label), input);
}
