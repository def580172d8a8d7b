/**
 * From what an auditor gave, as bytes and text, to a verdict that can be shown: the part of the page that has no page.
 *
 * `page.js` and the tests call it. Only refusals are verdicts; anything else that is thrown is a fault of this program.
 */

import { fromUtf8 } from "./bytes.js";
import { parseConsistency } from "./consistency.js";
import { parseDestinationKeys } from "./destination_keys.js";
import { MalformedNoteError, VerificationError } from "./errors.js";
import { parseKey, parseKeySet } from "./keys.js";
import { strongest } from "./levels.js";
import { MIN_DIFFICULTY, readHeader } from "./ots.js";
import { parsePolicy } from "./policy.js";
import { parseProof } from "./proof.js";
import { Steps } from "./steps.js";
import { follow } from "./successors.js";
import { isTlogProof, parseTlogProof } from "./tlog_proof.js";
import { TITLES, verifyProof } from "./verify.js";

/**
 * @typedef {{
 *   proof: Uint8Array, keys?: string[], keySets?: Uint8Array[], successors?: Uint8Array, policy?: Uint8Array, headers?: Uint8Array[],
 *   minDifficulty?: bigint, destinationKeys?: Uint8Array[], require?: string[], knownCheckpoint?: Uint8Array,
 *   consistency?: Uint8Array, body?: Uint8Array, salt?: Uint8Array, expected?: Map<string, string>, nowMs?: number,
 *   maxAgeMs?: number,
 * }} Raw what was given, each as it was given; left out where nothing was
 */
/**
 * @typedef {{
 *   steps: import("./steps.js").Step[], refusal: VerificationError | null,
 *   verified: import("./verify.js").Verified | null, assurance: string | null,
 * }} Verdict
 */

/** @param {() => Promise<Raw>} collect may itself refuse what was given @returns {Promise<Verdict>} */
export async function judge(collect) {
  const steps = new Steps(TITLES);
  const shown = () => [...steps.all.values()];
  try {
    const raw = await collect();
    const given = await read(raw);
    const proof = await steps.take("file", async (say) => {
      const isTlog = isTlogProof(raw.proof);
      say(`${isTlog ? ".tlog-proof" : "proof.json"}, version 1, ${raw.proof.length} bytes`);
      return isTlog ? parseTlogProof(raw.proof) : parseProof(raw.proof);
    });
    const verified = await verifyProof(proof, given, steps);
    return { steps: shown(), refusal: null, verified, assurance: strongest(verified.levels) };
  } catch (error) {
    if (!(error instanceof VerificationError)) throw error;
    return { steps: shown(), refusal: error, verified: null, assurance: null };
  }
}

/** Reads all but the proof; throws children of VerificationError. @param {Raw} raw */
async function read(raw) {
  const keys = [];
  for (const text of raw.keys ?? []) keys.push(await parseKey(text));
  for (const data of raw.keySets ?? []) keys.push(...(await parseKeySet(data)));
  const offered = raw.successors === undefined ? [] : await parseKeySet(raw.successors);
  return {
    keys: await follow(keys, offered),
    policy: raw.policy === undefined ? null : await parsePolicy(raw.policy),
    headers: (raw.headers ?? []).map(readHeader),
    minDifficulty: raw.minDifficulty ?? MIN_DIFFICULTY,
    destinationKeys: (raw.destinationKeys ?? []).flatMap(parseDestinationKeys),
    require: raw.require ?? [],
    known: raw.knownCheckpoint === undefined ? null : {
      checkpoint: checkpointText(raw.knownCheckpoint),
      consistency: raw.consistency === undefined ? null : parseConsistency(raw.consistency),
    },
    body: raw.body ?? null,
    salt: raw.salt ?? null,
    expected: raw.expected ?? new Map(),
    nowMs: raw.nowMs ?? null,
    maxAgeMs: raw.maxAgeMs ?? null,
  };
}

/** @param {Uint8Array} data @returns {string} */
function checkpointText(data) {
  const text = fromUtf8(data);
  if (text === null) throw new MalformedNoteError("the known checkpoint is not UTF-8");
  return text;
}
