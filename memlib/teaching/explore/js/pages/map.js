/**
 * Find a memory by what it does.
 * The memories of the book by three questions: what is stored, how is it found, who writes?
 *
 * @import { Frame } from "../kit/frame.js"
 * @typedef {Record<string, Record<string, string>>} Words of the answers to each question
 * @typedef {{name: string, year: number | null, page: string} & Record<string, string>} Memory
 */
import { el, fresh, write } from "../kit/dom.js";
import { choice, list } from "../kit/fields.js";

/** @type {Record<string, {title: string, options: string[]}>} */
const FACETS = {
  stored: {
    title: "What is stored",
    options: ["pairs", "slots", "text", "library", "parameters", "matrix"],
  },
  addressed: {
    title: "How it is found",
    options: ["content", "best", "location", "product", "hash"],
  },
  writes: { title: "Who writes", options: ["user", "network", "append", "beforehand", "weights"] },
};
const NAMES = Object.keys(FACETS);

/** @type {import("../kit/frame.js").Explorable} */
export const page = {
  fields: Object.fromEntries(
    Object.entries(FACETS).map(([name, { options }]) => [
      name,
      list(/** @type {string[]} */ ([]), choice(options[0], options), 0, options.length),
    ]),
  ),
  check: (state) => NAMES.every((name) => new Set(state[name]).size === state[name].length),
  tries: [
    {
      text: "Tick “by content and by location”. Who alone writes such a memory when it is trained?",
      state: { addressed: ["location"] },
    },
    {
      text: "A library and every slot of it looked at: only one does that. Of which year is it?",
      state: { stored: ["library"], addressed: ["content"] },
    },
    {
      text: "Slots that are parameters, found by content and by location: has anybody built that?",
      state: { stored: ["parameters"], addressed: ["location"] },
    },
  ],
  build,
};

/**
 * Whether a memory is among what is ticked; where nothing is, everything is.
 *
 * @param {Memory} memory
 * @param {any} state
 * @param {string} [without] a question that is left out
 */
function fits(memory, state, without) {
  return NAMES.every(
    (name) => name === without || !state[name].length || state[name].includes(memory[name]),
  );
}

/**
 * @param {Frame} frame
 * @param {{facets: Words, short: Words, memories: Memory[]}} data
 */
function build(frame, { facets, short, memories }) {
  const asked = NAMES.map((name) => facet(frame, name, facets[name], memories));
  const rows = memories.map((memory) => row(memory, short));
  const all = el("div", { class: "ml-row" }, ...asked.map(({ element }) => element));
  frame.lab.append(all, frame.said, el("ul", { class: "ml-list" }, ...rows));

  return (/** @type {any} */ state) => {
    const found = memories.filter((memory) => fits(memory, state));
    memories.forEach((memory, i) => {
      rows[i].hidden = !found.includes(memory);
    });
    const counts = asked.map(({ show }) => show(state));
    const years = found.flatMap(({ year }) => year ?? []);
    const [early, late] = [Math.min(...years), Math.max(...years)];
    const span =
      early < late
        ? `; their papers are from ${early} to ${late}`
        : years[0]
          ? `, of ${early}`
          : "";
    const count = `${found.length} of ${memories.length} memories`;
    frame.say(
      found.length ? `${count}${span}.` : "No memory in this book is all of that at once.",
      { found: found.map(({ name }) => name), counts },
    );
  };
}

/**
 * One question: a box to tick for each answer, with how many memories that would leave.
 *
 * @param {Frame} frame
 * @param {string} name
 * @param {Record<string, string>} words
 * @param {Memory[]} memories
 */
function facet(frame, name, words, memories) {
  const boxes = FACETS[name].options.map((option) => {
    const id = fresh();
    const onchange = () => {
      const others = frame.state[name].filter((/** @type {string} */ one) => one !== option);
      frame.set({ [name]: input.checked ? [...others, option] : others });
    };
    const input = el("input", { type: "checkbox", id, onchange });
    const count = el("span", { class: "ml-number" });
    const label = el("label", { class: "ml-pick", for: id }, input, `${words[option]} `, count);
    return { option, input, count, element: el("div", {}, label) };
  });
  const show = (/** @type {any} */ state) =>
    boxes.map(({ option, input, count }) => {
      input.checked = state[name].includes(option);
      const left = memories.filter((one) => fits(one, state, name) && one[name] === option).length;
      write(count, `(${left})`);
      return left;
    });
  const title = el("legend", { class: "ml-name" }, FACETS[name].title);
  const parts = boxes.map(({ element }) => element);
  return { element: el("fieldset", { class: "ml-facet" }, title, ...parts), show };
}

/**
 * @param {Memory} memory
 * @param {Words} short
 */
function row(memory, short) {
  const ending = document.querySelector("[data-jp-theme-light]") ? "ipynb" : "html";
  const link = el("a", { href: `${memory.page}.${ending}` }, memory.name);
  const year = el("span", { class: "ml-number" }, memory.year ? String(memory.year) : "");
  const words = NAMES.map((name) => short[name][memory[name]]).join(" · ");
  return el("li", {}, year, el("span", {}, link, " ", el("span", { class: "ml-words" }, words)));
}
