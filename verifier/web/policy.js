/**
 * Trust policies, C2SP tlog-policy: which logs, which witnesses, and how many of them are enough.
 *
 * The names of witnesses and groups are octets to the format. They are kept as such, one character to the byte, and
 * decoded to be shown; what counts are keys.
 */

import { fromUtf8 } from "./bytes.js";
import * as cosignature from "./cosignature.js";
import { MalformedKeyError, MalformedPolicyError, QuorumError, TooLargeError, UntrustedKeyError } from "./errors.js";
import { VerifierKey, checkSignatures, identity } from "./note.js";
import * as strict from "./strict.js";

export const MAX_POLICY_SIZE = 262144; // bytes
const NO_QUORUM = "none";
const FORBIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f]/;

/** @typedef {{name: string, threshold: number, members: string[]}} Group */
/** @typedef {{log: VerifierKey | null, cosignatures: cosignature.Cosignature[], witnessedAt: number | null}} Judgement */

/**
 * Reads a policy file; throws MalformedPolicyError with the number of the line, or TooLargeError.
 * @param {Uint8Array} data @returns {Promise<Policy>}
 */
export async function parsePolicy(data) {
  if (data.length > MAX_POLICY_SIZE) throw new TooLargeError("the policy", MAX_POLICY_SIZE);
  let text = "";
  for (const byte of data) text += String.fromCharCode(byte);
  if (FORBIDDEN.test(text)) {
    throw new MalformedPolicyError("the policy has a control character other than tab and newline");
  }
  // A policy whose end was cut off may read as another one.
  if (!text.endsWith("\n")) throw new MalformedPolicyError("the policy does not end in a newline");
  const policy = new Policy();
  for (const [index, line] of text.slice(0, -1).split("\n").entries()) {
    const words = line.split(/[ \t]+/).filter((word) => word !== "");
    if (words.length > 0 && !words[0].startsWith("#")) await policy.take(`line ${index + 1} of the policy`, words);
  }
  if (policy.quorum === null) throw new MalformedPolicyError("the policy has no quorum line");
  return policy;
}

/** A whole policy; `parsePolicy` fills it, so every name in it is defined and used as the format allows. */
export class Policy {
  constructor() {
    /** @type {VerifierKey[]} */
    this.logs = [];
    /** @type {{name: string, key: cosignature.WitnessKey}[]} */
    this.witnesses = [];
    /** @type {Group[]} */
    this.groups = [];
    /** @type {string | null} */
    this.quorum = null;
    this.names = new Set();
    this.members = new Set();
  }

  /**
   * Checks a note by every key of the policy, and that a quorum has cosigned it. Throws QuorumError, UntrustedKeyError if
   * logs are listed and none of them signed it, SignatureError or MalformedNoteError.
   * @param {import("./note.js").Note} note @returns {Promise<Judgement>}
   */
  async judge(note) {
    const log = this.logs.length > 0 ? await this.signer(note) : null;
    const found = await cosignature.find(note, this.witnesses.map((witness) => witness.key));
    return { log, cosignatures: found, witnessedAt: this.witnessedAt(found) };
  }

  /**
   * Returns the earliest time by which a quorum had cosigned, null if none is demanded; throws QuorumError.
   * @param {cosignature.Cosignature[]} found @returns {number | null}
   */
  witnessedAt(found) {
    if (this.quorum === NO_QUORUM) return null;
    const names = new Map(this.witnesses.map((witness) => [identity(witness.key), witness.name]));
    const signed = new Set();
    for (const one of found.toSorted((a, b) => a.timestamp - b.timestamp)) {
      signed.add(names.get(identity(one)));
      if (this.reached(signed).has(this.quorum)) return one.timestamp;
    }
    const missing = this.missing(signed);
    const lacking = missing.slice(0, 10).join(", ") + (missing.length > 10 ? ", ..." : "");
    throw new QuorumError(`the head is not cosigned by the quorum of the policy; there is no cosignature by ${lacking}`);
  }

  /** @param {Set<string>} signed @returns {string[]} the witnesses below the quorum that did not sign, to be shown */
  missing(signed) {
    const below = new Set([this.quorum]);
    // Members come before their groups.
    for (const group of this.groups.toReversed()) {
      if (below.has(group.name)) group.members.forEach((member) => below.add(member));
    }
    return this.witnesses.filter(({ name }) => below.has(name) && !signed.has(name)).map(({ name }) => shownName(name));
  }

  /** @param {Set<string>} names of witnesses @returns {Set<string>} the same, and the groups that they make */
  reached(names) {
    const reached = new Set(names);
    for (const group of this.groups) {
      if (group.members.filter((member) => reached.has(member)).length >= group.threshold) reached.add(group.name);
    }
    return reached;
  }

  /** @param {import("./note.js").Note} note @returns {Promise<VerifierKey>} the first listed log that signed it */
  async signer(note) {
    const origin = note.text.split("\n", 1)[0];
    const keys = this.logs.filter((key) => key.name === origin);
    if (keys.length === 0) throw new UntrustedKeyError(`the policy lists no log ${strict.shown(origin)}`);
    const [first] = await checkSignatures(note, keys);
    if (first === undefined) throw new UntrustedKeyError("no trusted key has signed the checkpoint");
    return keys.find((key) => identity(key) === identity(first));
  }

