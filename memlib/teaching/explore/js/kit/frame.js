/**
 * The frame of an explorable: its state, the page's address, what is said, and when it is drawn.
 *
 * @import { Field } from "./fields.js"
 * @typedef {Record<string, any>} State
 * @typedef {{text: string, state?: State | ((data: any) => State)}} Try something to try; with a
 *   state, which may depend on the data, it can be shown
 * @typedef {object} Explorable what a module of `pages/` exports as `page`
 * @property {Record<string, Field<any>>} fields
 * @property {(state: any) => boolean} [check] whether the fields of an address fit one another
 * @property {State} [largest] the setting at which it has most to do, for its benchmark
 * @property {Try[]} tries
 * @property {(frame: Frame, data: any) => Draw | Promise<Draw>} build fills `frame.lab`, once
 * @typedef {(state: any) => void} Draw shows a state, whatever was shown before
 */

import { unpack } from "../weights.js";
import { breath, el, pause, put, write } from "./dom.js";
import { dip } from "./draw.js";
import { first, format, parse } from "./fields.js";

const SETTLED = 500; // milliseconds without a change, after which something is announced
const SLICE = 5; // milliseconds of a long run between two looks at what the reader does
const FIRST = 2; // of its first slice, which belongs to the reader's event

export class Frame {
  /**
   * @param {HTMLElement} root
   * @param {Explorable} page
   */
  constructor(root, page) {
    this.root = root;
    this.page = page;
    this.lab = /** @type {HTMLElement} */ (root.querySelector(".ml-lab"));
    this.state = parse(page.fields, this.linked ? location.search : "", page.check);
    /** @type {any} what the page computes with */
    this.data = {};
    /** @type {Record<string, any>} the numbers behind what is shown, unrounded */
    this.seen = {};
    /** @type {((state: State) => void)[]} how each control takes over a state */
    this.controls = [];
    this.said = el("p", { class: "ml-said" });
    this.heard = el("p", { class: "ml-heard", role: "status" });
    /** @type {(string | null)[]} what was announced */
    this.told = [];
    this.turn = 0;
    this.busy = false;
    this.timer = 0;
    this.started = 0;
    /** @type {Draw} */
    this.draw = () => {};
  }

  /** Whether the page is ours, so that its address may hold the state (JupyterLab's is not). */
  get linked() {
    return window.top === window && !document.querySelector("[data-jp-theme-light]");
  }

  async start() {
    const began = performance.now();
    const data = JSON.parse(this.root.querySelector(".ml-data")?.textContent || "{}");
    for (const [name, value] of Object.entries(data)) {
      if (!value?.tensors) continue;
      await breath();
      data[name] = { ...value.metadata, ...unpack(value) };
    }
    await breath();
    this.data = data;
    this.draw = await this.page.build(this, data);
    if (!this.said.isConnected) this.lab.append(this.said); // a page may want it elsewhere
    this.lab.append(this.heard, this.bar(), this.tries());
    await breath();
    this.lab.hidden = false;
    this.root.classList.add("ml-live");
    this.recolor();
    this.started = performance.now() - began;
    new ResizeObserver(() => this.reach()).observe(this.lab);
    const watch = new MutationObserver(() => this.recolor());
    const attributeFilter = ["data-theme", "data-jp-theme-light", "data-vscode-theme-kind"];
    for (const element of [document.documentElement, document.body]) {
      watch.observe(element, { attributes: true, attributeFilter });
    }
  }

  /** What scrolls by itself can be reached by keyboard. */
  reach() {
    for (const part of this.lab.querySelectorAll(".ml-scroll")) {
      put(part, { tabindex: part.scrollWidth > part.clientWidth ? 0 : undefined });
    }
  }

  /** @param {State} changes of the state; the rest stays as it is */
  set(changes) {
    this.state = { ...this.state, ...changes };
    this.redraw();
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.settle(), SETTLED);
  }

  redraw() {
    this.turn += 1; // ends a run that is under way
    this.busy = false;
    for (const sync of this.controls) sync(this.state);
    this.draw(this.state);
  }

  /** Draws in the colors that the page has now. */
  recolor() {
    dip(this.root);
    this.redraw();
  }

  settle() {
    // a page of several parts has a sentence (ml-also) in each: what is new is announced
    const told = [...this.lab.querySelectorAll(".ml-also"), this.said].map((p) => p.textContent);
    const news = told.filter((sentence, i) => sentence !== this.told[i]);
    this.told = told;
    if (news.length) write(this.heard, news.join(" "));
    if (this.linked) history.replaceState(history.state, "", this.address(location.hash));
  }

  /**
   * @param {string} hash
   * @returns {string}
   */
  address(hash) {
    const query = format(this.page.fields, this.state, location.search);
    return location.pathname + query + hash;
  }

  /**
   * @param {string} sentence what is seen now
   * @param {Record<string, any>} seen the numbers behind it
   */
  say(sentence, seen) {
    write(this.said, sentence);
    this.seen = seen;
  }

  /**
   * Runs a long computation in slices, so that the page stays alive; a newer change ends it.
   *
   * @template T
   * @param {Generator<number, T>} steps yields how much is done, 0 to 1
   * @param {(done: number) => void} progress
   * @returns {Promise<T | undefined>} undefined where it was ended
   */
  async work(steps, progress) {
    const mine = this.turn;
    this.busy = true;
    for (let slice = FIRST; ; slice = SLICE) {
      const end = performance.now() + slice;
      let step = steps.next();
      while (!step.done && performance.now() < end) step = steps.next();
      if (step.done) {
        this.busy = false;
        return step.value;
      }
      progress(step.value);
      await pause();
      if (mine !== this.turn) return undefined;
    }
  }

  /** @returns {HTMLElement} reset, and the address of what is seen now */
  bar() {
    const link = el("input", { type: "text", readonly: true, hidden: true, class: "ml-address" });
    link.setAttribute("aria-label", "Address of this state");
    const show = async () => {
      this.settle();
      link.value = new URL(this.address(`#${this.root.id}`), location.href).href;
      link.hidden = false;
      link.select();
      const copied = await navigator.clipboard?.writeText(link.value).catch(() => "no");
      write(this.heard, copied === "no" ? "The address is selected." : "The address is copied.");
    };
    const reset = () => {
      link.hidden = true;
      this.set(first(this.page.fields));
    };
    const bar = el(
      "p",
      { class: "ml-bar" },
      el("button", { type: "button", onclick: reset }, "Reset"),
    );
    if (this.linked)
      bar.append(el("button", { type: "button", onclick: show }, "Link to this"), link);
    return bar;
  }

  tries() {
    const items = this.page.tries.map(({ text, state }) => {
      const item = el("li", {}, text);
      const wanted = () => (typeof state === "function" ? state(this.data) : state);
      const show = () => this.set({ ...first(this.page.fields), ...wanted() });
      if (state) item.append(" ", el("button", { type: "button", onclick: show }, "Show me"));
      return item;
    });
    const title = el("p", { class: "ml-name" }, "Three things to try");
    return el("div", { class: "ml-tries" }, title, el("ol", {}, ...items));
  }
}

/**
 * Starts an explorable when it comes near the reader's view, once.
 *
 * @param {HTMLElement | null} root
 * @param {Explorable} page
 */
export function mount(root, page) {
  if (!root || root.dataset.ready) return;
  root.dataset.ready = "1";
  const frame = new Frame(root, page);
  Object.assign(root, { explore: frame });
  const watch = new IntersectionObserver(
    (entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watch.disconnect();
      frame.start();
    },
    { rootMargin: "300px" },
  );
  watch.observe(root);
}
