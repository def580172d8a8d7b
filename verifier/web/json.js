/**
 * JSON as the proof format has it, which JSON.parse is not: a doubled member and any number but an integer from 0 to
 * 2^53 - 1 are refused, and objects become Maps, in which no name is special.
 *
 * Only `strict.js` calls it.
 */

const MAX_DEPTH = 500; // no form of ours has more than five levels; recursion must not reach the end of the stack
const SPACE = /[ \t\n\r]*/y;
const NUMBER = /-?[0-9][0-9.eE+-]*/y;
const DECIMAL = /^(?:0|[1-9][0-9]{0,15})$/;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const WORDS = [["true", true], ["false", false], ["null", null]];

/** The text is not strict JSON. */
export class JsonError extends Error {}

/** A JSON object holds one name twice; the message is the name. */
export class DuplicateError extends Error {}

/**
 * @typedef {null | boolean | number | string | Json[] | Map<string, Json>} Json
 */

/**
 * Reads one JSON value; throws JsonError or DuplicateError.
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
      const value = this.value(depth + 1);
      if (members.has(name)) throw new DuplicateError(name);
      members.set(name, value);
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
    do items.push(this.value(depth + 1));
    while (this.take(","));
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
      throw new JsonError(`the number ${digits.slice(0, 20)} is not an integer from 0 to 2^53 - 1`);
    }
    return Number(digits);
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
