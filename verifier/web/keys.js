/**
 * Keys that somebody decided to trust: pasted, or from a key set file. They come from the auditor, never from a proof.
 */

import { fromHex, fromUtf8, utf8 } from "./bytes.js";
import { MalformedKeyError, TooLargeError } from "./errors.js";
import { VerifierKey } from "./note.js";
import * as strict from "./strict.js";

export const MAX_KEY_SET_SIZE = 262144; // bytes
// What Python strips of text.
const EDGES = /^[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+|[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+$/g;

/**
 * @typedef {{publicKey: Uint8Array, name: string | null, notBefore: number | null, notAfter: number | null,
 *   succession: Uint8Array | null}} TrustedKey for one log or, without a name, for whatever log is signed with it; times
 *   are milliseconds since 1970-01-01 UTC; the succession is a leaf, and a claim until `successors.js` followed it
 */

/** Reads 64 hex digits or a vkey; throws MalformedKeyError. @param {string} text @returns {Promise<TrustedKey>} */
export async function parseKey(text) {
  const bare = strip(text);
  if (bare.includes("+")) return named(await VerifierKey.parse(bare));
  if (!/^[0-9a-fA-F]{64}$/.test(bare)) throw new MalformedKeyError("the public key is neither a vkey nor 64 hex digits");
  const publicKey = fromHex(bare.toLowerCase());
  return { publicKey, name: null, notBefore: null, notAfter: null, succession: null };
}

/**
 * Reads a key set: JSON, or lines of vkeys with blank lines and # comments; throws MalformedKeyError or TooLargeError.
 * @param {Uint8Array} data @returns {Promise<TrustedKey[]>}
 */
export async function parseKeySet(data) {
  if (data.length > MAX_KEY_SET_SIZE) throw new TooLargeError("the key set", MAX_KEY_SET_SIZE);
  const text = fromUtf8(data);
  if (text === null) throw new MalformedKeyError("the key set is not UTF-8");
  const isJson = /^[ \t\n\r\v\f]*\{/.test(text);
  const keys = await (isJson ? fromJson(data) : fromLines(text));
  if (keys.length === 0) throw new MalformedKeyError("the key set holds no key");
  return keys;
}

/**
 * Takes apart what somebody pasted: a key set in JSON, or a key on each line, which may be bare; nothing is no key.
 * @param {string} text @returns {{keys: string[], keySets: Uint8Array[]}} for `parseKey` and `parseKeySet`
 */
export function splitPasted(text) {
  return strip(text).startsWith("{") ? { keys: [], keySets: [utf8(text)] } : { keys: lines(text), keySets: [] };
}

/** @param {TrustedKey} key @param {string} origin @returns {boolean} whether it is trusted for this log */
export function isTrustedFor(key, origin) {
  return key.name === null || key.name === origin;
}

/** @param {TrustedKey} key @param {number} timestampMs @returns {boolean} whether a head of this date may be signed with it */
export function isValidAt(key, timestampMs) {
  return (
    (key.notBefore === null || key.notBefore <= timestampMs) && (key.notAfter === null || timestampMs <= key.notAfter)
  );
}

/** @param {string} text @returns {string[]} without blank lines and # comments */
function lines(text) {
  return text.split("\n").map(strip).filter((line) => line !== "" && !line.startsWith("#"));
}

/** @param {string} text @returns {Promise<TrustedKey[]>} */
async function fromLines(text) {
  const keys = [];
  for (const line of lines(text)) keys.push(named(await VerifierKey.parse(line)));
  return keys;
}

/** @param {Uint8Array} data @returns {Promise<TrustedKey[]>} */
async function fromJson(data) {
  const value = strict.jsonObject(data, "the key set", MalformedKeyError);
  strict.members(value, ["keys"], "the key set", MalformedKeyError);
  const items = value.get("keys");
  if (!Array.isArray(items)) throw new MalformedKeyError("the keys of the key set are not a list");
  const keys = [];
  for (const [number, item] of items.entries()) keys.push(await fromItem(item, `keys[${number}] of the key set`));
  return keys;
}

/** @param {import("./json.js").Json} item @param {string} what @returns {Promise<TrustedKey>} */
async function fromItem(item, what) {
  if (!(item instanceof Map)) throw new MalformedKeyError(`${what} is not an object`);
  const full = new Map([["not_before_ms", null], ["not_after_ms", null], ["succession", null], ...item]);
  strict.members(full, ["not_before_ms", "not_after_ms", "succession", "vkey"], what, MalformedKeyError);
  const key = await VerifierKey.parse(strict.string(full.get("vkey"), `the vkey of ${what}`, MalformedKeyError));
  return {
    ...named(key),
    notBefore: instant(full.get("not_before_ms"), `the not_before_ms of ${what}`),
    notAfter: instant(full.get("not_after_ms"), `the not_after_ms of ${what}`),
    succession: succession(full.get("succession"), `the succession of ${what}`),
  };
}

/** @param {unknown} value @param {string} what @returns {Uint8Array | null} */
function succession(value, what) {
  return value === null ? null : strict.base64(strict.string(value, what, MalformedKeyError), what, MalformedKeyError);
}

/** @param {unknown} value @param {string} what @returns {number | null} */
function instant(value, what) {
  return value === null ? null : strict.integer(value, what, MalformedKeyError);
}

/** @param {VerifierKey} key @returns {TrustedKey} */
function named(key) {
  return { publicKey: key.publicKey, name: key.name, notBefore: null, notAfter: null, succession: null };
}

/** @param {string} text @returns {string} */
function strip(text) {
  return text.replace(EDGES, "");
}
