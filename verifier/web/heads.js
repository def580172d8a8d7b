/**
 * Judges a signed head: whose it is, when it was made, and whether it agrees with another head of the same log.
 *
 * `verify.js` asks here; the rules are those of kapsel_verifier/heads.py.
 */

import { concat, equal, uint64 } from "./bytes.js";
import {
  ConsistencyError, FutureHeadError, HeadMismatchError, KeyValidityError, MalformedNoteError, StaleHeadError,
  UntrustedKeyError,
} from "./errors.js";
import { isTrustedFor, isValidAt } from "./keys.js";
import { verifyConsistency } from "./merkle.js";
import { VerifierKey, checkSignatures, identity, isKeyName, parseCheckpoint, parseNote } from "./note.js";
import { STHVerifier, differences, fromLine } from "./sth.js";
import * as strict from "./strict.js";

export const MAX_SKEW_MS = 300000; // what clocks of servers and auditors are commonly allowed to differ

/** @typedef {import("./keys.js").TrustedKey} TrustedKey */
/** @typedef {{key: VerifierKey, checkpoint: import("./note.js").Checkpoint, sth: import("./sth.js").TreeHead}} Head */
/** @typedef {{checkpoint: string, consistency: import("./consistency.js").ConsistencyProof | null}} KnownHead */

/**
 * Returns one head for each trusted key that signed both forms: more than one while a key is being rotated. Throws
 * UntrustedKeyError, SignatureError, MalformedNoteError or HeadMismatchError.
 * @param {import("./note.js").Note} note @param {TrustedKey[]} trusted @returns {Promise<Head[]>}
 */
export async function signedHeads(note, trusted) {
  const origin = originOf(note);
  const keys = new Map();
  for (const candidate of trusted.filter((one) => isTrustedFor(one, origin))) {
    const key = await VerifierKey.of(origin, candidate.publicKey);
    keys.set(key.encode(), { key, dated: await STHVerifier.of(key) });
  }
  if (keys.size === 0) {
    throw new UntrustedKeyError(`the checkpoint is of the log ${strict.shown(origin)}, for which you trust no key`);
  }
  const pairs = [...keys.values()];
  const checked = await checkSignatures(note, [...pairs.map(({ key }) => key), ...pairs.map(({ dated }) => dated)]);
  // Should a note hold two lines of one kind by one key, the first counts.
  const lines = new Map(checked.toReversed().map((line) => [identity(line), line.signature]));
  const signers = pairs.filter(({ key }) => lines.has(identity(key)));
  if (signers.length === 0) throw new UntrustedKeyError("no trusted key has signed the checkpoint");
  const checkpoint = parseCheckpoint(note.text);
  const heads = [];
  for (const { key, dated } of signers) {
    const line = lines.get(identity(dated));
    if (line !== undefined) heads.push({ key, checkpoint, sth: await fromLine(key, checkpoint, line) });
  }
  if (heads.length === 0) {
    throw new HeadMismatchError("the checkpoint lacks the tree head line of the key that signed it");
  }
  return heads;
}

/** @param {Head[]} heads @param {TrustedKey[]} trusted @returns {Head[]} those by keys valid then; throws KeyValidityError */
export function validHeads(heads, trusted) {
  // One key may be trusted in two ways, say bare and in a key set: it is valid when one of them says so.
  const valid = heads.filter(({ key, sth }) =>
    trusted.some((one) =>
      isTrustedFor(one, key.name) && equal(one.publicKey, key.publicKey) && isValidAt(one, sth.timestamp_ms)));
  if (valid.length === 0) {
    throw new KeyValidityError("the head is dated outside the validity of the key that signed it");
  }
  return valid;
}

/**
 * Throws FutureHeadError or StaleHeadError if the head is too new or too old; without a time it is neither.
 * @param {Head} head @param {number | null} nowMs @param {number | null} maxAgeMs
 */
export function checkDate(head, nowMs, maxAgeMs) {
  if (nowMs === null) return;
  const ahead = head.sth.timestamp_ms - nowMs;
  if (ahead > MAX_SKEW_MS) {
    throw new FutureHeadError(`the head is dated ${Math.floor(ahead / 1000)} s in the future`);
  }
  if (maxAgeMs !== null && -ahead > maxAgeMs) {
    const [age, allowed] = [Math.floor(-ahead / 1000), Math.floor(maxAgeMs / 1000)];
    throw new StaleHeadError(`the head is dated ${age} s ago, you allow ${allowed} s`);
  }
}

