/**
 * Keys of a destination, as the auditor has them from the destination itself: lines of whpk_<base64> or of 64
 * hex digits, or a JSON Web Key Set (RFC 7517) as destinations publish it.
 */

import { fromUtf8 } from "./bytes.js";
import { MalformedKeyError, TooLargeError } from "./errors.js";
import * as strict from "./strict.js";

export const MAX_DIRECTORY_SIZE = 262144; // bytes
const MAX_KEYS = 16; // Ed25519 keys of one directory; further ones are not read
const PUBLIC = "whpk_";
const KEY_SIZE = 32; // bytes

/**
 * Reads either form; throws MalformedKeyError, also if there is no key, or TooLargeError.
 * @param {Uint8Array} data @returns {Uint8Array[]}
 */
export function parseDestinationKeys(data) {
  if (data.length > MAX_DIRECTORY_SIZE) throw new TooLargeError("the destination's keys", MAX_DIRECTORY_SIZE);
  const text = fromUtf8(data);
  if (text === null) throw new MalformedKeyError("the destination's keys are neither lines of text nor JSON");
  if (/^\s*\{/.test(text)) return fromDirectory(text);
  const lines = text.split("\n").map((line) => line.trim()).filter((line) => line !== "" && !line.startsWith("#"));
  if (lines.length === 0) throw new MalformedKeyError("the file of the destination's keys holds none");
  return lines.map(publicText);
}

/** @param {string} line @returns {Uint8Array} */
function publicText(line) {
  const what = "a key of the destination";
  if (!line.startsWith(PUBLIC)) return strict.hexadecimal(line.toLowerCase(), KEY_SIZE, what, MalformedKeyError);
  const key = strict.base64(line.slice(PUBLIC.length), what, MalformedKeyError);
  if (key.length !== KEY_SIZE) throw new MalformedKeyError(`${what} has ${key.length} bytes, not ${KEY_SIZE}`);
  return key;
}

/** @param {string} text @returns {Uint8Array[]} */
function fromDirectory(text) {
  let entries;
  try {
    // Not `strict`: a directory may hold members with floats or negative numbers, which are nobody's business here.
    entries = JSON.parse(text).keys;
  } catch {
    throw new MalformedKeyError("the key directory is not JSON");
  }
  if (!Array.isArray(entries)) throw new MalformedKeyError("the key directory has no list of keys");
  const found = entries.filter(isForSignatures).map(publicKey).slice(0, MAX_KEYS);
  if (found.length === 0) throw new MalformedKeyError("the key directory holds no Ed25519 key");
  return found;
}

/** @param {any} entry @returns {boolean} */
function isForSignatures(entry) {
  // A member that is null is there, and says something else.
  const { kty, crv, use = "sig", alg = "Ed25519" } = entry ?? {};
  return kty === "OKP" && crv === "Ed25519" && use === "sig" && ["Ed25519", "EdDSA"].includes(alg);
}

/** @param {{x?: unknown}} entry @returns {Uint8Array} */
function publicKey({ x }) {
  if (typeof x !== "string" || x.length !== 43) {
    throw new MalformedKeyError("a key of the directory does not have 32 bytes in base64url");
  }
  const standard = `${x.replace(/[-_]/g, (digit) => (digit === "-" ? "+" : "/"))}=`;
  return strict.base64(standard, "a key of the directory", MalformedKeyError);
}
