/**
 * Elements in one line: `el("label", { class: "a" }, "text", child)`.
 *
 * @typedef {string | Node} Child
 * @typedef {Record<string, any>} Attributes a function becomes a listener: `{ onclick: f }`
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  element.append(...children);
  return put(element, attributes);
}

/**
 * @template {keyof SVGElementTagNameMap} K
 * @param {K} tag
 * @param {Attributes} [attributes]
 * @param {...Child} children
 * @returns {SVGElementTagNameMap[K]}
 */
export function draw(tag, attributes = {}, ...children) {
  const element = /** @type {SVGElementTagNameMap[K]} */ (document.createElementNS(SVG, tag));
  element.append(...children);
  return put(element, attributes);
}

/**
 * Set what has changed: false and undefined take an attribute away.
 *
 * @template {Element} E
 * @param {E} element
 * @param {Attributes} attributes
 * @returns {E}
 */
export function put(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === false || value === undefined) element.removeAttribute(name);
    else if (element.getAttribute(name) !== String(value === true ? "" : value)) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  return element;
}

/**
 * Write what has changed, where possible into the text that is there: a text that is taken out and
 * put in makes the browser look at the page's style anew.
 *
 * @param {Node} node
 * @param {string} text
 */
export function write(node, text) {
  const { firstChild, lastChild, textContent } = node;
  if (textContent === text) return;
  if (firstChild === lastChild && firstChild instanceof Text) firstChild.data = text;
  else node.textContent = text;
}

let made = 0;

/** @returns {string} an id that no other element of the page has */
export function fresh() {
  made += 1;
  return `ml-made-${made}`;
}

/** @returns {Promise<void>} the page may draw and listen in between */
export function pause() {
  return new Promise((done) => setTimeout(done));
}

/** @returns {Promise<void>} the same, but what else waits to be done, waits on (where that is known) */
export function breath() {
  const { scheduler } = /** @type {any} */ (globalThis);
  return scheduler?.yield ? scheduler.yield() : pause();
}
