/**
 * The proof as other transparency-log tools read it: C2SP tlog-proof v1, extension `.tlog-proof`.
 *
 * Its `extra` line has the leaf and, behind a newline, which no leaf has, the timestamp file, if there is one.
 */

import { fromUtf8, utf8 } from "./bytes.js";
import { MalformedProofError, TooLargeError } from "./errors.js";
import { MAX_LEAF_SIZE } from "./leaf.js";
import { HASH_SIZE } from "./merkle.js";
import { MAX_PATH, MAX_PROOF_SIZE } from "./proof.js";
import * as strict from "./strict.js";

const HEADER = "c2sp.org/tlog-proof@v1";

/** @param {Uint8Array} data @returns {boolean} whether a file begins as a `.tlog-proof` does */
export function isTlogProof(data) {
  return utf8(HEADER).every((byte, at) => data[at] === byte);
}

/**
 * Reads the file strictly; throws MalformedProofError or TooLargeError.
 * @param {Uint8Array} data
 * @returns {{leaf: Uint8Array, leafIndex: number, path: Uint8Array[], checkpoint: string, ots: Uint8Array | null}}
 */
export function parseTlogProof(data) {
  if (data.length > MAX_PROOF_SIZE) throw new TooLargeError("the proof", MAX_PROOF_SIZE);
  const whole = fromUtf8(data);
  if (whole === null) throw new MalformedProofError("the proof is not UTF-8");
  const separator = whole.indexOf("\n\n");
  const lines = whole.slice(0, Math.max(separator, 0)).split("\n");
  if (separator < 0 || lines[0] !== HEADER) {
    throw new MalformedProofError(`the file is not a ${HEADER} with a checkpoint`);
  }
  if (lines.length < 3 || lines.length > 3 + MAX_PATH) {
    throw new MalformedProofError("the proof lacks its extra or index line, or has too many hashes");
  }
  const extra = strict.base64(after("extra ", lines[1]), "the extra line of the proof", MalformedProofError);
  const newline = extra.indexOf(0x0a);
  const leaf = newline < 0 ? extra : extra.slice(0, newline);
  if (leaf.length > MAX_LEAF_SIZE) throw new TooLargeError("the leaf", MAX_LEAF_SIZE);
  return {
    leaf,
    leafIndex: strict.decimal(after("index ", lines[2]), "the index of the proof", MalformedProofError),
    path: lines.slice(3).map((line, number) => hash(line, number + 4)),
    checkpoint: whole.slice(separator + 2),
    ots: newline < 0 ? null : extra.slice(newline + 1),
  };
}

/** @param {string} prefix @param {string} line @returns {string} */
function after(prefix, line) {
  if (!line.startsWith(prefix)) {
    throw new MalformedProofError(`a line of the proof does not begin with ${prefix.trim()}`);
  }
  return line.slice(prefix.length);
}

/** @param {string} line @param {number} number @returns {Uint8Array} */
function hash(line, number) {
  const what = `the hash in line ${number} of the proof`;
  const node = strict.base64(line, what, MalformedProofError);
  if (node.length !== HASH_SIZE) throw new MalformedProofError(`${what} does not have ${HASH_SIZE} bytes`);
  return node;
}
