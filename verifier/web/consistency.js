/** The consistency proof as a file: that a tree of one size is the beginning of a tree of another. */

import { MalformedProofError, TooLargeError } from "./errors.js";
import { HASH_SIZE } from "./merkle.js";
import * as strict from "./strict.js";

export const MAX_CONSISTENCY_SIZE = 65536; // bytes
const MAX_NODES = 54; // hashes: one more than the longest inclusion proof has

/** @typedef {{origin: string, oldSize: number, newSize: number, path: Uint8Array[]}} ConsistencyProof */

/**
 * Reads the file strictly; throws MalformedProofError or TooLargeError.
 * @param {Uint8Array} data @returns {ConsistencyProof}
 */
export function parseConsistency(data) {
  const [what, Refusal] = ["the consistency proof", MalformedProofError];
  if (data.length > MAX_CONSISTENCY_SIZE) throw new TooLargeError(what, MAX_CONSISTENCY_SIZE);
  const value = strict.jsonObject(data, what, Refusal);
  strict.members(value, ["origin", "old_size", "new_size", "proof"], what, Refusal);
  const nodes = value.get("proof");
  if (!Array.isArray(nodes) || nodes.length > MAX_NODES) {
    throw new Refusal(`the hashes of ${what} are not a list of at most ${MAX_NODES}`);
  }
  return {
    origin: strict.string(value.get("origin"), `the origin of ${what}`, Refusal),
    oldSize: strict.integer(value.get("old_size"), `the old_size of ${what}`, Refusal),
    newSize: strict.integer(value.get("new_size"), `the new_size of ${what}`, Refusal),
    path: nodes.map((node, number) => strict.hexadecimal(node, HASH_SIZE, `proof[${number}] of ${what}`, Refusal)),
  };
}
