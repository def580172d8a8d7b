/**
 * The signed tree head in its small form: 48 bytes under one Ed25519 signature, beside the checkpoint of the same tree.
 *
 * It dates the head, which a checkpoint does not. It travels in the note as an extra signature line of type 0xff.
 */

import { concat, sha256, toBigInt, uint64 } from "./bytes.js";
import * as ed25519 from "./ed25519.js";
import { MalformedNoteError, MalformedProofError, UnsupportedProofError } from "./errors.js";
import { HASH_SIZE } from "./merkle.js";
import { keyId, parseCheckpoint } from "./note.js";
import * as strict from "./strict.js";

const STH_LINE = concat(Uint8Array.of(0xff), "kapsel-sth-v1");
// RFC 8410: DER in front of a raw Ed25519 key.
const SPKI = Uint8Array.of(0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00);
const MEMBERS = [
  "version", "origin", "log_id", "key_id", "alg", "tree_size", "timestamp_ms", "root_hash", "signature",
];

/**
 * @typedef {{origin: string, log_id: Uint8Array, key_id: Uint8Array, tree_size: number, timestamp_ms: number,
 *   root_hash: Uint8Array, signature: Uint8Array}} TreeHead named as in its JSON form
 */

/** Checks the extra signature line of one key: key id || timestamp_ms(8) || signature(64). */
export class STHVerifier {
  /** @param {import("./note.js").VerifierKey} key @param {Uint8Array} id */
  constructor(key, id) {
    this.key = key;
    this.name = key.name;
    this.keyId = id;
  }

  /** @param {import("./note.js").VerifierKey} key @returns {Promise<STHVerifier>} */
  static async of(key) {
    return new STHVerifier(key, await keyId(key.name, concat(STH_LINE, key.publicKey)));
  }

  /**
   * Checks the line against the checkpoint it stands under; throws SignatureError or MalformedNoteError.
   * @param {string} text @param {Uint8Array} line
   */
  async verify(text, line) {
    const head = await fromLine(this.key, parseCheckpoint(text), line);
    const message = concat(uint64(head.tree_size), uint64(head.timestamp_ms), head.root_hash);
    const what = `the signature of ${strict.shown(this.name)} over the tree head`;
    await ed25519.verify(this.key.publicKey, message, head.signature, what);
  }
}

/**
 * Rebuilds the small form from the extra line's bytes after the key id; throws MalformedNoteError.
 * @param {import("./note.js").VerifierKey} key @param {import("./note.js").Checkpoint} checkpoint
 * @param {Uint8Array} line @returns {Promise<TreeHead>}
 */
export async function fromLine(key, checkpoint, line) {
  if (line.length !== 8 + ed25519.SIGNATURE_SIZE) {
    throw new MalformedNoteError("the tree head line of the note does not have 72 bytes after the key id");
  }
  const date = Number(toBigInt(line.subarray(0, 8)));
  return {
    origin: checkpoint.origin,
    log_id: await sha256(concat(SPKI, key.publicKey)),
    key_id: key.keyId,
    tree_size: checkpoint.treeSize,
    timestamp_ms: strict.integer(date, "the date in the tree head line of the note", MalformedNoteError),
    root_hash: checkpoint.rootHash,
    signature: line.slice(8),
  };
}

/**
 * Reads the JSON form; throws MalformedProofError or UnsupportedProofError.
 * @param {Map<string, import("./json.js").Json>} value @returns {TreeHead}
 */
export function fromJson(value) {
  const [what, Refusal] = ["the tree head", MalformedProofError];
  if (value.get("version") !== 1 || value.get("alg") !== "Ed25519") {
    throw new UnsupportedProofError("the tree head is not of version 1 with Ed25519");
  }
  strict.members(value, MEMBERS, what, Refusal);
  const hex = (name, size) => strict.hexadecimal(value.get(name), size, `the ${name} of ${what}`, Refusal);
  const integer = (name) => strict.integer(value.get(name), `the ${name} of ${what}`, Refusal);
  return {
    origin: strict.string(value.get("origin"), `the origin of ${what}`, Refusal),
    log_id: hex("log_id", 32),
    key_id: hex("key_id", 4),
    tree_size: integer("tree_size"),
    timestamp_ms: integer("timestamp_ms"),
    root_hash: hex("root_hash", HASH_SIZE),
    signature: hex("signature", ed25519.SIGNATURE_SIZE),
  };
}

/** @param {TreeHead} a @param {TreeHead} b @returns {string[]} the members in which they differ */
export function differences(a, b) {
  return Object.keys(a).filter((name) => !strict.same(a[name], b[name]));
}
