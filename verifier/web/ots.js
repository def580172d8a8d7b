/**
 * OpenTimestamps: reads a detached .ots file and checks it offline against a block header of Bitcoin.
 *
 * A timestamp leads from the SHA-256 of a file along paths (`ots_paths.js`) to messages that others attest. Where Bitcoin
 * attests, the message is the Merkle root of a block. Whether that block is in the chain is the auditor's to know, who
 * asks any block explorer or node; the work in a header makes it dear to invent one.
 */

import { equal, fromHex, sha256, toHex } from "./bytes.js";
import { AnchorError, MalformedTimestampError, TooLargeError, UnsupportedProofError } from "./errors.js";
import * as paths from "./ots_paths.js";

const HEADER_SIZE = 80; // bytes of a block header
const DAY = 86400; // seconds: blocks may be dated two hours ahead, and miners' clocks are their own
export const MIN_DIFFICULTY = 50000000000000n;
const MAGIC = fromHex("004f70656e54696d657374616d7073000050726f6f6600bf89e2e884e89294");
const START = MAGIC.length + 2; // of the digest
const EASIEST = 0xffffn << 208n; // the target of difficulty 1

/** @typedef {{digest: Uint8Array, paths: paths.Path[]}} Timestamp what a .ots file says about the SHA-256 of a file */
/** @typedef {{height: bigint, merkleRoot: Uint8Array}} BlockClaim the root in the order in which it stands in the header */
/** @typedef {{height: bigint, blockHash: string, time: number, day: string}} Anchor hash as block explorers show it */

/**
 * Reads a .ots file that must be of these bytes; throws AnchorError, MalformedTimestampError, UnsupportedProofError or
 * TooLargeError.
 * @param {Uint8Array} data @param {Uint8Array} file @returns {Promise<Timestamp>}
 */
export async function ofFile(data, file) {
  const timestamp = parseTimestamp(data);
  if (!equal(timestamp.digest, await sha256(file))) throw new AnchorError("the timestamp is of another file");
  return timestamp;
}

/** @param {Uint8Array} data @returns {Timestamp} */
export function parseTimestamp(data) {
  if (data.length > paths.MAX_SIZE) throw new TooLargeError("the timestamp", paths.MAX_SIZE);
  if (!equal(data.slice(0, MAGIC.length), MAGIC)) {
    throw new MalformedTimestampError("the timestamp does not begin as an OpenTimestamps file does");
  }
  if (data.length < START + 32) throw new MalformedTimestampError("the timestamp ends too early");
  if (data[START - 2] !== 1) throw new UnsupportedProofError("the timestamp is not of version 1");
  if (data[START - 1] !== paths.SHA256) {
    throw new UnsupportedProofError("the timestamp is of a file that was hashed otherwise than by SHA-256");
  }
  return { digest: data.slice(START, START + 32), paths: paths.parsePaths(data.slice(START + 32), 32) };
}

/** @param {Timestamp} timestamp @returns {Promise<BlockClaim[]>} the blocks that it names, in its order */
export async function blocks(timestamp) {
  const claims = [];
  for (const path of timestamp.paths) {
    if (path.attestation.tag !== paths.BITCOIN) continue;
    const message = await paths.follow(timestamp.digest, path.steps);
    if (message?.length === 32) claims.push({ height: paths.blockHeight(path.attestation), merkleRoot: message });
  }
  return claims;
}

/** @param {Timestamp} timestamp @returns {Promise<string[]>} the calendars that promise to put it into a block */
export async function promises(timestamp) {
  const uris = [];
  for (const path of timestamp.paths) {
    if (path.attestation.tag !== paths.PENDING) continue;
    if ((await paths.follow(timestamp.digest, path.steps)) !== null) uris.push(paths.pendingUri(path.attestation));
  }
  return uris;
}

/**
 * Checks that the block with this header commits to the timestamp's file; throws AnchorError.
 * @param {Timestamp} timestamp @param {Uint8Array} header 80 bytes
 * @param {number | null} notBeforeMs when the file says that it was made: a block cannot hold what came a day after it
 * @param {bigint} minDifficulty
 * @returns {Promise<Anchor>}
 */
export async function check(timestamp, header, notBeforeMs, minDifficulty = MIN_DIFFICULTY) {
  const blockHash = await worked(header, minDifficulty);
  const claims = await blocks(timestamp);
  if (claims.length === 0) throw new AnchorError("the timestamp names no block of Bitcoin yet");
  const found = claims.find((claim) => equal(claim.merkleRoot, header.slice(36, 68)));
  if (found === undefined) {
    const named = claims.slice(0, 8).map((claim) => claim.height).join(", ");
    throw new AnchorError(`the header is not that of a block that the timestamp leads to (it names ${named})`);
  }
  const time = Number(littleEndian(header.slice(68, 72)));
  if (notBeforeMs !== null && notBeforeMs > (time + DAY) * 1000) {
    throw new AnchorError("the block is more than a day older than what it is to date");
  }
  const day = new Date(time * 1000).toISOString().slice(0, 10);
  return { height: found.height, blockHash: toHex(blockHash.toReversed()), time, day };
}

/** @param {Uint8Array} data the 80 bytes of a header, or their 160 hex digits @returns {Uint8Array} throws AnchorError */
export function readHeader(data) {
  if (data.length === HEADER_SIZE) return data;
  const text = String.fromCharCode(...data.slice(0, 1024)).replace(/^[ \t\n\r\v\f]+|[ \t\n\r\v\f]+$/g, "");
  if (data.length > 1024 || !/^[0-9A-Fa-f]{160}$/.test(text)) {
    throw new AnchorError(`a block header has ${HEADER_SIZE} bytes, or as many in hex`);
  }
  return fromHex(text);
}

/** @param {Uint8Array} header @param {bigint} minDifficulty @returns {Promise<Uint8Array>} the block's hash */
async function worked(header, minDifficulty) {
  if (header.length !== HEADER_SIZE) {
    throw new AnchorError(`a block header has ${HEADER_SIZE} bytes, this one has ${header.length}`);
  }
  const bits = littleEndian(header.slice(72, 76));
  const [exponent, mantissa] = [bits >> 24n, bits & 0x7fffffn];
  const target = exponent > 3n ? mantissa << (8n * (exponent - 3n)) : mantissa >> (8n * (3n - exponent));
  if (bits & 0x800000n || target <= 0n || target >= 1n << 256n) {
    throw new AnchorError("the target in the block header is none");
  }
  const blockHash = await sha256(await sha256(header));
  if (littleEndian(blockHash) > target) throw new AnchorError("the block header does not hold the work that it claims");
  if (target * minDifficulty > EASIEST) {
    throw new AnchorError(`the block header was too easy to make: its difficulty is below ${minDifficulty}`);
  }
  return blockHash;
}

/** @param {Uint8Array} data @returns {bigint} */
function littleEndian(data) {
  return data.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}
