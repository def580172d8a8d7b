/** Says for people, and for programs, what a proof has proven, in the words of `kapsel-verify`. It judges nothing. */

import { toHex } from "./bytes.js";
import { ACKNOWLEDGED, ANCHORED, CLAIMED, WITNESSED } from "./claims.js";
import { ATTEMPT } from "./leaf.js";
import { ESTABLISHED } from "./levels.js";
import * as strict from "./strict.js";

const LAST_MS = 253402300799999; // the last millisecond of the year 9999

/** @typedef {import("./verify.js").Verified} Verified */

/** What the strongest level that is established means. */
export const MEANINGS = {
  [CLAIMED]: "The log's operator recorded this and can no longer change it unseen. Nobody else has confirmed it to you.",
  [WITNESSED]: "The log's operator recorded this, and the witnesses of your policy have seen the same log.",
  [ANCHORED]: "The log's operator recorded this, and a block of Bitcoin says by which day.",
  [ACKNOWLEDGED]: "The log's operator recorded this, and the destination has itself signed that it got it.",
};

/** @param {number} timestampMs milliseconds since 1970-01-01 UTC @returns {string} */
export function instant(timestampMs) {
  if (timestampMs > LAST_MS) return `${timestampMs} ms since 1970`; // nothing keeps a leaf from claiming such a time
  return `${new Date(timestampMs).toISOString().slice(0, -1).replace("T", " ")} UTC`;
}

/** @param {Verified} verified @returns {[string, string][]} label and text */
export function facts(verified) {
  const { head, known } = verified;
  const rows = [
    ...subject(verified),
    ["Log", head.checkpoint.origin],
    ["Place", `leaf ${verified.leafIndex} in a tree of ${head.checkpoint.treeSize}`],
    ["Root", toHex(head.checkpoint.rootHash)],
    ["Signed at", `${instant(head.sth.timestamp_ms)} with key ${toHex(head.key.keyId)}`],
  ];
  if (known !== null) {
    rows.push(["Head", `agrees with the one of ${known.treeSize} leaves that you hold: one extends the other`]);
  }
  return rows.map(([label, text]) => [label, strict.shown(text)]);
}

/** @param {Verified} verified @returns {string[]} what is left open, each to be read after "not proven is" */
export function notProven({ levels }) {
  const isOpen = (name) => levels.some((level) => level.name === name && level.state !== ESTABLISHED);
  const missing = ["that there were no other attempts, or that what was recorded is true"];
  if (isOpen(WITNESSED)) missing.push("that the log shows everybody the same tree: that is what witnesses are for");
  if (isOpen(ANCHORED)) missing.push("when it was, other than by the clocks of those who signed");
  if (isOpen(ACKNOWLEDGED)) missing.push("that the destination got anything: only its own signature says so");
  return missing;
}

/** @param {Verified} verified @param {string} assurance @returns {object} as `kapsel-verify --json` prints it */
export function verifiedJson(verified, assurance) {
  const { head, known } = verified;
  return {
    verified: true,
    assurance,
    levels: Object.fromEntries(
      verified.levels.map(({ name, state, detail, facts: found }) => [name, { state, detail, ...found }]),
    ),
    origin: head.checkpoint.origin,
    key: head.key.encode(),
    tree_size: head.checkpoint.treeSize,
    root_hash: toHex(head.checkpoint.rootHash),
    head_timestamp_ms: head.sth.timestamp_ms,
    leaf_index: verified.leafIndex,
    leaf_hash: toHex(verified.leafHash),
    known_tree_size: known === null ? null : known.treeSize,
    payload_matched: verified.payloadMatched,
    event_matched: verified.eventMatched,
    commitment_matched: verified.commitmentMatched,
    leaf: Object.fromEntries(verified.leaf),
    ed25519: "JavaScript",
  };
}

/** @param {import("./errors.js").VerificationError} refusal @returns {object} as `kapsel-verify --json` prints it */
export function refusalJson({ className, exitCode, message, meaning }) {
  return { verified: false, error: className, exit_code: exitCode, message, meaning };
}

/** @param {Verified} verified @returns {[string, string][]} */
function subject(verified) {
  const { leaf } = verified;
  if (leaf.get("type") !== ATTEMPT) {
    return [["Statement", leaf.get("type")], ...Array.from(leaf, ([name, value]) => [name, String(value)])];
  }
  const read = (name) => leaf.get(name);
  const status = read("response_status") === null ? "no response" : `status ${read("response_status")}`;
  const reason = read("reason") === "" ? "" : ` (${read("reason")})`;
  return [
    ["Attempt", `${read("delivery_attempt_id")} (try ${read("attempt")} of delivery ${read("delivery_id")})`],
    ["Event", read("event_id")],
    ["From", `endpoint ${read("endpoint")}, its record number ${read("endpoint_sequence")}`],
    ["To", `destination ${read("destination")}, ${read("endpoint_url")}`],
    ["Tried at", instant(read("timestamp"))],
    ["Outcome", `${read("outcome")}, ${status}${reason}`],
    ["Payload", `SHA-256 ${read("payload_hash")}, ${payload(verified)}`],
    ...(leaf.has("sent_hash") ? [["Sent", `SHA-256 ${read("sent_hash")}, ${sent(verified)}`]] : []),
  ];
}

/** @param {Verified} verified @returns {string} */
function payload({ payloadMatched, eventMatched, commitmentMatched }) {
  if (commitmentMatched) return "the body given matches, and opens the commitment";
  if (eventMatched) return "the body given matches";
  return payloadMatched ? "the body given is another: what was sent" : "no body was given to compare";
}

/** @param {Verified} verified @returns {string} */
function sent({ payloadMatched, eventMatched }) {
  if (payloadMatched) return "made of it by a transform: the body given matches";
  return `made of it by a transform${eventMatched ? "; the body given is another: what came" : ""}`;
}
