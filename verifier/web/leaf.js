/**
 * The leaf: what the log recorded, as the bytes that are hashed: a delivery attempt, or what a log says about itself.
 *
 * The form is canonical JSON: members in ASCII order, no white space, printable ASCII, integers, null. One leaf has one
 * encoding, so what was read is written again and must give the same bytes.
 */

import { fromHex, fromUtf8 } from "./bytes.js";
import { MalformedKeyError, MalformedLeafError, MalformedNoteError, TooLargeError } from "./errors.js";
import { VerifierKey, isKeyName, parseCheckpoint, parseNote } from "./note.js";
import * as strict from "./strict.js";

export const MAX_LEAF_SIZE = 65535; // bytes
export const ATTEMPT = "kapsel.delivery-attempt";
export const CONTINUATION = "kapsel.log-continuation";
export const SUCCESSION = "kapsel.key-succession";
const VERSION = 1;
const MAX_ACKNOWLEDGEMENT_BASE = 8192; // bytes
const WHERE_TRANSFORMED = "sent_hash"; // the one member that need not be there

/** @typedef {Map<string, string | number | null>} Leaf its members as they stand in the JSON */
/** @typedef {(value: import("./json.js").Json) => boolean} Check */

const PRINTABLE = /^[ -~]*$/;
const orNull = (check) => (value) => value === null || check(value);
const matches = (pattern) => (value) => typeof value === "string" && pattern.test(value);
const text = (least, most) => (value) =>
  typeof value === "string" && PRINTABLE.test(value) && value.length >= least && value.length <= most;
const integer = (least, most) => (value) =>
  typeof value === "number" && Number.isSafeInteger(value) && value >= least && value <= most;
const hex = (size) => matches(new RegExp(`^[0-9a-f]{${2 * size}}$`));
const uuid = matches(/^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/);
const count = integer(0, Number.MAX_SAFE_INTEGER);
const origin = (value) => typeof value === "string" && PRINTABLE.test(value) && isKeyName(value);
const base64 = (least, most) => (value) => {
  const size = strict.base64(strict.string(value, "base64 in the leaf", MalformedLeafError), "base64 in the leaf",
    MalformedLeafError).length;
  return size >= least && size <= most;
};

/** @type {Record<string, Record<string, Check>>} the members of each type of leaf, `type` and `v` aside, in their order */
const SCHEMAS = {
  [ATTEMPT]: {
    acknowledgement_base: orNull(base64(1, MAX_ACKNOWLEDGEMENT_BASE)),
    acknowledgement_key: orNull(hex(32)),
    acknowledgement_signature: orNull(hex(64)),
    attempt: integer(1, Number.MAX_SAFE_INTEGER),
    delivery_attempt_id: uuid,
    delivery_id: uuid,
    destination: text(1, 253),
    endpoint: matches(/^[!-.0-~]{1,253}\/[!-.0-~]{1,253}$/),
    endpoint_id: uuid,
    endpoint_sequence: count,
    endpoint_url: text(1, 8192),
    event_id: uuid,
    outcome: text(1, 253),
    payload_commitment: orNull(hex(32)),
    payload_hash: hex(32),
    previous_leaf_hash: orNull(hex(32)),
    reason: text(0, 253),
    response_digest: orNull(hex(32)),
    response_status: orNull(integer(0, 999)),
    salt: hex(32),
    sent_hash: hex(32),
    signature_digest: orNull(hex(32)),
    timestamp: count,
  },
  [CONTINUATION]: {
    checkpoint: base64(0, MAX_LEAF_SIZE),
    origin,
    reason: text(1, 1024),
    salt: hex(32),
    timestamp: count,
  },
  [SUCCESSION]: {
    not_before: count,
    origin,
    predecessor: text(0, MAX_LEAF_SIZE),
    predecessor_not_after: count,
    predecessor_signature: hex(64),
    salt: hex(32),
    successor: text(0, MAX_LEAF_SIZE),
    successor_signature: hex(64),
    timestamp: count,
  },
};

/**
 * Reads a leaf of whatever type; throws MalformedLeafError, also for a type that is not known, or TooLargeError.
 * @param {Uint8Array} data
 * @returns {Promise<Leaf>}
 */
