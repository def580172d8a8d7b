/**
 * Structured field values (RFC 9651): the part of them in which the parameters of a message signature are written.
 *
 * Integers, strings, tokens, booleans and byte sequences are read; anything else, and a parameter that stands twice, is
 * refused. `encode` writes a value back in the one canonical form that RFC 9421 signs.
 */

import { toBase64 } from "./bytes.js";
import * as strict from "./strict.js";

const MAX_SIZE = 8192; // characters
const KEY = /[a-z*][a-z0-9_.*-]*/y;
const STRING = /"((?:[ !#-[\]-~]|\\["\\])*)"/y;
const BYTES = /:([A-Za-z0-9+/=]*):/y;
const INTEGER = /-?[0-9]{1,15}(?![0-9.])/y;
const BOOLEAN = /\?([01])/y;
const TOKEN = /[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*/y;
const SPACES = / */y;

/** A bare word, which is another value than the string of the same letters. */
export class Token {
  /** @param {string} text */
  constructor(text) {
    this.text = text;
  }
}

/** @typedef {number | string | Uint8Array | boolean | Token} Bare */
/** @typedef {Map<string, Bare>} Parameters */
/** @typedef {{value: Bare, parameters: Parameters}} Item */
/** @typedef {{items: Item[], parameters: Parameters}} InnerList */

/**
 * Reads one inner list with its parameters, and nothing after it; throws the Refusal.
 * @param {string} text @param {string} what @param {strict.Refusal} Refusal @returns {InnerList}
 */
export function innerList(text, what, Refusal) {
  const reader = new FieldReader(text, what, Refusal);
  const found = reader.innerList();
  if (reader.at !== reader.text.length) throw new Refusal(`${what} goes on after its end`);
  return found;
}

/** @param {Item | InnerList} member @returns {string} the canonical form */
export function encode(member) {
  const inner = "items" in member ? `(${member.items.map(encode).join(" ")})` : encodeBare(member.value);
  const parameters = Array.from(member.parameters, ([key, value]) =>
    value === true ? `;${key}` : `;${key}=${encodeBare(value)}`);
  return inner + parameters.join("");
}

/** @param {Bare} value @returns {string} */
function encodeBare(value) {
  if (typeof value === "boolean") return value ? "?1" : "?0";
  if (typeof value === "number") return String(value);
  if (value instanceof Uint8Array) return `:${toBase64(value)}:`;
  if (value instanceof Token) return value.text;
  return `"${value.replace(/["\\]/g, "\\$&")}"`;
}

/** A place in a text, and what may stand there. */
class FieldReader {
  /** @param {string} text @param {string} what @param {strict.Refusal} Refusal */
  constructor(text, what, Refusal) {
    if (text.length > MAX_SIZE) throw new Refusal(`${what} is longer than ${MAX_SIZE} characters`);
    this.text = text.replace(/^ +| +$/g, "");
    this.what = what;
    this.Refusal = Refusal;
    this.at = 0;
  }

  /** @returns {InnerList} */
  innerList() {
    if (!this.take("(")) this.fail("no (");
    const items = [];
    this.match(SPACES);
    while (!this.take(")")) {
      items.push({ value: this.bare(), parameters: this.parameters() });
      if (this.text[this.at] !== " " && this.text[this.at] !== ")") this.fail("no space or )");
      this.match(SPACES);
    }
    return { items, parameters: this.parameters() };
  }

  /** @returns {Parameters} */
  parameters() {
    const found = new Map();
    while (this.take(";")) {
      this.match(SPACES);
      const key = this.match(KEY)?.[0] ?? this.fail("no key");
      if (found.has(key)) throw new this.Refusal(`${this.what} has the parameter ${key} twice`);
      found.set(key, this.take("=") ? this.bare() : true);
    }
    return found;
  }

  /** @returns {Bare} */
  bare() {
    let found;
    if ((found = this.match(STRING))) return found[1].replace(/\\(.)/g, "$1");
    if ((found = this.match(BYTES))) return strict.base64(found[1], `a byte sequence of ${this.what}`, this.Refusal);
    if ((found = this.match(INTEGER))) return Number(found[0]) + 0; // there is no minus zero
    if ((found = this.match(BOOLEAN))) return found[1] === "1";
    if ((found = this.match(TOKEN))) return new Token(found[0]);
    return this.fail("no value that can be read");
  }

  /** @param {RegExp} sticky @returns {RegExpExecArray | null} */
  match(sticky) {
    sticky.lastIndex = this.at;
    const found = sticky.exec(this.text);
    if (found !== null) this.at += found[0].length;
    return found;
  }

  /** @param {string} character @returns {boolean} */
  take(character) {
    if (this.text[this.at] !== character) return false;
    this.at += 1;
    return true;
  }

  /** @param {string} missing @returns {never} */
  fail(missing) {
    throw new this.Refusal(`${this.what} is not a structured field: ${missing} at character ${this.at}`);
  }
}
