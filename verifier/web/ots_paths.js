/**
 * The inside of an OpenTimestamps file: paths of steps from a message to somebody's attestation.
 *
 * Read is what other implementations write, in its one spelling: `encode` gives back the bytes that were read. Nothing
 * here says whether an attestation is true. The rules and limits are those of kapsel_verifier/ots_paths.py.
 */

import { concat, equal, fromHex, sha256, toHex, utf8 } from "./bytes.js";
import { MalformedTimestampError, TooLargeError } from "./errors.js";

export const MAX_SIZE = 65536; // bytes
const MAX_MESSAGE = 4096; // bytes, of a message on the way and of what a step adds to it
const MAX_PAYLOAD = 8192; // bytes of one attestation
const MAX_URI = 1000; // characters
const MAX_STEPS = 255; // from the first message to an attestation
const MAX_PATHS = 256;

export const PENDING = "83dfe30d2ef90c8e"; // a calendar's promise
export const BITCOIN = "0588960d73d71901"; // the message is the Merkle root of a block

export const SHA256 = 0x08;
const APPEND = 0xf0;
const PREPEND = 0xf1;
const REVERSE = 0xf2;
const HEXLIFY = 0xf3;
const ATTESTATION = 0x00;
const FORK = 0xff;
const DIGESTS = new Map([[0x02, 20], [0x03, 20], [SHA256, 32], [0x67, 32]]); // sha1, ripemd160, sha256, keccak256

/** @typedef {{tag: number, argument: Uint8Array}} Step what APPEND and PREPEND add, else no bytes */
/** @typedef {{tag: string, payload: Uint8Array}} Attestation the tag in hex; unknown ones are kept, never trusted */
/** @typedef {{steps: Step[], attestation: Attestation}} Path */

/**
 * Reads all that follows a message of `size` bytes; throws MalformedTimestampError or TooLargeError.
 * @param {Uint8Array} data @param {number} size @returns {Path[]}
 */
export function parsePaths(data, size) {
  if (data.length > MAX_SIZE) throw new TooLargeError("the timestamp", MAX_SIZE);
  const reader = new ByteReader(data);
  const paths = readPaths(reader, size);
  if (reader.at !== data.length) throw new MalformedTimestampError("the timestamp has bytes after its end");
  if (!equal(encode(paths), data)) {
    throw new MalformedTimestampError("the timestamp has one step or attestation twice");
  }
  return paths;
}

/**
 * Follows steps from a message.
 * @param {Uint8Array} message @param {Step[]} steps
 * @returns {Promise<Uint8Array | null>} null if they use a hash other than SHA-256, which no path to Bitcoin needs
 */
export async function follow(message, steps) {
  for (const { tag, argument } of steps) {
    if (tag === SHA256) message = await sha256(message);
    else if (tag === APPEND) message = concat(message, argument);
    else if (tag === PREPEND) message = concat(argument, message);
    else if (tag === REVERSE) message = message.toReversed();
    else if (tag === HEXLIFY) message = utf8(toHex(message));
    else return null;
  }
  return message;
}

/** @param {Attestation} attestation of the kind PENDING @returns {string} throws MalformedTimestampError */
export function pendingUri(attestation) {
  const reader = new ByteReader(attestation.payload);
  const uri = String.fromCharCode(...reader.varbytes(MAX_URI));
  if (reader.at !== attestation.payload.length || !/^[A-Za-z0-9\-._/:]*$/.test(uri)) {
    throw new MalformedTimestampError("a calendar's address in the timestamp is not of the form it must have");
  }
  return uri;
}

/** @param {Attestation} attestation of the kind BITCOIN @returns {bigint} throws MalformedTimestampError */
export function blockHeight(attestation) {
  const reader = new ByteReader(attestation.payload);
  const height = reader.varint();
  if (reader.at !== attestation.payload.length) {
    throw new MalformedTimestampError("a block's height in the timestamp is followed by more");
  }
  // A report in JSON could not say it exactly.
  if (height > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new MalformedTimestampError("a block's height in the timestamp is beyond 2^53 - 1");
  }
  return height;
}

/** Takes bytes off the front; reading past the end is refused. */
class ByteReader {
  /** @param {Uint8Array} data */
  constructor(data) {
    this.data = data;
    this.at = 0;
  }

  /** @param {number} size @returns {Uint8Array} */
  take(size) {
    if (this.at + size > this.data.length) throw new MalformedTimestampError("the timestamp ends too early");
    this.at += size;
    return this.data.slice(this.at - size, this.at);
  }

  /** @returns {number} */
  byte() {
    return this.take(1)[0];
  }

