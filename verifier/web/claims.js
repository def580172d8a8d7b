/**
 * What a proof file claims about its own strength: four levels, each with what would have to be shown for it.
 *
 * `proof.js` reads the claims, `verify.js` holds them to the note and the leaf that they repeat. Until then they are
 * words: anybody can write a line that looks like a witness's.
 */

import { fromHex, toBigInt } from "./bytes.js";
import { MalformedLeafError } from "./errors.js";
import { ATTEMPT } from "./leaf.js";
import * as ots from "./ots.js";
import * as strict from "./strict.js";

export const CLAIMED = "claimed"; // in the log, signed by its operator alone
export const WITNESSED = "witnessed"; // others cosigned the head
export const ANCHORED = "anchored"; // a block of Bitcoin commits to the head
export const ACKNOWLEDGED = "acknowledged"; // the destination signed that it got the delivery
export const LEVELS = [CLAIMED, WITNESSED, ANCHORED, ACKNOWLEDGED]; // from the weakest to the strongest

const COSIGNATURE_SIZE = 72; // bytes after the key id: date(8) || signature(64)

/** @typedef {{name: string, keyId: Uint8Array, timestamp: number}} CosignatureClaim seconds since 1970-01-01 UTC */
/** @typedef {{base: Uint8Array, key: Uint8Array, signature: Uint8Array}} AcknowledgementClaim */

/**
 * @param {import("./note.js").Note} note
 * @returns {CosignatureClaim[]} the lines that have the form of a cosignature under a name other than the log's
 */
export function cosignaturesIn(note) {
  const origin = note.text.split("\n", 1)[0];
  return note.signatures
    .filter((line) => line.name !== origin && line.signature.length === COSIGNATURE_SIZE)
    .map(({ name, keyId, signature }) => ({ name, keyId, timestamp: Number(toBigInt(signature.subarray(0, 8))) }))
    .filter((claim) => Number.isSafeInteger(claim.timestamp));
}

/** @param {import("./leaf.js").Leaf} leaf @returns {AcknowledgementClaim | null} */
export function acknowledgementIn(leaf) {
  if (leaf.get("type") !== ATTEMPT || leaf.get("acknowledgement_base") === null) return null;
  return {
    base: strict.base64(leaf.get("acknowledgement_base"), "the leaf's acknowledgement_base", MalformedLeafError),
    key: fromHex(leaf.get("acknowledgement_key")),
    signature: fromHex(leaf.get("acknowledgement_signature")),
  };
}

/**
 * Returns the strongest level that these claims come to; throws MalformedTimestampError, UnsupportedProofError or
 * TooLargeError if `file` is no timestamp file.
 * @param {CosignatureClaim[]} cosignatures @param {Uint8Array | null} file @param {AcknowledgementClaim | null} claim
 * @returns {Promise<string>}
 */
export async function strongest(cosignatures, file, claim) {
  if (claim !== null) return ACKNOWLEDGED;
  if (file !== null && (await ots.blocks(ots.parseTimestamp(file))).length > 0) return ANCHORED;
  return cosignatures.length > 0 ? WITNESSED : CLAIMED;
}
