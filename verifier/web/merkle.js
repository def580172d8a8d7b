/**
 * The Merkle tree of RFC 6962, section 2.1: hashes, and the two proofs an auditor checks.
 *
 * A root is worth as much as the signature over it; where it comes from is `verify.js`'s to decide.
 */

import { concat, equal, fromHex, sha256 } from "./bytes.js";
import { ConsistencyError, InclusionError } from "./errors.js";

export const HASH_SIZE = 32;
export const EMPTY_ROOT = fromHex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");

/** @param {Uint8Array} data @returns {Promise<Uint8Array>} SHA-256(0x00 || data) */
export function leafHash(data) {
  return sha256(concat(Uint8Array.of(0), data));
}

/** @param {Uint8Array} left @param {Uint8Array} right @returns {Promise<Uint8Array>} SHA-256(0x01 || left || right) */
export function nodeHash(left, right) {
  return sha256(concat(Uint8Array.of(1), left, right));
}

/**
 * Checks that the leaf is at `leafIndex`, from 0, in the tree of `treeSize` leaves with this root; throws InclusionError.
 * @param {number} leafIndex
 * @param {number} treeSize
 * @param {Uint8Array} leaf its hash
 * @param {Uint8Array[]} path 32-byte hashes from the leaf's sibling up
 * @param {Uint8Array} root
 */
export async function verifyInclusion(leafIndex, treeSize, leaf, path, root) {
  if (leafIndex >= treeSize) throw new InclusionError(`leaf ${leafIndex} cannot be in a tree of ${treeSize} leaves`);
  // BigInts: the bit operators of numbers end at 32 bits.
  const index = BigInt(leafIndex);
  const inner = bitLength(index ^ (BigInt(treeSize) - 1n));
  const needed = inner + bitCount(index >> BigInt(inner));
  if (path.length !== needed) {
    // The exact length is what stops a path from being padded or cut to end at another level.
    throw new InclusionError(`the path has ${path.length} hashes where ${needed} are needed`);
  }
  let node = leaf;
  for (const [level, sibling] of path.entries()) {
    const isRightChild = level >= inner || (index >> BigInt(level)) & 1n;
    node = isRightChild ? await nodeHash(sibling, node) : await nodeHash(node, sibling);
  }
  if (!equal(node, root)) throw new InclusionError("the path from the leaf does not lead to the root");
}

/**
 * Checks that the first `oldSize` leaves of the newer tree are those of the older one; throws ConsistencyError.
 * @param {number} oldSize @param {number} newSize @param {Uint8Array[]} path 32-byte hashes (RFC 6962 2.1.2)
 * @param {Uint8Array} oldRoot @param {Uint8Array} newRoot
 */
export async function verifyConsistency(oldSize, newSize, path, oldRoot, newRoot) {
  if (oldSize > newSize) throw new ConsistencyError(`a tree of ${newSize} leaves cannot extend one of ${oldSize}`);
  if (oldSize === 0 || oldSize === newSize) {
    verifyTrivialConsistency(oldSize, newSize, path, oldRoot, newRoot);
    return;
  }
  if (path.length === 0) throw new ConsistencyError("the proof is empty although the sizes differ");
  let [first, last] = [BigInt(oldSize) - 1n, BigInt(newSize) - 1n];
  // A perfect older tree is a node of the newer one, so its root is the first hash and is left out of the proof.
  const hashes = (first & (first + 1n)) === 0n ? [oldRoot, ...path] : path;
  for (; first & 1n; last >>= 1n) first >>= 1n;
  let [old, fresh] = [hashes[0], hashes[0]];
  for (const sibling of hashes.slice(1)) {
    if (last === 0n) throw new ConsistencyError("the proof has more hashes than are needed");
    if (first & 1n || first === last) {
      [old, fresh] = [await nodeHash(sibling, old), await nodeHash(sibling, fresh)];
      for (; first && !(first & 1n); last >>= 1n) first >>= 1n;
    } else {
      fresh = await nodeHash(fresh, sibling);
    }
    [first, last] = [first >> 1n, last >> 1n];
  }
  if (last !== 0n) throw new ConsistencyError("the proof has fewer hashes than are needed");
  if (!equal(old, oldRoot)) throw new ConsistencyError("the proof does not lead to the older root");
  if (!equal(fresh, newRoot)) throw new ConsistencyError("the proof does not lead to the newer root");
}

/** @param {number} oldSize @param {number} newSize @param {Uint8Array[]} path @param {Uint8Array} oldRoot @param {Uint8Array} newRoot */
function verifyTrivialConsistency(oldSize, newSize, path, oldRoot, newRoot) {
  if (path.length > 0) throw new ConsistencyError("the proof has hashes where none are needed");
  if (oldSize === 0 && !equal(oldRoot, EMPTY_ROOT)) {
    throw new ConsistencyError("the older tree is empty and its root is not the empty root");
  }
  if (oldSize === newSize && !equal(oldRoot, newRoot)) throw new ConsistencyError("two roots for one tree size");
}

/** @param {bigint} value not negative @returns {number} */
function bitLength(value) {
  return value === 0n ? 0 : value.toString(2).length;
}

/** @param {bigint} value not negative @returns {number} */
function bitCount(value) {
  return value.toString(2).replaceAll("0", "").length;
}
