/**
 * Programs as text, one step a line, in the notation of Python:
 *
 *     node = yield Step(key=start)
 *     yield Step(key=node[C : 2 * C], move=+1, add=[1, 0, 0])  # a comment
 *
 * `yield` may be left out. Values are numbers, names, parts of vectors, numbers in brackets,
 * products, and torch.cat((a, b)).
 *
 * @import { Program, Step } from "./programs.js"
 * @typedef {number | ArrayLike<number> | null} Value
 * @typedef {Record<string, Value>} Names
 */
const TOKEN = /\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+(?:e[+-]?\d+)?|[a-z_]\w*(?:\.\w+)*|\S)/giy;
const FIELDS = ["key", "move", "add", "strength", "sharpening"];

/**
 * A program that says, when a line is wrong or its step is refused, which line it was.
 *
 * @param {string} text
 * @param {Names} names what a step may speak of; what is read may be given a name, too
 * @returns {Program}
 */
export function* typed(text, names) {
  const known = { ...names };
  for (const [index, line] of text.split("\n").entries()) {
    try {
      const said = parse(line, known);
      if (!said) continue;
      const read = yield { ...said.step, line: index + 1 };
      if (said.name) known[said.name] = read;
    } catch (error) {
      throw new Error(`Line ${index + 1}: ${/** @type {Error} */ (error).message}.`);
    }
  }
}

/**
 * @param {string} line
 * @param {Names} names
 * @returns {{name: string, step: Step} | undefined} undefined where it holds no step
 */
export function parse(line, names) {
  const tokens = Array.from(line.replace(/#.*/, "").matchAll(TOKEN), (match) => match[1]);
  if (!tokens.length) return undefined;
  const name = tokens[1] === "=" ? tokens[0] : "";
  if (name && !/^[a-z_]\w*$/i.test(name)) throw new Error(`${name} cannot be a name`);
  const reader = new Reader(name ? tokens.slice(2) : tokens, names);
  reader.skip("yield");
  const step = reader.step();
  reader.end();
  return { name, step };
}

class Reader {
  /**
   * @param {string[]} tokens
   * @param {Names} names
   */
  constructor(tokens, names) {
    this.tokens = tokens;
    this.names = names;
    this.at = 0;
  }

  /** @returns {string} the token that comes next; "" at the end of the line */
  get next() {
    return this.tokens[this.at] ?? "";
  }

  /**
   * @param {string} token
   * @returns {boolean} whether it came
   */
  skip(token) {
    const came = this.next === token;
    if (came) this.at += 1;
    return came;
  }

  /** @param {string} token that must come */
  expect(token) {
    if (!this.skip(token)) throw new Error(`here must be ${token}; got ${this.next || "nothing"}`);
  }

  end() {
    if (this.next) throw new Error(`one line is one Step; got ${this.next} after it`);
  }

  /** @returns {Step} */
  step() {
    if (!this.skip("Step")) {
      throw new Error(`a line must be a Step(...); got ${this.next || "nothing"}`);
    }
    this.expect("(");
    /** @type {Record<string, Value>} */
    const step = {};
    this.series(")", () => {
      const field = this.next;
      if (!FIELDS.includes(field)) {
        throw new Error(`a Step has ${FIELDS.join(", ")}; got ${field || "nothing"}`);
      }
      if (field in step) throw new Error(`${field} is given twice`);
      this.at += 1;
      this.expect("=");
      step[field] = this.value();
    });
    return step;
  }

  /**
   * @param {string} close what ends it
   * @param {() => void} one reads a part of it
   */
  series(close, one) {
    while (!this.skip(close)) {
      one();
      if (!this.skip(",") && this.next !== close) {
        throw new Error(`here must be , or ${close}; got ${this.next || "nothing"}`);
      }
    }
  }

  /** @returns {Value} */
  value() {
    let value = this.factor();
    while (this.skip("*")) value = times(value, this.factor());
    return value;
  }

  /** @returns {Value} */
  factor() {
    if (this.skip("-")) return times(-1, this.factor());
    if (this.skip("+")) return times(1, this.factor());
    const token = this.next;
    this.at += 1;
    if (/^\.?\d/.test(token)) return Number(token);
    if (token === "None") return null;
    if (token === "[") return this.numbers();
    if (token === "torch.cat") return this.joined();
    if (!/^\w/.test(token)) throw new Error(`a value is missing${token && ` before ${token}`}`);
    if (!Object.hasOwn(this.names, token)) throw new Error(`${token} is not known`);
    return this.skip("[") ? this.part(token, this.names[token]) : this.names[token];
  }

  /** @returns {number[]} [1, 0, 0] */
  numbers() {
    /** @type {number[]} */
    const numbers = [];
    this.series("]", () => numbers.push(number(this.value())));
    return numbers;
  }

  /** @returns {number[]} torch.cat((a, b)) */
  joined() {
    /** @type {number[]} */
    const joined = [];
    this.expect("(");
    this.expect("(");
    this.series(")", () => joined.push(...vector(this.value())));
    this.expect(")");
    return joined;
  }

  /**
   * @param {string} name
   * @param {Value} whole
   * @returns {number[]} node[C : 2 * C]
   */
  part(name, whole) {
    const all = vector(whole);
    const from = this.next === ":" ? 0 : number(this.value());
    if (!this.skip(":")) throw new Error(`a part is written ${name}[from : to]`);
    const to = this.next === "]" ? all.length : number(this.value());
    this.expect("]");
    if (!Number.isInteger(from) || !Number.isInteger(to)) {
      throw new Error(`a part is written ${name}[from : to], with whole numbers`);
    }
    return all.slice(from, to);
  }
}

/**
 * @param {Value} a
 * @param {Value} b
 * @returns {Value} a number times a number or a vector
 */
function times(a, b) {
  if (typeof a === "number" && typeof b === "number") return a * b;
  if (typeof b === "number") return times(b, a);
  return vector(b).map((x) => x * number(a));
}

/**
 * @param {Value} value
 * @returns {number}
 */
function number(value) {
  if (typeof value === "number") return value;
  throw new Error(`here must be a number; got ${value === null ? "None" : "a vector"}`);
}

/**
 * @param {Value} value
 * @returns {number[]}
 */
function vector(value) {
  if (value !== null && typeof value === "object") return Array.from(value);
  throw new Error(`here must be a vector; got ${value === null ? "None" : value}`);
}
