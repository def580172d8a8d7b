/**
 * Readers of the few lexical forms that all formats share, each with exactly one spelling per value: the same rules as
 * kapsel_verifier/strict.py, where it says why.
 *
 * The caller says which refusal is its own: `Refusal` is thrown with a message that begins with `what`.
 */

import { equal, fromHex, fromUtf8, toBase64 } from "./bytes.js";
import { DuplicateError, JsonError, NumberError, parseJson } from "./json.js";

/** @typedef {typeof import("./errors.js").VerificationError} Refusal */

const DECIMAL = /^(?:0|[1-9][0-9]{0,15})$/;
const HEX = /^(?:[0-9a-f]{2})*$/;
const BASE64 = /^[A-Za-z0-9+/]*={0,2}$/;
const PRINTABLE = /^[ -~]*$/;

/**
 * Reads one JSON object from bytes.
 * @param {Uint8Array} data
 * @param {string} what
 * @param {Refusal} Refusal
 * @returns {Map<string, import("./json.js").Json>}
 */
export function jsonObject(data, what, Refusal) {
  if (data[0] === 0xef && data[1] === 0xbb && data[2] === 0xbf) {
    throw new Refusal(`${what} begins with a byte order mark, which JSON does not have`);
  }
  const text = fromUtf8(data);
  if (text === null) throw new Refusal(`${what} is not UTF-8`);
  let value;
  try {
    value = parseJson(text);
  } catch (error) {
    if (error instanceof DuplicateError) throw new Refusal(`${what} has the member ${shown(error.message)} twice`);
    if (error instanceof NumberError) {
      const number = `${shown(error.message) || "it"} is ${error.number}, which is not an integer from 0 to 2^53 - 1`;
      throw new Refusal(`${what} is not strict JSON (${number})`);
    }
    if (error instanceof JsonError) throw new Refusal(`${what} is not strict JSON (${error.message})`);
    throw error;
  }
  if (!(value instanceof Map)) throw new Refusal(`${what} is not a JSON object`);
  return value;
}

/**
 * Refuses an object whose members are not exactly `names`.
 * @param {Map<string, unknown>} value
 * @param {readonly string[]} names
 * @param {string} what
 * @param {Refusal} Refusal
 */
export function members(value, names, what, Refusal) {
  for (const name of names) {
    if (!value.has(name)) throw new Refusal(`${what} has no member ${name}`);
  }
  for (const name of value.keys()) {
    if (!names.includes(name)) throw new Refusal(`${what} has a member ${shown(name)} that it may not have`);
  }
}

/** @param {unknown} value @param {string} what @param {Refusal} Refusal @returns {number} */
export function integer(value, what, Refusal) {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw new Refusal(`${what} is not an integer from 0 to 2^53 - 1`);
  }
  return value;
}

/** @param {unknown} value @param {string} what @param {Refusal} Refusal @returns {string} */
export function string(value, what, Refusal) {
  if (typeof value !== "string") throw new Refusal(`${what} is not a string`);
  return value;
}

/**
 * Reads ASCII digits without sign, space or leading zero.
 * @param {string} text @param {string} what @param {Refusal} Refusal @returns {number}
 */
export function decimal(text, what, Refusal) {
  if (!DECIMAL.test(text) || !Number.isSafeInteger(Number(text))) {
    throw new Refusal(`${what} is not a decimal from 0 to 2^53 - 1 without leading zeros`);
  }
  return Number(text);
}

/**
 * Reads `size` bytes from lower-case hex.
 * @param {unknown} value @param {number} size @param {string} what @param {Refusal} Refusal @returns {Uint8Array}
 */
export function hexadecimal(value, size, what, Refusal) {
  if (typeof value !== "string" || value.length !== 2 * size || !HEX.test(value)) {
    throw new Refusal(`${what} is not ${size} bytes in lower-case hex`);
  }
  return fromHex(value);
}

/**
 * Reads standard base64 with its padding and with zero bits at the end.
 * @param {string} text @param {string} what @param {Refusal} Refusal @returns {Uint8Array}
 */
export function base64(text, what, Refusal) {
  if (!BASE64.test(text) || text.length % 4 !== 0) throw new Refusal(`${what} is not base64`);
  let binary;
  try {
    binary = atob(text);
  } catch {
    throw new Refusal(`${what} is not base64`);
  }
  const data = Uint8Array.from(binary, (character) => character.charCodeAt(0));
  if (toBase64(data) !== text) throw new Refusal(`${what} is not canonical base64`);
  return data;
}

/**
 * Returns text from an untrusted file so that it can neither fill the page nor turn its direction.
 * @param {string} text
 * @returns {string}
 */
export function shown(text) {
  const cut = text.length <= 200 ? text : `${text.slice(0, 200)}...`;
  if (PRINTABLE.test(cut)) return cut;
  const escaped = cut.replace(/[^ -~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return `'${escaped}'`;
}

/** @param {unknown} a @param {unknown} b @returns {boolean} whether two values read here are the same */
export function same(a, b) {
  return a instanceof Uint8Array && b instanceof Uint8Array ? equal(a, b) : a === b;
}