  /** Takes one line, given as its words; throws MalformedPolicyError. @param {string} what @param {string[]} words */
  async take(what, words) {
    const [keyword, ...rest] = words;
    if (!["log", "witness", "group", "quorum"].includes(keyword)) {
      throw new MalformedPolicyError(`${what} does not begin with log, witness, group or quorum`);
    }
    if (keyword === "log" && (rest.length === 1 || rest.length === 2)) await this.takeLog(what, rest[0]);
    else if (keyword === "witness" && (rest.length === 2 || rest.length === 3)) {
      await this.takeWitness(what, rest[0], rest[1]);
    } else if (keyword === "group" && rest.length > 2) this.takeGroup(what, rest[0], rest[1], rest.slice(2));
    else if (keyword === "quorum" && rest.length === 1) this.takeQuorum(what, rest[0]);
    else throw new MalformedPolicyError(`${what} has too few or too many words for a ${keyword}`);
  }

  /** @param {string} what @param {string} vkey */
  async takeLog(what, vkey) {
    const key = await readKey(VerifierKey, what, vkey);
    if (this.logs.some((log) => strict.same(log.publicKey, key.publicKey))) {
      throw new MalformedPolicyError(`${what} lists a log's key again`);
    }
    if (this.witnesses.some((witness) => strict.same(witness.key.publicKey, key.publicKey))) {
      throw new MalformedPolicyError(`${what} lists a witness's key as that of a log`);
    }
    this.logs.push(key);
  }

  /** @param {string} what @param {string} name @param {string} vkey */
  async takeWitness(what, name, vkey) {
    const key = await readKey(cosignature.WitnessKey, what, vkey);
    if (this.witnesses.some((witness) => strict.same(witness.key.publicKey, key.publicKey))) {
      // One witness under two names would count twice.
      throw new MalformedPolicyError(`${what} lists a witness's key again`);
    }
    if (this.logs.some((log) => strict.same(log.publicKey, key.publicKey))) {
      // The log would vouch for itself.
      throw new MalformedPolicyError(`${what} lists a log's key as that of a witness`);
    }
    if (this.witnesses.some((witness) => identity(witness.key) === identity(key))) {
      // Nobody could tell whose a line of the note is.
      throw new MalformedPolicyError(`${what} lists a second witness's key of this name and key id`);
    }
    this.define(what, name);
    this.witnesses.push({ name, key });
  }

  /** @param {string} what @param {string} name @param {string} word @param {string[]} members */
  takeGroup(what, name, word, members) {
    for (const member of members) {
      if (!this.names.has(member)) {
        throw new MalformedPolicyError(`${what} has a member that no line above it defines`);
      }
      if (this.members.has(member)) {
        throw new MalformedPolicyError(`${what} has a member that is in a group already`);
      }
      this.members.add(member);
    }
    this.define(what, name);
    this.groups.push({ name, threshold: readThreshold(what, word, members.length), members });
  }

  /** @param {string} what @param {string} name */
  takeQuorum(what, name) {
    if (this.quorum !== null) throw new MalformedPolicyError(`${what} is a second quorum line`);
    if (name !== NO_QUORUM && !this.names.has(name)) {
      throw new MalformedPolicyError(`${what} names a quorum that no line above it defines`);
    }
    this.quorum = name;
  }

  /** @param {string} what @param {string} name */
  define(what, name) {
    if (name === NO_QUORUM || this.names.has(name)) {
      throw new MalformedPolicyError(`${what} gives a name that is taken`);
    }
    this.names.add(name);
  }
}

/**
 * @template {{publicKey: Uint8Array}} Key
 * @param {{parse(text: string): Promise<Key>}} kind @param {string} what @param {string} octets @returns {Promise<Key>}
 */
async function readKey(kind, what, octets) {
  const vkey = fromUtf8(Uint8Array.from(octets, (octet) => octet.charCodeAt(0)));
  if (vkey === null) throw new MalformedPolicyError(`${what} has a key whose name is not UTF-8`);
  try {
    return await kind.parse(vkey);
  } catch (error) {
    if (error instanceof MalformedKeyError) throw new MalformedPolicyError(`${what}: ${error.message}`);
    throw error;
  }
}

/** @param {string} what @param {string} word @param {number} members @returns {number} */
function readThreshold(what, word, members) {
  if (word === "any" || word === "all") return word === "any" ? 1 : members;
  const threshold = strict.decimal(word, `the threshold in ${what}`, MalformedPolicyError);
  if (threshold < 1 || threshold > members) {
    throw new MalformedPolicyError(`${what} asks for ${threshold} of ${members} members`);
  }
  return threshold;
}

/** @param {string} octets @returns {string} */
function shownName(octets) {
  return strict.shown(fromUtf8(Uint8Array.from(octets, (octet) => octet.charCodeAt(0))) ?? octets);
}