  /** @returns {bigint} below 2^63, from LEB128 in its shortest form */
  varint() {
    let [value, shift, byte] = [0n, 0n, this.byte()];
    for (; byte & 0x80; byte = this.byte()) {
      value |= BigInt(byte & 0x7f) << shift;
      shift += 7n;
      if (shift > 56n) throw new MalformedTimestampError("a number in the timestamp is too large");
    }
    if (byte === 0 && shift > 0n) {
      throw new MalformedTimestampError("a number in the timestamp is written longer than it is");
    }
    return value | (BigInt(byte) << shift);
  }

  /** @param {number} limit @returns {Uint8Array} */
  varbytes(limit) {
    const size = this.varint();
    if (size > limit) throw new MalformedTimestampError(`a part of the timestamp is longer than ${limit} bytes`);
    return this.take(Number(size));
  }
}

/**
 * Reads the tree depth first, without recursion: the file says how deep it is.
 * @param {ByteReader} reader @param {number} size @returns {Path[]}
 */
function readPaths(reader, size) {
  const [paths, forks] = [[], []]; // forks are places from which one more branch follows
  let steps = [];
  for (;;) {
    let tag = reader.byte();
    if (tag === FORK) {
      forks.push([steps, size]);
      if (paths.length + forks.length >= MAX_PATHS) {
        throw new MalformedTimestampError(`the timestamp has more than ${MAX_PATHS} paths`);
      }
      tag = reader.byte();
    }
    if (tag === ATTESTATION) {
      paths.push({ steps, attestation: readAttestation(reader) });
      if (forks.length === 0) return paths;
      [steps, size] = forks.pop();
    } else {
      const step = readStep(reader, tag);
      [steps, size] = [[...steps, step], sizeAfter(step, size)];
      if (steps.length > MAX_STEPS) {
        throw new MalformedTimestampError(`a path of the timestamp has more than ${MAX_STEPS} steps`);
      }
    }
  }
}

/** @param {ByteReader} reader @param {number} tag @returns {Step} */
function readStep(reader, tag) {
  if (tag === APPEND || tag === PREPEND) {
    const argument = reader.varbytes(MAX_MESSAGE);
    if (argument.length === 0) throw new MalformedTimestampError("a step of the timestamp adds nothing");
    return { tag, argument };
  }
  if (tag === REVERSE || tag === HEXLIFY || DIGESTS.has(tag)) return { tag, argument: new Uint8Array() };
  throw new MalformedTimestampError(`the timestamp has a step of the unknown kind ${toHex(Uint8Array.of(tag))}`);
}

/** @param {Step} step @param {number} size @returns {number} */
function sizeAfter(step, size) {
  const digest = DIGESTS.get(step.tag);
  if (digest !== undefined) return digest;
  const after = step.tag === HEXLIFY ? 2 * size : size + step.argument.length;
  if (after > MAX_MESSAGE) {
    throw new MalformedTimestampError(`a message of the timestamp is longer than ${MAX_MESSAGE} bytes`);
  }
  return after;
}

/** @param {ByteReader} reader @returns {Attestation} */
function readAttestation(reader) {
  const attestation = { tag: toHex(reader.take(8)), payload: reader.varbytes(MAX_PAYLOAD) };
  if (attestation.tag === PENDING) pendingUri(attestation);
  else if (attestation.tag === BITCOIN) blockHeight(attestation);
  return attestation;
}

/** @param {Path[]} paths @returns {Uint8Array} the bytes that follow the message; steps that paths share are written once */
function encode(paths) {
  return encodeBranches(paths.map(({ steps, attestation }) => [...steps.map(encodeStep), encodeEnd(attestation)]), 0);
}

/** @param {Uint8Array[][]} paths each its encoded parts @param {number} depth @returns {Uint8Array} */
function encodeBranches(paths, depth) {
  const branches = new Map();
  for (const path of paths) {
    const first = toHex(path[depth]);
    branches.set(first, [...(branches.get(first) ?? []), path]);
  }
  const parts = Array.from(branches, ([first, rest]) => {
    const isEnd = rest[0].length === depth + 1;
    return isEnd ? fromHex(first) : concat(fromHex(first), encodeBranches(rest, depth + 1));
  });
  return concat(...parts.slice(0, -1).flatMap((part) => [Uint8Array.of(FORK), part]), parts.at(-1));
}

/** @param {Step} step @returns {Uint8Array} */
function encodeStep({ tag, argument }) {
  return argument.length === 0 ? Uint8Array.of(tag) : concat(Uint8Array.of(tag), varbytes(argument));
}

/** @param {Attestation} attestation @returns {Uint8Array} */
function encodeEnd({ tag, payload }) {
  return concat(Uint8Array.of(ATTESTATION), fromHex(tag), varbytes(payload));
}

/** @param {Uint8Array} data @returns {Uint8Array} */
function varbytes(data) {
  const size = [];
  let rest = data.length;
  for (; rest > 0x7f; rest >>= 7) size.push((rest & 0x7f) | 0x80);
  return concat(Uint8Array.of(...size, rest), data);
}