/**
 * Returns the head that this small form is of, member by member; throws HeadMismatchError. While a key is being rotated
 * the small form may be by the key that the auditor does not trust (yet, or any more): then it must be a line of the
 * note all the same, and say of the log what the head of a trusted key says.
 * @param {Head[]} heads @param {import("./sth.js").TreeHead} sth @param {import("./note.js").Note} note
 * @returns {Promise<Head>}
 */
export async function matching(heads, sth, note) {
  for (const head of heads) {
    if (differences(head.sth, sth).length === 0) return head;
    if (isByAnother(head, sth) && (await standsIn(note, head, sth))) return head;
  }
  throw new HeadMismatchError(`the sth and the checkpoint differ in ${differences(heads[0].sth, sth).join(", ")}`);
}

/** @param {Head} head @param {import("./sth.js").TreeHead} sth @returns {boolean} */
function isByAnother(head, sth) {
  const differing = differences(head.sth, sth);
  return (
    differing.every((name) => ["log_id", "key_id", "signature"].includes(name)) &&
    differing.includes("log_id") && differing.includes("key_id")
  );
}

/**
 * Says whether the note has the line of this small form, beside those of the head's own key.
 * @param {import("./note.js").Note} note @param {Head} head @param {import("./sth.js").TreeHead} sth
 */
async function standsIn(note, head, sth) {
  const own = [head.key.keyId, (await STHVerifier.of(head.key)).keyId];
  const line = concat(uint64(sth.timestamp_ms), sth.signature);
  const named = note.signatures.filter(({ name }) => name === sth.origin);
  return (
    named.some((one) => equal(one.signature, line) && !own.some((id) => equal(id, one.keyId))) &&
    named.some((one) => equal(one.keyId, sth.key_id))
  );
}

/**
 * Checks that one of two heads of a log extends the other, whichever is the larger, and returns the one known. Throws
 * ConsistencyError, HeadMismatchError, and what the known head itself is refused with.
 * @param {Head} head @param {KnownHead} known @param {TrustedKey[]} trusted
 * @returns {Promise<import("./note.js").Checkpoint>}
 */
export async function checkKnown(head, known, trusted) {
  const old = validHeads(await signedHeads(parseNote(known.checkpoint), trusted), trusted)[0].checkpoint;
  if (old.origin !== head.checkpoint.origin) {
    const [held, proven] = [strict.shown(old.origin), strict.shown(head.checkpoint.origin)];
    throw new HeadMismatchError(`the head that you hold is of the log ${held}, the proof of ${proven}`);
  }
  const ordered = old.treeSize <= head.checkpoint.treeSize ? [old, head.checkpoint] : [head.checkpoint, old];
  const path = pathBetween(ordered[0], ordered[1], known.consistency);
  await verifyConsistency(ordered[0].treeSize, ordered[1].treeSize, path, ordered[0].rootHash, ordered[1].rootHash);
  return old;
}

/** @param {import("./note.js").Note} note @returns {string} its first line, which must be able to name a key */
function originOf(note) {
  const origin = note.text.split("\n", 1)[0];
  if (!isKeyName(origin)) throw new MalformedNoteError("the origin of the checkpoint cannot be the name of a key");
  return origin;
}

/**
 * @param {import("./note.js").Checkpoint} first @param {import("./note.js").Checkpoint} second
 * @param {import("./consistency.js").ConsistencyProof | null} proof @returns {Uint8Array[]}
 */
function pathBetween(first, second, proof) {
  const [older, newer] = [first.treeSize, second.treeSize];
  if (proof === null) {
    if (older > 0 && older < newer) {
      throw new ConsistencyError(`nothing connects the heads of ${older} and ${newer} leaves`);
    }
    return [];
  }
  if (proof.origin !== first.origin) {
    throw new HeadMismatchError(`the consistency proof is of the log ${strict.shown(proof.origin)}`);
  }
  if (proof.oldSize !== older || proof.newSize !== newer) {
    throw new HeadMismatchError(
      `the consistency proof is between ${proof.oldSize} and ${proof.newSize} leaves, the heads have ${older} and ${newer}`,
    );
  }
  return proof.path;
}
