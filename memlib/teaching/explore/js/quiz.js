/**
 * Marks the questions of a quiz, and keeps what was answered in this browser until it is forgotten.
 *
 * The questions are HTML from the start, and the explanations of all answers are the data: they
 * are hidden here, the chosen one is said, and all are shown when the item is solved.
 *
 * @typedef {number[] | string} Answer the options that were chosen, or the number as it was typed
 * @typedef {Record<string, {digest: string, answer: Answer}>} Kept by item
 */
import { el } from "./kit/dom.js";

const HEADS = { right: "\u2713 Right. ", wrong: "\u2717 Not yet. ", none: "Choose first. " };

/** @param {HTMLElement | null} root */
export function quiz(root) {
  if (!root || root.dataset.ready) return;
  root.dataset.ready = "1";
  const memory = keep(`memory-attention/${root.id}`);
  const score = /** @type {HTMLElement} */ (root.querySelector(".ml-score"));
  const forget = el("button", { type: "button", class: "ml-forget", hidden: true });
  forget.textContent = "Forget my answers";
  score.after(forget);
  const count = () => {
    const solved = root.querySelectorAll("[data-solved]").length;
    const kept = Object.keys(memory.load()).length > 0;
    const total = `${solved} of ${items.length} solved`;
    score.textContent = kept ? `${total}, kept in this browser.` : solved ? `${total}.` : "";
    forget.hidden = !kept;
  };
  const items = Array.from(root.querySelectorAll("fieldset"), (element) =>
    question(element, (answer) => {
      const digest = element.dataset.digest || "";
      memory.save({ ...memory.load(), [element.id]: { digest, answer } });
      count();
    }),
  );
  forget.addEventListener("click", () => {
    memory.save({});
    for (const item of items) item.clear();
    count();
    items[0].element.querySelector("input")?.focus();
  });
  const kept = memory.load();
  for (const item of items) {
    const found = kept[item.element.id];
    if (found && found.digest === item.element.dataset.digest) item.restore(found.answer);
  }
  count();
}

/**
 * @param {string} name
 * @returns {{load: () => Kept, save: (kept: Kept) => void}} what a browser may refuse to keep
 */
function keep(name) {
  const load = () => {
    try {
      const kept = JSON.parse(localStorage.getItem(name) || "{}");
      return kept && typeof kept === "object" ? kept : {};
    } catch {
      return {};
    }
  };
  const save = (/** @type {Kept} */ kept) => {
    try {
      if (Object.keys(kept).length) localStorage.setItem(name, JSON.stringify(kept));
      else localStorage.removeItem(name);
    } catch {
      // no storage here: the answers live as long as the page
    }
  };
  return { load, save };
}

/**
 * One item.
 *
 * @param {HTMLElement} element
 * @param {(answer: Answer) => void} answered is told of each verdict
 */
function question(element, answered) {
  const part = (/** @type {string} */ name) =>
    /** @type {HTMLElement} */ (element.querySelector(name));
  const [key, button, said] = [part(".ml-key"), part(".ml-check"), part(".ml-said")];
  const more = /** @type {HTMLElement | null} */ (element.querySelector(".ml-more"));
  const told = /** @type {HTMLElement[]} */ ([...key.querySelectorAll("[data-right]")]);
  const inputs = [...element.querySelectorAll("input")];
  const numeric = element.dataset.type === "numeric";

  const fold = () => {
    said.textContent = "";
    delete element.dataset.state;
  };
  /** @param {keyof typeof HEADS} state @param {(string | HTMLElement)[]} parts */
  const say = (state, parts) => {
    element.dataset.state = state;
    const why = (/** @type {string | HTMLElement} */ one) => {
      const text = el("span", {}, typeof one === "string" ? one : "");
      if (typeof one !== "string") text.innerHTML = `${one.querySelector(".ml-why")?.innerHTML} `;
      return text;
    };
    said.replaceChildren(el("b", {}, HEADS[state]), ...parts.map(why));
    if (more) more.hidden = state === "none";
    if (state === "right") {
      element.dataset.solved = "1"; // also when another answer is tried later
      key.hidden = false;
    }
  };
  const number = () => {
    const text = inputs[0].value.trim().replace(",", ".");
    if (!text || Number.isNaN(Number(text))) return say("none", ["Write a number."]);
    const hit = told.find(({ dataset: { low, high } }) => {
      return low === undefined || (Number(text) >= Number(low) && Number(text) <= Number(high));
    });
    return hit
      ? say(hit.dataset.right === "1" ? "right" : "wrong", [hit])
      : say("wrong", ["Another number."]);
  };
  const options = () => {
    const chosen = told.filter((_, i) => inputs[i].checked);
    if (!chosen.length) return say("none", ["Nothing is chosen yet."]);
    const good = chosen.every((one) => one.dataset.right === "1");
    const right = told.filter((one) => one.dataset.right === "1").length;
    const missed = good && element.dataset.type === "many_choice" ? right - chosen.length : 0;
    return say(good && !missed ? "right" : "wrong", [
      ...chosen,
      ...(missed ? [`${missed} more to find.`] : []),
    ]);
  };
  const mark = () => {
    if (numeric) number();
    else options();
    if (element.dataset.state === "none") return;
    const chosen = inputs.flatMap((input, i) => (input.checked ? [i] : []));
    answered(numeric ? inputs[0].value : chosen);
  };

  if (more) more.hidden = true;
  key.hidden = true;
  button.hidden = false;
  button.addEventListener("click", mark);
  for (const input of inputs) {
    input.addEventListener("change", fold);
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      mark();
    });
  }
  return {
    element,
    clear() {
      for (const input of inputs) {
        if (numeric) input.value = "";
        else input.checked = false;
      }
      fold();
      delete element.dataset.solved;
      key.hidden = true;
      if (more) more.hidden = true;
    },
    /** @param {Answer} answer */
    restore(answer) {
      if (typeof answer === "string") inputs[0].value = answer;
      else for (const [i, input] of inputs.entries()) input.checked = answer.includes(i);
      said.removeAttribute("role"); // it is no news
      mark();
      setTimeout(() => said.setAttribute("role", "status"));
    },
  };
}
