/**
 * Cosignatures of witnesses, C2SP tlog-cosignature v1: what a third party signs to say "I saw this log grow".
 *
 * Version 1 with Ed25519 (type 0x04) is the kind that kapsel speaks; lines of other kinds are lines by nobody known.
 */

import { toBigInt, toHex, utf8 } from "./bytes.js";
import * as ed25519 from "./ed25519.js";
import { MalformedKeyError, MalformedNoteError } from "./errors.js";
import { identity, isKeyName, keyId, splitVkey } from "./note.js";
import * as strict from "./strict.js";

const COSIGNATURE = 4; // signature type
const DATE_SIZE = 8; // bytes

/** @typedef {{name: string, keyId: Uint8Array, timestamp: number}} Cosignature checked; seconds since 1970-01-01 UTC */

/** The Ed25519 key of a witness under the name it cosigns with. */
export class WitnessKey {
  /** @param {string} name @param {Uint8Array} publicKey @param {Uint8Array} id */
  constructor(name, publicKey, id) {
    this.name = name;
    this.publicKey = publicKey;
    this.keyId = id;
  }

  /** Reads a witness's vkey; throws MalformedKeyError. @param {string} text @returns {Promise<WitnessKey>} */
  static async parse(text) {
    const parts = splitVkey(text, "the key in the witness's vkey");
    if (parts.identity[0] !== COSIGNATURE || parts.identity.length !== 33) {
      throw new MalformedKeyError("the vkey is not of a witness's Ed25519 key (type 04, 32 bytes)");
    }
    if (!isKeyName(parts.name)) throw new MalformedKeyError("the name of a witness's key is no key name");
    const key = new WitnessKey(parts.name, parts.identity.slice(1), await keyId(parts.name, parts.identity));
    if (parts.identifier !== toHex(key.keyId)) {
      throw new MalformedKeyError("the key id in the witness's vkey does not fit its name and key");
    }
    return key;
  }

  /**
   * Checks date and signature over the text of a checkpoint; throws SignatureError or MalformedNoteError.
   * @param {string} text @param {Uint8Array} line what follows the key id
   */
  async verify(text, line) {
    const timestamp = dateOf(this.name, line);
    const message = utf8(`cosignature/v1\ntime ${timestamp}\n${text}`);
    const what = `the cosignature of ${strict.shown(this.name)}`;
    await ed25519.verify(this.publicKey, message, line.slice(DATE_SIZE), what);
  }
}

/**
 * Returns the cosignatures by these witnesses, all checked, at most one each: its newest. Throws SignatureError or
 * MalformedNoteError if one line by one of these keys is wrong, whatever the others are.
 * @param {import("./note.js").Note} note @param {WitnessKey[]} keys
 * @returns {Promise<Cosignature[]>}
 */
export async function find(note, keys) {
  const known = new Map(keys.map((key) => [identity(key), key]));
  const newest = new Map();
  for (const line of note.signatures) {
    const key = known.get(identity(line));
    if (key === undefined) continue;
    await key.verify(note.text, line.signature);
    const timestamp = dateOf(line.name, line.signature);
    const before = newest.get(identity(line));
    if (before === undefined || timestamp > before.timestamp) {
      newest.set(identity(line), { name: line.name, keyId: line.keyId, timestamp });
    }
  }
  return [...newest.values()];
}

/** @param {string} name @param {Uint8Array} line @returns {number} */
function dateOf(name, line) {
  if (line.length !== DATE_SIZE + ed25519.SIGNATURE_SIZE) {
    throw new MalformedNoteError(`the cosignature of ${strict.shown(name)} does not have 72 bytes after the key id`);
  }
  const date = Number(toBigInt(line.subarray(0, DATE_SIZE)));
  return strict.integer(date, `the date in the cosignature of ${strict.shown(name)}`, MalformedNoteError);
}
