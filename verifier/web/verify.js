/**
 * Judges a proof: the rules of kapsel_verifier/verify.py, all of them, in the order in which they are applied there.
 *
 * `judge.js` calls `verifyProof`; files, the clock and the choice of keys are its caller's. Nothing of an unverified note
 * is acted upon except to pick the keys that could have signed it. Each rule is a step, so that a refusal shows how far
 * the proof got.
 */

import { equal, fromHex, hmacSha256, sha256 } from "./bytes.js";
import * as claims from "./claims.js";
import { ExpectationError, HeadMismatchError, PayloadMismatchError } from "./errors.js";
import * as heads from "./heads.js";
import { ATTEMPT, SUCCESSION, parseLeaf, sentHash, verifySuccession } from "./leaf.js";
import * as levels from "./levels.js";
import { leafHash, verifyInclusion } from "./merkle.js";
import { parseNote } from "./note.js";
import * as strict from "./strict.js";
import { instant } from "./words.js";

/** @typedef {import("./steps.js").Steps} Steps */
/**
 * @typedef {{leaf: Uint8Array, leafIndex: number, path: Uint8Array[], checkpoint: string, ots: Uint8Array | null}
 *   & Partial<import("./proof.js").Proof>} AnyProof a `.tlog-proof` lacks the members that repeat others
 */
/**
 * @typedef {{
 *   keys: import("./keys.js").TrustedKey[], policy: import("./policy.js").Policy | null,
 *   headers: Uint8Array[], minDifficulty: bigint, destinationKeys: Uint8Array[], require: string[],
 *   known: heads.KnownHead | null, body: Uint8Array | null, salt: Uint8Array | null, expected: Map<string, string>,
 *   nowMs: number | null, maxAgeMs: number | null,
 * }} Given what the auditor checks the proof with; null or empty where nothing was given
 */
/**
 * @typedef {{
 *   levels: levels.Level[], head: heads.Head, leaf: import("./leaf.js").Leaf, leafHash: Uint8Array, leafIndex: number,
 *   known: import("./note.js").Checkpoint | null, payloadMatched: boolean, eventMatched: boolean, commitmentMatched: boolean,
 * }} Verified what a proof has proven
 */

/** What each step checks, in the order in which they are taken. */
export const TITLES = {
  file: "The file has the form of a proof",
  note: "Its checkpoint is a signed note",
  signature: "A key that you trust has signed both forms of the head",
  date: "The head is dated when that key was valid, and not in the future",
  sth: "The head in the file is the head that was signed",
  inclusion: "The record is in the log that was signed, at its place",
  leaf: "The record can be read in one way only",
  claims: "The file is no stronger than it says, and no weaker",
  levels: "What goes beyond the operator's word holds, as far as it could be checked",
  known: "The head that you kept and this one are of one history",
  body: "The body that you have is the one that was sent",
  expected: "The record says what you expect",
};

/**
 * Applies every rule and returns what is proven; throws a child of VerificationError otherwise. The logs of a policy are
 * trusted as `keys` are.
 * @param {AnyProof} proof @param {Given} given @param {Steps} steps @returns {Promise<Verified>}
 */
export async function verifyProof(proof, given, steps) {
  const trusted = [...given.keys, ...levels.trustedBy(given.policy)];
  const note = await steps.take("note", async (say) => {
    const parsed = parseNote(proof.checkpoint);
    say(`${strict.shown(parsed.text.split("\n", 1)[0])}, ${counted(parsed.signatures.length, "signature line")}`);
    return parsed;
  });
  const head = await verifiedHead(note, proof, trusted, given, steps);
  const digest = await steps.take("inclusion", async (say) => {
    const { treeSize, rootHash } = head.checkpoint;
    const hash = await leafHash(proof.leaf);
    await verifyInclusion(proof.leafIndex, treeSize, hash, proof.path, rootHash);
    say(`leaf ${proof.leafIndex} in a tree of ${treeSize}; ${counted(proof.path.length, "hash", "hashes")} lead to its root`);
    return hash;
  });
  const leaf = await steps.take("leaf", async (say) => {
    const read = await parseLeaf(proof.leaf);
    if (read.get("type") === SUCCESSION) await verifySuccession(read);
    say(`${read.get("type")}, ${proof.leaf.length} bytes`);
    return read;
  });
  const judged = await judgedLevels(note, leaf, head, proof, given, steps);
  const known = given.known === null ? null : await steps.take("known", async (say) => {
    const old = await heads.checkKnown(head, given.known, trusted);
    say(`${old.treeSize} leaves in the one, ${head.checkpoint.treeSize} in the other`);
    return old;
  });
  const matched = given.body === null
    ? { payloadMatched: false, eventMatched: false }
    : await steps.take("body", (say) => checkBody(leaf, given.body, given.salt, say));
  if (given.expected.size > 0) await steps.take("expected", (say) => checkExpected(leaf, given.expected, say));
  return {
    levels: judged, head, leaf, leafHash: digest, leafIndex: proof.leafIndex, known,
    ...matched, commitmentMatched: given.body !== null && given.salt !== null,
  };
}

