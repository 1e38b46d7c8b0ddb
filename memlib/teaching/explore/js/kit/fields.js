/**
 * The fields of a state: what each may be, and how it stands in the page's address.
 *
 * @template T
 * @typedef {object} Field
 * @property {T} start
 * @property {(text: string) => T | undefined} parse undefined where the text is malformed
 * @property {(value: T) => string} format exact: parse(format(value)) is the value
 */

/**
 * @param {number} start
 * @param {number} low
 * @param {number} high
 * @param {{whole?: boolean}} [options]
 * @returns {Field<number>}
 */
export function number(start, low, high, { whole = false } = {}) {
  return {
    start,
    parse(text) {
      const value = Number(text);
      const good = text.trim() !== "" && value >= low && value <= high;
      return good && (!whole || Number.isInteger(value)) ? value : undefined;
    },
    format: String,
  };
}

/**
 * @param {boolean} start
 * @returns {Field<boolean>}
 */
export function flag(start) {
  const parse = (/** @type {string} */ text) => ({ 0: false, 1: true })[text];
  return { start, parse, format: (value) => (value ? "1" : "0") };
}

/**
 * @template {string} T
 * @param {T} start
 * @param {readonly T[]} options
 * @returns {Field<T>}
 */
export function choice(start, options) {
  return { start, parse: (text) => options.find((one) => one === text), format: String };
}

/**
 * @param {string} start
 * @param {number} longest
 * @returns {Field<string>}
 */
export function text(start, longest) {
  return { start, parse: (said) => (said.length <= longest ? said : undefined), format: String };
}

/**
 * @template T
 * @param {T[]} start
 * @param {Field<T>} field of each entry; its text must not hold what stands between two of them
 * @param {number} least
 * @param {number} most how many entries
 * @param {string} [between]
 * @returns {Field<T[]>}
 */
export function list(start, field, least, most, between = ",") {
  return {
    start,
    parse(said) {
      const values = said === "" ? [] : said.split(between).map(field.parse);
      const good = values.length >= least && values.length <= most && !values.includes(undefined);
      return good ? /** @type {T[]} */ (values) : undefined;
    },
    format: (values) => values.map(field.format).join(between),
  };
}

/**
 * @param {string} start zeros and ones
 * @param {number} least
 * @param {number} most how many
 * @returns {Field<string>}
 */
export function bits(start, least, most) {
  const rule = new RegExp(`^[01]{${least},${most}}$`);
  return { start, parse: (said) => (rule.test(said) ? said : undefined), format: String };
}

/**
 * @param {number[]} start whole numbers, each of two hexadecimal digits in the address
 * @param {number} least
 * @param {number} most how many
 * @param {number} [high] the largest that one may be
 * @returns {Field<number[]>}
 */
export function bytes(start, least, most, high = 255) {
  const rule = new RegExp(`^(?:[0-9a-f]{2}){${least},${most}}$`);
  return {
    start,
    parse(said) {
      const values = (said.match(/../g) ?? []).map((pair) => Number.parseInt(pair, 16));
      return rule.test(said) && values.every((value) => value <= high) ? values : undefined;
    },
    format: (values) => values.map((value) => value.toString(16).padStart(2, "0")).join(""),
  };
}

/**
 * @param {Record<string, Field<any>>} fields
 * @returns {Record<string, any>}
 */
export function first(fields) {
  return Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, field.start]));
}

/**
 * The state that an address holds; where a part of it is malformed, the first state.
 *
 * @param {Record<string, Field<any>>} fields
 * @param {string} query such as "?strength=4"
 * @param {(state: any) => boolean} [check] whether parts fit one another
 * @returns {Record<string, any>}
 */
export function parse(fields, query, check = () => true) {
  const state = first(fields);
  const asked = new URLSearchParams(query);
  for (const [name, field] of Object.entries(fields)) {
    const said = asked.get(name);
    if (said === null) continue;
    state[name] = field.parse(said);
    if (state[name] === undefined) return first(fields);
  }
  return check(state) ? state : first(fields);
}

/**
 * @param {Record<string, Field<any>>} fields
 * @param {Record<string, any>} state
 * @param {string} query the address as it is; what is not ours stays
 * @returns {string} with what differs from the first state: "?strength=4", or ""
 */
export function format(fields, state, query = "") {
  const asked = new URLSearchParams(query);
  for (const [name, field] of Object.entries(fields)) {
    const said = field.format(state[name]);
    if (said === field.format(field.start)) asked.delete(name);
    else asked.set(name, said);
  }
  return asked.size ? `?${asked}` : "";
}
