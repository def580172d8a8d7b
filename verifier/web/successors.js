/**
 * Keys that follow from a trusted one: each was announced in the log by the key before it, and signed by both.
 *
 * The set in which they come need not be trusted, nor the dates in it.
 */

import { equal } from "./bytes.js";
import { MalformedLeafError } from "./errors.js";
import { isTrustedFor, isValidAt } from "./keys.js";
import { ATTEMPT, SUCCESSION, parseLeaf, verifySuccession } from "./leaf.js";
import { VerifierKey } from "./note.js";

/** @typedef {import("./keys.js").TrustedKey} TrustedKey */
/** @typedef {{leaf: import("./leaf.js").Leaf, predecessor: VerifierKey, successor: VerifierKey}} Link */

/**
 * Returns the trusted keys, and those of the offered that follow from them link by link. Throws SignatureError,
 * MalformedLeafError or TooLargeError if a link that begins at a trusted key does not hold.
 * @param {TrustedKey[]} trusted @param {TrustedKey[]} offered @returns {Promise<TrustedKey[]>}
 */
export async function follow(trusted, offered) {
  const waiting = await linksOf(offered);
  const followed = [...trusted];
  for (;;) {
    const link = waiting.find((one) => followed.some((key) => announces(key, one)));
    if (link === undefined) return followed;
    await verifySuccession(link.leaf);
    for (const [place, key] of followed.entries()) { // it may be trusted in more than one way, and ends as a whole
      if (isKey(key, link.predecessor)) followed[place] = until(key, link.leaf.get("predecessor_not_after"));
    }
    if (!followed.some((key) => isKey(key, link.successor))) {
      followed.push({
        publicKey: link.successor.publicKey, name: link.leaf.get("origin"), notBefore: link.leaf.get("not_before"),
        notAfter: null, succession: null,
      });
    }
    waiting.splice(waiting.indexOf(link), 1);
  }
}

/** @param {TrustedKey[]} offered @returns {Promise<Link[]>} */
async function linksOf(offered) {
  const links = [];
  for (const { succession } of offered) {
    if (succession === null) continue;
    const leaf = await parseLeaf(succession);
    if (leaf.get("type") === ATTEMPT) {
      throw new MalformedLeafError("the leaf is of no type and version that this verifier knows");
    }
    if (leaf.get("type") !== SUCCESSION) continue;
    const [predecessor, successor] = [leaf.get("predecessor"), leaf.get("successor")];
    links.push({
      leaf, predecessor: await VerifierKey.parse(predecessor), successor: await VerifierKey.parse(successor),
    });
  }
  return links;
}

/** @param {TrustedKey} key @param {VerifierKey} other @returns {boolean} whether it would sign as the other one */
function isKey(key, other) {
  return isTrustedFor(key, other.name) && equal(key.publicKey, other.publicKey);
}

/** @param {TrustedKey} key @param {Link} link @returns {boolean} */
function announces(key, link) {
  return isKey(key, link.predecessor) && isValidAt(key, link.leaf.get("timestamp"));
}

/** @param {TrustedKey} key @param {number} notAfter @returns {TrustedKey} */
function until(key, notAfter) {
  if (notAfter === Number.MAX_SAFE_INTEGER) return key; // nothing was decided when the successor was announced
  return { ...key, notAfter: Math.min(key.notAfter ?? notAfter, notAfter) };
}
