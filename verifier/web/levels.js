/**
 * Judges how strong a verified proof is: each level is established, only claimed by the file, or absent.
 *
 * `verify.js` asks here after the head, the path and the leaf hold. What a level is checked with comes from the auditor,
 * never from the proof. A level that the file claims and that fails the check refuses the whole proof; one that nothing
 * was given to check stays a claim, and its `detail` says what to give.
 */

import * as acknowledgement from "./acknowledgement.js";
import { equal, toHex, utf8 } from "./bytes.js";
import { ACKNOWLEDGED, ANCHORED, CLAIMED, LEVELS, WITNESSED } from "./claims.js";
import { AcknowledgementError, AnchorError, QuorumError, UnsupportedProofError } from "./errors.js";
import { ATTEMPT } from "./leaf.js";
import * as ots from "./ots.js";
import * as strict from "./strict.js";

export const ESTABLISHED = "established";
export const UNCHECKED = "unchecked";
export const ABSENT = "absent";

/**
 * @typedef {{name: string, state: string, detail: string, facts: Record<string, unknown>}} Level what became of it, and
 *   why, in a sentence; `facts` are the details for programs
 */

/** @param {string} name @param {string} state @param {string} detail @param {Record<string, unknown>} facts @returns {Level} */
function level(name, state, detail, facts = {}) {
  return { name, state, detail, facts };
}

/** @param {import("./policy.js").Policy | null} policy @returns {import("./keys.js").TrustedKey[]} its logs' keys */
export function trustedBy(policy) {
  const logs = policy?.logs ?? [];
  return logs.map(({ name, publicKey }) => ({ name, publicKey, notBefore: null, notAfter: null, succession: null }));
}

/** @returns {Level} that of every verified proof */
export function claimed() {
  return level(CLAIMED, ESTABLISHED, "the log's operator recorded this and can no longer change it unseen");
}

/**
 * Holds the cosignatures of a note to the policy; throws what `Policy.judge` does.
 * @param {import("./note.js").Note} note
 * @param {import("./claims.js").CosignatureClaim[]} lines those of the note
 * @param {import("./policy.js").Policy | null} policy
 * @returns {Promise<Level>}
 */
export async function witnessed(note, lines, policy) {
  const names = lines.map((line) => strict.shown(line.name)).join(", ");
  if (policy === null) {
    if (lines.length === 0) return level(WITNESSED, ABSENT, "nobody else has signed the head");
    return level(WITNESSED, UNCHECKED, `lines of ${names}; give a policy with the witnesses that you trust`);
  }
  const judgement = await policy.judge(note);
  if (judgement.witnessedAt === null) {
    const also = lines.length > 0 ? `; there are lines of ${names}` : "";
    return level(WITNESSED, lines.length > 0 ? UNCHECKED : ABSENT, `your policy names no quorum${also}`);
  }
  const signed = judgement.cosignatures;
  const by = signed.map((one) => strict.shown(one.name)).join(", ");
  return level(WITNESSED, ESTABLISHED, `the quorum of your policy has cosigned the head: ${by}`, {
    cosignatures: signed.map((one) => ({ name: one.name, key_id: toHex(one.keyId), timestamp_s: one.timestamp })),
    witnessed_at_s: judgement.witnessedAt,
  });
}

/**
 * Holds the timestamp file of a checkpoint to the block headers given; throws AnchorError, MalformedTimestampError,
 * UnsupportedProofError or TooLargeError.
 * @param {string} checkpoint the signed note
 * @param {Uint8Array | null} file
 * @param {Uint8Array[]} headers
 * @param {bigint} minDifficulty
 * @param {number} datedMs when the head says that it was signed
 * @returns {Promise<Level>}
 */
export async function anchored(checkpoint, file, headers, minDifficulty, datedMs) {
  if (file === null) return level(ANCHORED, ABSENT, "the proof has no timestamp file");
  const timestamp = await ots.ofFile(file, utf8(checkpoint));
  const claims = await ots.blocks(timestamp);
  if (claims.length === 0) {
    const calendars = (await ots.promises(timestamp)).join(", ") || "nobody";
    return level(ANCHORED, ABSENT, `the timestamp is not in a block yet; promised by ${calendars}`);
  }
  const heights = claims.map((claim) => Number(claim.height));
  if (headers.length === 0) {
    const detail = `the timestamp leads to block ${heights.slice(0, 8).join(", ")}; give its header`;
    return level(ANCHORED, UNCHECKED, detail, { heights });
  }
  const anchor = await firstAnchor(timestamp, headers, minDifficulty, datedMs);
  const detail = `the head existed on ${anchor.day}, give or take a day: block ${anchor.height} commits to it`;
  return level(ANCHORED, ESTABLISHED, detail, {
    height: Number(anchor.height), block_hash: anchor.blockHash, day: anchor.day,
  });
}

/**
 * Holds the acknowledgement in a leaf to the destination's keys; throws AcknowledgementError.
 * @param {import("./leaf.js").Leaf} leaf @param {Uint8Array[]} keys 32 bytes each @returns {Promise<Level>}
 */
export async function acknowledged(leaf, keys) {
  if (leaf.get("type") !== ATTEMPT || leaf.get("acknowledgement_key") === null) {
    return level(ACKNOWLEDGED, ABSENT, "the destination has not signed that it got this");
  }
  // The leaf's own key shows that the leaf does not contradict itself, and nothing about who holds that key.
  const found = await acknowledgement.check(leaf);
  const hex = toHex(found.key);
  const facts = { key: hex, created_s: found.created, key_id: found.keyId };
  if (keys.some((key) => equal(key, found.key))) {
    const detail = "the destination's key has signed that it got exactly this body and answered exactly this";
    return level(ACKNOWLEDGED, ESTABLISHED, detail, facts);
  }
  if (keys.length > 0) throw new AcknowledgementError(`the acknowledgement is by ${hex}, which is no key that you gave`);
  const detail = `signed with the key ${hex}; give the destination's key to see whether that is it`;
  return level(ACKNOWLEDGED, UNCHECKED, detail, facts);
}

const REFUSALS = { [WITNESSED]: QuorumError, [ANCHORED]: AnchorError, [ACKNOWLEDGED]: AcknowledgementError };

/**
 * Throws QuorumError, AnchorError or AcknowledgementError unless every required level is established, and
 * UnsupportedProofError for a level that nobody knows: a mistyped demand must not be met by silence.
 * @param {Level[]} levels @param {string[]} required
 */
export function demand(levels, required) {
  const unknown = required.find((name) => !LEVELS.includes(name));
  if (unknown !== undefined) throw new UnsupportedProofError(`no level is called ${strict.shown(unknown)}`);
  for (const { name, state, detail } of levels) {
    if (required.includes(name) && state !== ESTABLISHED) {
      throw new REFUSALS[name](`the proof is not ${name}: ${detail}`);
    }
  }
}

/** @param {Level[]} levels @returns {string} the strongest that is established */
export function strongest(levels) {
  return LEVELS.findLast((name) => levels.some((one) => one.name === name && one.state === ESTABLISHED));
}

/** @param {ots.Timestamp} timestamp @param {Uint8Array[]} headers @param {bigint} minDifficulty @param {number} datedMs */
async function firstAnchor(timestamp, headers, minDifficulty, datedMs) {
  const refusals = [];
  for (const header of headers) {
    try {
      return await ots.check(timestamp, header, datedMs, minDifficulty);
    } catch (error) {
      if (!(error instanceof AnchorError)) throw error;
      refusals.push(error);
    }
  }
  throw refusals[0];
}
