/**
 * JSON as the proof format has it, which JSON.parse is not: a doubled member and any number but an integer from 0 to
 * 2^53 - 1 are refused, and objects become Maps, in which no name is special.
 *
 * Only `strict.js` calls it.
 */

const MAX_DEPTH = 500; // no form of ours has more than five levels; recursion must not reach the end of the stack
const SHOWN_DIGITS = 20;
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?[0-9][0-9.eE+-]*/y;
const DECIMAL = /^(?:0|[1-9][0-9]{0,15})$/;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const WORDS = [["true", true], ["false", false], ["null", null]];

/** The text is not strict JSON. */
export class JsonError extends Error {}

/** A number is none that may stand here; the message is where, such as `inclusion_proof[3]`. */
export class NumberError extends Error {
  /** @param {string} place @param {string} number */
  constructor(place, number) {
    super(place);
    this.number = number;
  }
}

/** A JSON object holds one name twice; the message is where, such as `sth.tree_size`. */
export class DuplicateError extends Error {}

/**
 * @typedef {null | boolean | number | string | Json[] | Map<string, Json>} Json
 */

/**
 * Reads one JSON value; throws JsonError, NumberError or DuplicateError.
 * @param {string} text
 * @returns {Json}
 */
export function parseJson(text) {
  const reader = new Reader(text);
  const value = reader.value(0);
  if (reader.at !== text.length) throw new JsonError(`extra data at character ${reader.at}`);
  return value;
}

class Reader {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
    this.at = 0;
    /** @type {string[]} what leads to the value that is read */
    this.path = [];
  }

  /** Reads a value with the white space around it. @param {number} depth @returns {Json} */
  value(depth) {
    if (depth > MAX_DEPTH) throw new JsonError("too deeply nested");
    this.match(SPACE);
    const value = this.bare(depth);
    this.match(SPACE);
    return value;
  }

  /** @param {number} depth @returns {Json} */
  bare(depth) {
    const first = this.text[this.at];
    if (first === "{") return this.object(depth);
    if (first === "[") return this.array(depth);
    if (first === '"') return this.string();
    for (const [word, value] of WORDS) {
      if (this.text.startsWith(word, this.at)) {
        this.at += word.length;
        return value;
      }
    }
    return this.number();
  }

  /** @param {number} depth @returns {Map<string, Json>} */
  object(depth) {
    const members = new Map();
    this.at += 1;
    this.match(SPACE);
    if (this.take("}")) return members;
    do {
      this.match(SPACE);
      if (this.text[this.at] !== '"') this.fail("a member name");
      const name = this.string();
      this.match(SPACE);
      if (!this.take(":")) this.fail("a colon");
      this.path.push(`.${name}`);
      if (members.has(name)) throw new DuplicateError(this.place());
      members.set(name, this.value(depth + 1));
      this.path.pop();
    } while (this.take(","));
    if (!this.take("}")) this.fail("a comma or the end of the object");
    return members;
  }

  /** @param {number} depth @returns {Json[]} */
  array(depth) {
    const items = [];
    this.at += 1;
    this.match(SPACE);
    if (this.take("]")) return items;
    do {
      this.path.push(`[${items.length}]`);
      items.push(this.value(depth + 1));
      this.path.pop();
    } while (this.take(","));
    if (!this.take("]")) this.fail("a comma or the end of the list");
    return items;
  }

  /** @returns {string} */
  string() {
    this.at += 1;
    let value = "";
    for (;;) {
      value += this.match(PLAIN);
      if (this.take('"')) return value;
      if (!this.take("\\")) this.fail("the end of a string");
      value += this.escape();
    }
  }

  /** @returns {string} what an escape stands for; the backslash is behind us */
  escape() {
    const letter = this.text[this.at];
    this.at += 1;
    if (letter === "u") {
      const digits = this.text.slice(this.at, this.at + 4);
      if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.fail("four hex digits");
      this.at += 4;
      return String.fromCharCode(parseInt(digits, 16));
    }
    if (letter === undefined || !Object.hasOwn(ESCAPES, letter)) this.fail("an escape");
    return ESCAPES[letter];
  }

  /** @returns {number} */
  number() {
    const digits = this.match(NUMBER);
    if (digits === "") this.fail("a value");
    if (!DECIMAL.test(digits) || !Number.isSafeInteger(Number(digits))) {
      const number = digits.length <= SHOWN_DIGITS ? digits : `${digits.slice(0, SHOWN_DIGITS)}...`;
      throw new NumberError(this.place(), number);
    }
    return Number(digits);
  }

  /** @returns {string} where the value that is read stands, such as `inclusion_proof[3]` */
  place() {
    return this.path.join("").replace(/^\./, "");
  }

  /** @param {RegExp} sticky @returns {string} what it matches here, which may be nothing */
  match(sticky) {
    sticky.lastIndex = this.at;
    const found = sticky.exec(this.text)?.[0] ?? "";
    this.at += found.length;
    return found;
  }

  /** @param {string} character @returns {boolean} */
  take(character) {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  /** @param {string} expected */
  fail(expected) {
    throw new JsonError(`expected ${expected} at character ${this.at}`);
  }
}