export async function parseLeaf(data) {
  if (data.length > MAX_LEAF_SIZE) throw new TooLargeError("the leaf", MAX_LEAF_SIZE);
  const leaf = strict.jsonObject(data, "the leaf", MalformedLeafError);
  const type = leaf.get("type");
  if (typeof type !== "string" || !Object.hasOwn(SCHEMAS, type) || leaf.get("v") !== VERSION) {
    throw new MalformedLeafError("the leaf is of no type and version that this verifier knows");
  }
  const schema = SCHEMAS[type];
  const names = Object.keys(schema).filter((name) => name !== WHERE_TRANSFORMED || leaf.has(name));
  strict.members(leaf, [...names, "type", "v"], "the leaf", MalformedLeafError);
  for (const name of names) {
    const check = schema[name];
    if (!check(leaf.get(name))) throw new MalformedLeafError(`the leaf's ${name} is not of its form`);
  }
  if (encode(leaf, [...names, "type", "v"]) !== fromUtf8(data)) {
    throw new MalformedLeafError("the leaf is not in canonical form");
  }
  if (type === ATTEMPT) checkAttempt(leaf);
  else if (type === CONTINUATION) checkContinuation(leaf);
  else await checkSuccession(leaf);
  return leaf;
}

/**
 * Checks both signatures of a succession of keys; throws SignatureError.
 * @param {Leaf} leaf of the type SUCCESSION
 */
export async function verifySuccession(leaf) {
  const names = Object.keys(SCHEMAS[SUCCESSION]).filter((name) => !name.endsWith("_signature"));
  const message = encode(leaf, [...names, "type", "v"]);
  for (const role of ["predecessor", "successor"]) {
    const key = await VerifierKey.parse(leaf.get(role));
    await key.verify(message, fromHex(leaf.get(`${role}_signature`)));
  }
}

/** @param {Leaf} leaf @returns {import("./note.js").Checkpoint} the old log's head in a continuation, unverified */
export function predecessorHead(leaf) {
  const data = strict.base64(leaf.get("checkpoint"), "the statement's checkpoint", MalformedLeafError);
  const whole = fromUtf8(data);
  if (whole === null) throw new MalformedNoteError("the signed note is not UTF-8");
  return parseCheckpoint(parseNote(whole).text);
}

/** @param {Leaf} leaf @returns {string} the SHA-256 of the body as sent, in hex */
export function sentHash(leaf) {
  return leaf.get(leaf.has(WHERE_TRANSFORMED) ? WHERE_TRANSFORMED : "payload_hash");
}

/** @param {Leaf} leaf @param {string[]} names in the order of ASCII @returns {string} */
function encode(leaf, names) {
  // Printable ASCII alone stands in these texts, and of that JSON.stringify escapes what RFC 8785 does and nothing else.
  return `{${names.map((name) => `"${name}":${JSON.stringify(leaf.get(name))}`).join(",")}}`;
}

/** @param {Leaf} leaf */
function checkAttempt(leaf) {
  if ((leaf.get("previous_leaf_hash") === null) !== (leaf.get("endpoint_sequence") === 0)) {
    throw new MalformedLeafError("the leaf has a previous leaf hash for sequence 0, or none for a later one");
  }
  const absent = ["base", "key", "signature"].filter((part) => leaf.get(`acknowledgement_${part}`) === null);
  if (absent.length % 3 !== 0) {
    throw new MalformedLeafError("the leaf has a part of an acknowledgement without the others");
  }
}

/** @param {Leaf} leaf */
function checkContinuation(leaf) {
  let old;
  try {
    old = predecessorHead(leaf);
  } catch (error) {
    if (error instanceof MalformedNoteError) {
      throw new MalformedLeafError(`the statement's checkpoint is none: ${error.message}`);
    }
    throw error;
  }
  if (old.origin === leaf.get("origin")) {
    throw new MalformedLeafError("the statement continues a log under the same origin");
  }
}

/** @param {Leaf} leaf */
async function checkSuccession(leaf) {
  const keys = [];
  for (const role of ["predecessor", "successor"]) {
    try {
      keys.push(await VerifierKey.parse(leaf.get(role)));
    } catch (error) {
      if (error instanceof MalformedKeyError) {
        throw new MalformedLeafError(`a key in the statement is none: ${error.message}`);
      }
      throw error;
    }
  }
  if (keys.some((key) => key.name !== leaf.get("origin"))) {
    throw new MalformedLeafError("a key in the statement is not named after the origin");
  }
  if (strict.same(keys[0].publicKey, keys[1].publicKey)) {
    throw new MalformedLeafError("the statement has a key succeed itself");
  }
  if (leaf.get("not_before") > leaf.get("predecessor_not_after")) {
    throw new MalformedLeafError("the statement leaves the log without a key between its two dates");
  }
}
