/**
 * The acknowledgement in a leaf: what the destination signed to say that it got the delivery (RFC 9421).
 *
 * The rules are those of kapsel_verifier/acknowledgement.py: the base that was signed is rebuilt from what the leaf says
 * of request and response, byte for byte. `levels.js` asks whether the key is one that the auditor has from the destination.
 */

import { equal, fromHex, fromUtf8, toBase64, utf8 } from "./bytes.js";
import * as ed25519 from "./ed25519.js";
import { AcknowledgementError, SignatureError } from "./errors.js";
import { sentHash } from "./leaf.js";
import * as strict from "./strict.js";
import * as fields from "./structured_fields.js";

const TAG = "kapsel-ack";
const ALGORITHM = "ed25519";
const MAX_BASE_SIZE = 8192; // bytes
const MAX_SKEW_S = 300; // seconds between the try and `created`
const COMPONENTS = ['"@status"', '"content-digest"', '"webhook-id";req', '"content-digest";req'];
const PARAMETERS = {
  created: "number", expires: "number", nonce: "string", alg: "string", keyid: "string", tag: "string",
};
const LAST_LINE = '"@signature-params": ';

/** @typedef {{key: Uint8Array, created: number, keyId: string | null}} Acknowledgement `created` in seconds since 1970 */

/**
 * Checks the acknowledgement in a leaf by the key that the leaf names; throws AcknowledgementError. Whose key that is
 * only the destination can say.
 * @param {import("./leaf.js").Leaf} leaf of a delivery attempt, with an acknowledgement
 * @returns {Promise<Acknowledgement>}
 */
export async function check(leaf) {
  const key = fromHex(leaf.get("acknowledgement_key"));
  const base = strict.base64(leaf.get("acknowledgement_base"), "the signature base", AcknowledgementError);
  if (leaf.get("response_status") === null || leaf.get("response_digest") === null) {
    fail("the leaf has an acknowledgement and no response");
  }
  const signed = parametersOf(base);
  const found = checkParameters(signed, leaf);
  const rebuilt = signatureBase(signed, leaf);
  if (rebuilt.length > MAX_BASE_SIZE) fail(`the signature base is larger than ${MAX_BASE_SIZE} bytes`);
  if (!equal(rebuilt, base)) fail(`the acknowledgement is of something else: ${difference(base, rebuilt)}`);
  try {
    const signature = fromHex(leaf.get("acknowledgement_signature"));
    await ed25519.verify(key, base, signature, "the acknowledgement's signature");
  } catch (error) {
    if (error instanceof SignatureError) fail(error.message);
    throw error;
  }
  return { key, ...found };
}

/** @param {string} message @returns {never} */
function fail(message) {
  throw new AcknowledgementError(message);
}

/** @param {Uint8Array} base @returns {fields.InnerList} the parameters in its last line, which must be canonical */
function parametersOf(base) {
  if (base.some((byte) => byte > 0x7f)) fail("the signature base is not ASCII");
  const line = fromUtf8(base).split("\n").at(-1);
  if (!line.startsWith(LAST_LINE)) fail("the signature base does not end in its parameters");
  return fields.innerList(line.slice(LAST_LINE.length), "the last line of the signature base", AcknowledgementError);
}

/**
 * @param {fields.InnerList} signed @param {import("./leaf.js").Leaf} leaf
 * @returns {{created: number, keyId: string | null}}
 */
function checkParameters(signed, leaf) {
  const covered = signed.items.map(fields.encode).sort();
  if (covered.join("\n") !== [...COMPONENTS].sort().join("\n")) {
    fail(`the signature does not cover exactly ${COMPONENTS.join(", ")}`);
  }
  for (const [name, value] of signed.parameters) {
    if (!Object.hasOwn(PARAMETERS, name)) fail(`the signature has the parameter ${name}, which it may not have`);
    if (typeof value !== PARAMETERS[name]) fail(`the signature's ${name} is not a ${PARAMETERS[name]}`);
  }
  if (signed.parameters.get("tag") !== TAG) fail(`the signature's tag is not ${TAG}`);
  if ((signed.parameters.get("alg") ?? ALGORITHM) !== ALGORITHM) fail(`the signature's alg is not ${ALGORITHM}`);
  const [created, expires] = [signed.parameters.get("created"), signed.parameters.get("expires")];
  if (created === undefined) fail("the signature does not say when it was created");
  const apart = created * 1000 - leaf.get("timestamp");
  if (Math.abs(apart) > MAX_SKEW_S * 1000) {
    fail(`the signature was created ${Math.floor(Math.abs(apart) / 1000)} s ${apart > 0 ? "after" : "before"} the try`);
  }
  if (expires !== undefined && expires * 1000 <= leaf.get("timestamp")) {
    fail("the signature had expired before the try");
  }
  const status = leaf.get("response_status");
  if (status < 200 || status > 299) fail(`the status ${status} is not a success`);
  return { created, keyId: signed.parameters.get("keyid") ?? null };
}

/** @param {fields.InnerList} signed @param {import("./leaf.js").Leaf} leaf @returns {Uint8Array} RFC 9421 section 2.5 */
function signatureBase(signed, leaf) {
  const digest = (hex) => `sha-256=:${toBase64(fromHex(hex))}:`;
  const values = [
    String(leaf.get("response_status")), digest(leaf.get("response_digest")), leaf.get("event_id"),
    digest(sentHash(leaf)),
  ];
  const lines = signed.items.map(fields.encode).map((name) => `${name}: ${values[COMPONENTS.indexOf(name)]}`);
  return utf8([...lines, LAST_LINE + fields.encode(signed)].join("\n"));
}

/** @param {Uint8Array} base @param {Uint8Array} rebuilt @returns {string} the first line in which they differ */
function difference(base, rebuilt) {
  const [signed, asked] = [fromUtf8(base).split("\n"), fromUtf8(rebuilt).split("\n")];
  const at = asked.findIndex((line, index) => signed[index] !== line);
  if (at < 0 || signed[at] === undefined) return "it has another number of lines";
  return `${asked[at].split(": ")[0]} is ${strict.shown(signed[at])}, the leaf asks for ${strict.shown(asked[at])}`;
}