/**
 * @param {import("./note.js").Note} note @param {AnyProof} proof @param {import("./keys.js").TrustedKey[]} trusted
 * @param {Given} given @param {Steps} steps @returns {Promise<heads.Head>}
 */
async function verifiedHead(note, proof, trusted, given, steps) {
  const signed = await steps.take("signature", async (say) => {
    const found = await heads.signedHeads(note, trusted);
    say(found.map(({ key }) => key.encode()).join(", "));
    return found;
  });
  const valid = await steps.take("date", async (say) => {
    const found = heads.validHeads(signed, trusted);
    for (const head of found) heads.checkDate(head, given.nowMs, given.maxAgeMs);
    say(instant(found[0].sth.timestamp_ms));
    return found;
  });
  if (proof.sth === undefined) return valid[0];
  return steps.take("sth", async (say) => {
    say("size, root, date, key and signature are the same");
    return heads.matching(valid, proof.sth, note);
  });
}

/**
 * @param {import("./note.js").Note} note @param {import("./leaf.js").Leaf} leaf @param {heads.Head} head
 * @param {AnyProof} proof @param {Given} given @param {Steps} steps @returns {Promise<levels.Level[]>}
 */
async function judgedLevels(note, leaf, head, proof, given, steps) {
  const lines = claims.cosignaturesIn(note);
  if (proof.assurance !== undefined) {
    await steps.take("claims", async (say) => {
      await checkClaims(proof, lines, claims.acknowledgementIn(leaf));
      say(`it calls itself ${proof.assurance}`);
    });
  }
  return steps.take("levels", async (say) => {
    const dated = head.sth.timestamp_ms;
    const all = [
      levels.claimed(),
      await levels.witnessed(note, lines, given.policy),
      await levels.anchored(proof.checkpoint, proof.ots, given.headers, given.minDifficulty, dated),
      await levels.acknowledged(leaf, given.destinationKeys),
    ];
    levels.demand(all, given.require);
    say(`established: ${all.filter(({ state }) => state === levels.ESTABLISHED).map(({ name }) => name).join(", ")}`);
    return all;
  });
}

/** @param {AnyProof} proof @param {claims.CosignatureClaim[]} lines @param {claims.AcknowledgementClaim | null} claim */
async function checkClaims(proof, lines, claim) {
  if (proof.cosignatures.length !== lines.length || !lines.every((line, at) => alike(line, proof.cosignatures[at]))) {
    throw new HeadMismatchError("the cosignatures of the proof are not those of its checkpoint");
  }
  if ((proof.acknowledgement === null) !== (claim === null) || (claim !== null && !alike(claim, proof.acknowledgement))) {
    throw new HeadMismatchError("the acknowledgement of the proof is not that of its leaf");
  }
  const strongest = await claims.strongest(lines, proof.ots, claim);
  if (proof.assurance !== strongest) {
    throw new HeadMismatchError(`the proof claims to be ${proof.assurance}, and what it holds comes to ${strongest}`);
  }
}

/** @param {object} a @param {object} b of the same form @returns {boolean} */
function alike(a, b) {
  return Object.keys(a).every((name) => strict.same(a[name], b[name]));
}

/**
 * @param {import("./leaf.js").Leaf} leaf @param {Uint8Array} body @param {Uint8Array | null} salt
 * @param {(detail: string) => void} say
 * @returns {Promise<{payloadMatched: boolean, eventMatched: boolean}>}
 */
async function checkBody(leaf, body, salt, say) {
  if (leaf.get("type") !== ATTEMPT) throw new PayloadMismatchError("the leaf is no attempt, and nothing was sent");
  const hash = await sha256(body);
  const [eventMatched, payloadMatched] = [leaf.get("payload_hash"), sentHash(leaf)].map(
    (known) => equal(hash, fromHex(known)),
  );
  if (!eventMatched && !payloadMatched) {
    throw new PayloadMismatchError("the body does not have the hash in the leaf");
  }
  say(`${counted(body.length, "byte")} with the hash in the record`);
  if (salt === null) return { payloadMatched, eventMatched };
  const commitment = leaf.get("payload_commitment");
  if (commitment === null) throw new PayloadMismatchError("a salt was given and the leaf has no commitment");
  if (!equal(await hmacSha256(salt, body), fromHex(commitment))) {
    throw new PayloadMismatchError("the body and the salt do not open the commitment in the leaf");
  }
  say(`${counted(body.length, "byte")} with the hash in the record; with the salt they open the commitment`);
  return { payloadMatched, eventMatched };
}

/**
 * @param {import("./leaf.js").Leaf} leaf @param {Map<string, string>} expected @param {(detail: string) => void} say
 */
async function checkExpected(leaf, expected, say) {
  for (const [name, value] of expected) {
    if (!leaf.has(name)) throw new ExpectationError(`the leaf has no member ${strict.shown(name)}`);
    const actual = String(leaf.get(name));
    if (actual !== value) throw new ExpectationError(`${name} is ${actual}, not ${strict.shown(value)}`);
  }
  say([...expected].map(([name, value]) => `${name} is ${value}`).join(", "));
}

/** @param {number} count @param {string} one @param {string} many @returns {string} */
function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}
