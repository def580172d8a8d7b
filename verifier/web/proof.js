/**
 * The proof file, proof.json: all that is needed to check one leaf offline, save the trusted keys.
 *
 * Parsing checks the form and nothing else; every value is a claim until `verify.js` has judged it. A proof never brings
 * its own key: a file with one is refused by name.
 */

import { LEVELS } from "./claims.js";
import { EmbeddedKeyError, MalformedProofError, TooLargeError, UnsupportedProofError } from "./errors.js";
import { MAX_LEAF_SIZE } from "./leaf.js";
import { HASH_SIZE } from "./merkle.js";
import { MAX_SIGNATURES } from "./note.js";
import { fromJson } from "./sth.js";
import * as strict from "./strict.js";

export const MAX_PROOF_SIZE = 1048576; // bytes
export const MAX_PATH = 53; // hashes: no tree has more than 2^53 - 1 leaves
const PROOF_TYPE = "kapsel.proof-of-delivery";
const MEMBERS = [
  "type", "version", "assurance", "leaf_index", "leaf_b64", "inclusion_proof", "sth", "checkpoint", "cosignatures",
  "ots", "acknowledgement",
];
const KEY_NAMES = new Set([
  "public_key", "publickey", "pubkey", "key", "keys", "vkey", "vkeys", "jwk", "jwks", "certificate", "x5c", "x509",
]);

/** @typedef {import("./json.js").Json | undefined} Value */
/**
 * @typedef {{
 *   leaf: Uint8Array, leafIndex: number, path: Uint8Array[], checkpoint: string, ots: Uint8Array | null,
 *   sth: import("./sth.js").TreeHead, cosignatures: import("./claims.js").CosignatureClaim[],
 *   acknowledgement: import("./claims.js").AcknowledgementClaim | null, assurance: string,
 * }} Proof
 */

/**
 * Reads proof.json strictly; throws MalformedProofError, EmbeddedKeyError, UnsupportedProofError or TooLargeError.
 * @param {Uint8Array} data @returns {Proof}
 */
export function parseProof(data) {
  if (data.length > MAX_PROOF_SIZE) throw new TooLargeError("the proof", MAX_PROOF_SIZE);
  const value = strict.jsonObject(data, "the proof", MalformedProofError);
  refuseKeys(value);
  if (value.get("type") !== PROOF_TYPE) {
    throw new MalformedProofError(`the file does not say that it is a ${PROOF_TYPE}`);
  }
  if (value.get("version") !== 1) throw new UnsupportedProofError("the proof is not of version 1");
  if (!LEVELS.includes(value.get("assurance"))) {
    throw new UnsupportedProofError(`the proof claims another assurance than ${LEVELS.join(", ")}`);
  }
  strict.members(value, MEMBERS, "the proof", MalformedProofError);
  return {
    leaf: leafOf(value.get("leaf_b64")),
    leafIndex: strict.integer(value.get("leaf_index"), "the leaf_index of the proof", MalformedProofError),
    path: pathOf(value.get("inclusion_proof")),
    sth: sthOf(value.get("sth")),
    checkpoint: strict.string(value.get("checkpoint"), "the checkpoint of the proof", MalformedProofError),
    cosignatures: cosignaturesOf(value.get("cosignatures")),
    ots: value.get("ots") === null ? null : base64(value.get("ots"), "the ots of the proof"),
    acknowledgement: acknowledgementOf(value.get("acknowledgement")),
    assurance: value.get("assurance"),
  };
}

/** @param {Map<string, Value>} value */
function refuseKeys(value) {
  // The one key that has a place in a proof is the destination's, as the leaf has it, and nobody trusts it for that.
  const parts = [...value].filter(([name]) => name !== "acknowledgement").map(([, part]) => part);
  for (const holder of [value, ...parts, ...parts.filter(Array.isArray).flat()]) {
    for (const name of holder instanceof Map ? holder.keys() : []) {
      if (KEY_NAMES.has(name.toLowerCase())) {
        throw new EmbeddedKeyError(`the proof brings a key, in a member ${strict.shown(name)}`);
      }
    }
  }
}

/** @param {Value} value @returns {Uint8Array} */
function leafOf(value) {
  const leaf = base64(value, "the leaf_b64 of the proof");
  if (leaf.length > MAX_LEAF_SIZE) throw new TooLargeError("the leaf", MAX_LEAF_SIZE);
  return leaf;
}

/** @param {Value} value @param {string} what @returns {Uint8Array} */
function base64(value, what) {
  return strict.base64(strict.string(value, what, MalformedProofError), what, MalformedProofError);
}

/** @param {Value} value @returns {Uint8Array[]} */
function pathOf(value) {
  if (!Array.isArray(value) || value.length > MAX_PATH) {
    throw new MalformedProofError(`the inclusion_proof is not a list of at most ${MAX_PATH} hashes`);
  }
  return value.map((item, number) =>
    strict.hexadecimal(item, HASH_SIZE, `inclusion_proof[${number}]`, MalformedProofError));
}

/** @param {Value} value @returns {import("./sth.js").TreeHead} */
function sthOf(value) {
  if (!(value instanceof Map)) throw new MalformedProofError("the sth of the proof is not an object");
  return fromJson(value);
}

/** @param {Value} value @returns {import("./claims.js").CosignatureClaim[]} */
function cosignaturesOf(value) {
  if (!Array.isArray(value) || value.length > MAX_SIGNATURES) {
    throw new MalformedProofError(`the cosignatures are not a list of at most ${MAX_SIGNATURES}`);
  }
  const Refusal = MalformedProofError;
  return value.map((item, number) => {
    const what = `cosignatures[${number}]`;
    if (!(item instanceof Map)) throw new Refusal(`${what} is not an object`);
    strict.members(item, ["name", "key_id", "timestamp_s"], what, Refusal);
    return {
      name: strict.string(item.get("name"), `the name of ${what}`, Refusal),
      keyId: strict.hexadecimal(item.get("key_id"), 4, `the key_id of ${what}`, Refusal),
      timestamp: strict.integer(item.get("timestamp_s"), `the timestamp_s of ${what}`, Refusal),
    };
  });
}

/** @param {Value} value @returns {import("./claims.js").AcknowledgementClaim | null} */
function acknowledgementOf(value) {
  const [what, Refusal] = ["the acknowledgement of the proof", MalformedProofError];
  if (value === null) return null;
  if (!(value instanceof Map)) throw new Refusal(`${what} is neither null nor an object`);
  strict.members(value, ["base_b64", "key", "signature"], what, Refusal);
  return {
    base: base64(value.get("base_b64"), `the base_b64 of ${what}`),
    key: strict.hexadecimal(value.get("key"), 32, `the key of ${what}`, Refusal),
    signature: strict.hexadecimal(value.get("signature"), 64, `the signature of ${what}`, Refusal),
  };
}
