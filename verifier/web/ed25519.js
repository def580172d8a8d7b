/**
 * Ed25519 in the one profile that counts (docs/proof-format.md): what libsodium's crypto_sign_verify_detached accepts.
 *
 * Browsers need not agree with it, or with each other, on keys and signatures that somebody crafted, and some do not have
 * the algorithm at all. So the arithmetic is here, in BigInts: nothing in it is secret, so it may take what time it takes.
 * Where the browser has Ed25519 too it must not contradict: its answer is asked for last and can only refuse, so that a
 * mistake of this file alone lets no forgery through.
 */

import { concat, equal, sha512 } from "./bytes.js";
import { MalformedKeyError, SignatureError } from "./errors.js";

export const SIGNATURE_SIZE = 64;

const P = 2n ** 255n - 19n;
const ORDER = 2n ** 252n + 27742317777372353535851937790883648493n;
const D = 37095705934669439343138083508754565189542113879843219016388785533085940283555n;
const SQRT_OF_MINUS_ONE = 19681161376707505956807079304988542015446066515923890162744021073123829784752n;
const BASE = decode(fromLittleEndian(Uint8Array.from({ length: 32 }, (_, at) => (at === 0 ? 0x58 : 0x66))));

/** @typedef {{x: bigint, y: bigint, z: bigint, t: bigint}} Point extended coordinates: x/z, y/z, and t = xy/z */

/**
 * Checks a signature; throws SignatureError with a message that begins with `what`, or MalformedKeyError.
 * @param {Uint8Array} publicKey
 * @param {Uint8Array} message
 * @param {Uint8Array} signature
 * @param {string} what
 */
export async function verify(publicKey, message, signature, what) {
  if (publicKey.length !== 32) {
    throw new MalformedKeyError(`an Ed25519 public key has 32 bytes, this one has ${publicKey.length}`);
  }
  if (signature.length !== SIGNATURE_SIZE) throw new SignatureError(`${what} does not have ${SIGNATURE_SIZE} bytes`);
  if (!(await holds(publicKey, message, signature))) throw new SignatureError(`${what} is wrong`);
  if ((await browserSays(publicKey, message, signature)) === false) {
    throw new SignatureError(`${what} is refused by the cryptography of this browser`);
  }
}

/**
 * Applies the profile's four rules, in its order.
 * @param {Uint8Array} publicKey 32 bytes @param {Uint8Array} message @param {Uint8Array} signature 64 bytes
 * @returns {Promise<boolean>}
 */
export async function holds(publicKey, message, signature) {
  const [r, s] = [signature.subarray(0, 32), fromLittleEndian(signature.subarray(32))];
  if (s >= ORDER) return false;
  const key = decode(fromLittleEndian(publicKey));
  if (key === null || (fromLittleEndian(publicKey) & (2n ** 255n - 1n)) >= P || isSmallOrder(key)) return false;
  const commitment = decode(fromLittleEndian(r));
  if (commitment === null || isSmallOrder(commitment)) return false;
  const h = fromLittleEndian(await sha512(concat(r, publicKey, message))) % ORDER;
  return equal(encode(combine(s, BASE, h, negate(key))), r);
}

/**
 * @param {Uint8Array} publicKey @param {Uint8Array} message @param {Uint8Array} signature
 * @returns {Promise<boolean | null>} the browser's own verdict; null if it has no Ed25519
 */
export async function browserSays(publicKey, message, signature) {
  let key;
  try {
    key = await crypto.subtle.importKey("raw", publicKey, "Ed25519", false, ["verify"]);
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotSupportedError") return null;
    return false;
  }
  return crypto.subtle.verify("Ed25519", key, signature, message);
}

/** @param {Uint8Array} data @returns {bigint} */
function fromLittleEndian(data) {
  return data.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

/** @param {bigint} value @returns {bigint} from 0 to P - 1 */
function reduce(value) {
  const rest = value % P;
  return rest < 0n ? rest + P : rest;
}

/** @param {bigint} base @param {bigint} exponent @returns {bigint} */
function power(base, exponent) {
  let result = 1n;
  for (let square = base; exponent > 0n; exponent >>= 1n, square = (square * square) % P) {
    if (exponent & 1n) result = (result * square) % P;
  }
  return result;
}

/**
 * Decodes a point (RFC 8032 5.1.3), taking y modulo P: whether it had to be reduced is asked elsewhere.
 * @param {bigint} encoded 256 bits
 * @returns {Point | null} null if it is not on the curve
 */
function decode(encoded) {
  const y = reduce(encoded & (2n ** 255n - 1n));
  const [u, v] = [reduce(y * y - 1n), reduce(D * y * y + 1n)];
  let x = (u * v ** 3n * power((u * v ** 7n) % P, (P - 5n) / 8n)) % P;
  if (reduce(v * x * x) !== u) x = (x * SQRT_OF_MINUS_ONE) % P;
  if (reduce(v * x * x) !== u) return null;
  if ((x & 1n) !== encoded >> 255n) x = reduce(-x);
  return { x, y, z: 1n, t: (x * y) % P };
}

/** @param {Point} point @returns {Uint8Array} the canonical 32 bytes */
function encode(point) {
  const inverse = power(reduce(point.z), P - 2n);
  const [x, y] = [reduce(point.x * inverse), reduce(point.y * inverse)];
  let value = y | ((x & 1n) << 255n);
  return Uint8Array.from({ length: 32 }, () => {
    const byte = Number(value & 255n);
    value >>= 8n;
    return byte;
  });
}

/** @param {Point} point @returns {boolean} whether eight times the point is the neutral element */
function isSmallOrder(point) {
  const eightfold = double(double(double(point)));
  return reduce(eightfold.x) === 0n && reduce(eightfold.y - eightfold.z) === 0n;
}

/** @param {Point} point @returns {Point} */
function negate(point) {
  return { x: -point.x, y: point.y, z: point.z, t: -point.t };
}

/** @param {Point} a @param {Point} b @returns {Point} the sum: one formula for all points of this curve (RFC 8032 5.1.4) */
function add(a, b) {
  const m = ((a.y - a.x) * (b.y - b.x)) % P;
  const n = ((a.y + a.x) * (b.y + b.x)) % P;
  const c = ((2n * a.t * b.t) % P * D) % P;
  const d = (2n * a.z * b.z) % P;
  return fromParts(n - m, d - c, d + c, n + m);
}

/** @param {Point} point @returns {Point} */
function double(point) {
  const [a, b] = [(point.x * point.x) % P, (point.y * point.y) % P];
  const sum = point.x + point.y;
  const [g, h] = [a - b, a + b];
  return fromParts(h - ((sum * sum) % P), 2n * point.z * point.z + g, g, h);
}

/** @param {bigint} e @param {bigint} f @param {bigint} g @param {bigint} h @returns {Point} */
function fromParts(e, f, g, h) {
  return { x: (e * f) % P, y: (g * h) % P, z: (f * g) % P, t: (e * h) % P };
}

/**
 * Returns m·a + n·b, both at once bit by bit.
 * @param {bigint} m @param {Point} a @param {bigint} n @param {Point} b @returns {Point}
 */
function combine(m, a, n, b) {
  const both = add(a, b);
  let sum = { x: 0n, y: 1n, z: 1n, t: 0n };
  for (let bit = 255n; bit >= 0n; bit -= 1n) {
    sum = double(sum);
    const [first, second] = [(m >> bit) & 1n, (n >> bit) & 1n];
    if (first && second) sum = add(sum, both);
    else if (first) sum = add(sum, a);
    else if (second) sum = add(sum, b);
  }
  return sum;
}
