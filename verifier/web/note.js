/**
 * Signed notes, verifier keys and checkpoints as C2SP signed-note and tlog-checkpoint v1 have them.
 *
 * A note is text that somebody signed; until a signature by a trusted key is checked its text says nothing.
 */

import { concat, equal, fromUtf8, sha256, toBase64, toHex, utf8 } from "./bytes.js";
import * as ed25519 from "./ed25519.js";
import { MalformedKeyError, MalformedNoteError, TooLargeError } from "./errors.js";
import { EMPTY_ROOT, HASH_SIZE } from "./merkle.js";
import * as strict from "./strict.js";

export const MAX_NOTE_SIZE = 262144; // bytes
export const MAX_SIGNATURES = 64;
const ED25519 = Uint8Array.of(1); // signature type: Ed25519 over the text of the note
const MAX_NAME = 1024; // characters
const DASH = "\u2014 ";
const CONTROL = /[\u0000-\u0009\u000b-\u001f]/;
const SURROGATE = /\p{Surrogate}/u; // half a character, as a JSON string may hold it: no UTF-8
const SPACE = /[\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/;

/** @typedef {{name: string, keyId: Uint8Array, signature: Uint8Array}} Signature one line; after its 4-byte key id */
/** @typedef {{text: string, signatures: Signature[]}} Note its text, ending in a newline, is unverified */
/** @typedef {{origin: string, treeSize: number, rootHash: Uint8Array, extensions: string[]}} Checkpoint */

/** An Ed25519 public key under the name it signs notes with; the name of a log's key is the log's origin. */
export class VerifierKey {
  /** @param {string} name @param {Uint8Array} publicKey @param {Uint8Array} keyId */
  constructor(name, publicKey, keyId) {
    this.name = name;
    this.publicKey = publicKey;
    this.keyId = keyId;
  }

  /** @param {string} name @param {Uint8Array} publicKey @returns {Promise<VerifierKey>} */
  static async of(name, publicKey) {
    return new VerifierKey(name, publicKey, await keyId(name, concat(ED25519, publicKey)));
  }

  /** Reads a vkey; throws MalformedKeyError. @param {string} text @returns {Promise<VerifierKey>} */
  static async parse(text) {
    const { name, identifier, identity } = splitVkey(text, "the key in the vkey");
    if (identity[0] !== 1 || identity.length !== 33) {
      throw new MalformedKeyError("the vkey is not of an Ed25519 key (type 01, 32 bytes)");
    }
    if (!isKeyName(name)) {
      throw new MalformedKeyError("a key name is empty or too long, or has a space, a plus sign or a control character");
    }
    const key = await VerifierKey.of(name, identity.slice(1));
    if (identifier !== toHex(key.keyId)) {
      throw new MalformedKeyError("the key id in the vkey does not fit its name and key");
    }
    return key;
  }

  /** @returns {string} the vkey */
  encode() {
    return `${this.name}+${toHex(this.keyId)}+${toBase64(concat(ED25519, this.publicKey))}`;
  }

  /** Checks a raw signature over the text; throws SignatureError. @param {string} text @param {Uint8Array} signature */
  async verify(text, signature) {
    await ed25519.verify(
      this.publicKey, utf8(text), signature, `the signature of ${strict.shown(this.name)} over the checkpoint`,
    );
  }
}

/**
 * Splits `name+hex8(key id)+base64(type || public key)`; throws MalformedKeyError.
 * @param {string} text @param {string} what @returns {{name: string, identifier: string, identity: Uint8Array}}
 */
export function splitVkey(text, what) {
  // The name has no plus sign, base64 may have some.
  const [name, identifier = "", ...rest] = text.split("+");
  return { name, identifier, identity: strict.base64(rest.join("+"), what, MalformedKeyError) };
}

/**
 * @param {string} name @param {Uint8Array} identity signature type || public key
 * @returns {Promise<Uint8Array>} the 4-byte key id: SHA-256(name || 0x0A || identity)[:4]
 */
export async function keyId(name, identity) {
  return (await sha256(concat(name, "\n", identity))).slice(0, 4);
}

/** @param {string} name @returns {boolean} whether this may stand as a key name in a signature line */
export function isKeyName(name) {
  return (
    name !== "" && [...name].length <= MAX_NAME && !name.includes("+") &&
    ![CONTROL, SPACE, SURROGATE].some((refused) => refused.test(name))
  );
}

/**
 * Splits a signed note into text and signatures; throws MalformedNoteError or TooLargeError.
 * @param {string} whole as a JSON string may hold it, so not always well-formed
 * @returns {Note}
 */
export function parseNote(whole) {
  const encoded = utf8(whole);
  if (fromUtf8(encoded) !== whole) throw new MalformedNoteError("the signed note is not UTF-8");
  if (encoded.length > MAX_NOTE_SIZE) throw new TooLargeError("the signed note", MAX_NOTE_SIZE);
  if (CONTROL.test(whole)) throw new MalformedNoteError("the signed note has a control character other than newline");
  // The text may have blank lines of its own, signatures never do: the last one separates.
  const separator = whole.lastIndexOf("\n\n");
  if (separator < 0 || separator + 2 >= whole.length || !whole.endsWith("\n")) {
    throw new MalformedNoteError("the signed note is not text, a blank line and signature lines");
  }
  const lines = whole.slice(separator + 2, -1).split("\n");
  if (lines.length > MAX_SIGNATURES) {
    throw new MalformedNoteError(`the signed note has more than ${MAX_SIGNATURES} signatures`);
  }
  return { text: whole.slice(0, separator + 1), signatures: lines.map(parseSignature) };
}

/**
 * Reads the text of a note, with its last newline; throws MalformedNoteError.
 * @param {string} text @returns {Checkpoint}
 */
export function parseCheckpoint(text) {
  const lines = text.slice(0, -1).split("\n");
  if (lines.length < 3) throw new MalformedNoteError("the checkpoint has fewer than three lines");
  const [origin, size, root, ...extensions] = lines;
  const treeSize = strict.decimal(size, "the tree size of the checkpoint", MalformedNoteError);
  const rootHash = strict.base64(root, "the root hash of the checkpoint", MalformedNoteError);
  if (rootHash.length !== HASH_SIZE) {
    throw new MalformedNoteError(`the root hash of the checkpoint does not have ${HASH_SIZE} bytes`);
  }
  if (treeSize === 0 && !equal(rootHash, EMPTY_ROOT)) {
    throw new MalformedNoteError("the checkpoint is of an empty tree and has another root than that");
  }
  if ([origin, ...extensions].some((line) => line === "")) {
    throw new MalformedNoteError("a line of the checkpoint is empty or has a control character");
  }
  return { origin, treeSize, rootHash, extensions };
}

/**
 * Checks every signature of a note that one of these verifiers answers for; throws SignatureError if one is wrong.
 * Unknown (name, key id) pairs are ignored, as C2SP demands.
 * @param {Note} note
 * @param {{name: string, keyId: Uint8Array, verify(text: string, signature: Uint8Array): Promise<void>}[]} verifiers
 * @returns {Promise<Signature[]>} those that were checked, in the order of the note
 */
export async function checkSignatures(note, verifiers) {
  const known = new Map();
  for (const verifier of verifiers) {
    const name = identity(verifier);
    if (known.has(name)) {
      throw new MalformedKeyError(`two trusted keys share the name ${strict.shown(verifier.name)} and the key id`);
    }
    known.set(name, verifier);
  }
  const checked = [];
  for (const line of note.signatures) {
    const verifier = known.get(identity(line));
    if (verifier === undefined) continue;
    await verifier.verify(note.text, line.signature);
    checked.push(line);
  }
  return checked;
}

/** @param {{name: string, keyId: Uint8Array}} of @returns {string} what tells signers apart: no name has a space */
export function identity(of) {
  return `${of.name} ${toHex(of.keyId)}`;
}

/** @param {string} line @returns {Signature} */
function parseSignature(line) {
  if (!line.startsWith(DASH)) {
    throw new MalformedNoteError("a signature line of the note does not begin with an em dash and a space");
  }
  const rest = line.slice(DASH.length);
  const space = rest.indexOf(" ");
  const [name, encoded] = space < 0 ? [rest, ""] : [rest.slice(0, space), rest.slice(space + 1)];
  if (!isKeyName(name)) throw new MalformedNoteError("a signature line of the note has no proper key name");
  const blob = strict.base64(encoded, "a signature of the note", MalformedNoteError);
  if (blob.length < 5) throw new MalformedNoteError("a signature of the note is too short");
  return { name, keyId: blob.slice(0, 4), signature: blob.slice(4) };
}
