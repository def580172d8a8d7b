/**
 * Bytes, and the hashes that the browser has: everything else in this folder gets them from here.
 *
 * WebCrypto hashes for pages from https:, localhost and file: alone; `isUsable` lets the page say so at once.
 */

const ENCODER = new TextEncoder();

/** @returns {boolean} whether this page may hash at all */
export function isUsable() {
  return globalThis.crypto?.subtle !== undefined;
}

/**
 * Joins pieces, each of them bytes or text that is written as UTF-8.
 * @param {...(Uint8Array | string)} pieces
 * @returns {Uint8Array}
 */
export function concat(...pieces) {
  const parts = pieces.map((piece) => (typeof piece === "string" ? utf8(piece) : piece));
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** @param {string} text well-formed @returns {Uint8Array} */
export function utf8(text) {
  return ENCODER.encode(text);
}

/** @param {Uint8Array} data @returns {string | null} null if the bytes are not UTF-8; a byte order mark is kept */
export function fromUtf8(data) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    return null;
  }
}

/** @param {Uint8Array} data @returns {string} lower-case hex */
export function toHex(data) {
  return Array.from(data, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {string} text an even number of hex digits @returns {Uint8Array} */
export function fromHex(text) {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** @param {Uint8Array} data @returns {string} standard base64 with padding */
export function toBase64(data) {
  let text = "";
  for (let at = 0; at < data.length; at += 8192) text += String.fromCharCode(...data.subarray(at, at + 8192));
  return btoa(text);
}

/** @param {Uint8Array} a @param {Uint8Array} b @returns {boolean} */
export function equal(a, b) {
  return a.length === b.length && a.every((byte, at) => byte === b[at]);
}

/** @param {Uint8Array} data big-endian @returns {bigint} */
export function toBigInt(data) {
  return data.length === 0 ? 0n : BigInt(`0x${toHex(data)}`);
}

/** @param {number | bigint} value @returns {Uint8Array} eight bytes, big-endian */
export function uint64(value) {
  return fromHex(BigInt(value).toString(16).padStart(16, "0"));
}

/** @param {Uint8Array} data @returns {Promise<Uint8Array>} */
export async function sha256(data) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data));
}

/** @param {Uint8Array} data @returns {Promise<Uint8Array>} */
export async function sha512(data) {
  return new Uint8Array(await crypto.subtle.digest("SHA-512", data));
}

/** @param {Uint8Array} key not empty @param {Uint8Array} data @returns {Promise<Uint8Array>} */
export async function hmacSha256(key, data) {
  const made = await crypto.subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return new Uint8Array(await crypto.subtle.sign("HMAC", made, data));
}
