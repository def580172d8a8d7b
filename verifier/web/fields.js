/**
 * What the auditor put into the page: reads it when asked, and takes files that are dropped.
 *
 * `page.js` calls it. A file is read no further than its limit, and only when something is to be judged.
 */

import { fromHex, utf8 } from "./bytes.js";
import { ACKNOWLEDGED, ANCHORED } from "./claims.js";
import { MAX_CONSISTENCY_SIZE } from "./consistency.js";
import { MAX_DIRECTORY_SIZE } from "./destination_keys.js";
import { TooLargeError } from "./errors.js";
import { MAX_KEY_SET_SIZE, splitPasted } from "./keys.js";
import { MAX_NOTE_SIZE } from "./note.js";
import { MAX_POLICY_SIZE } from "./policy.js";
import { MAX_PROOF_SIZE } from "./proof.js";

export const MAX_BODY_SIZE = 67108864; // bytes
const DAY_MS = 86400000;

/** Something in the page cannot be used as it stands; the message says what to do. */
export class UsageError extends Error {}

/** @param {string} id @returns {any} the element */
const element = (id) => document.getElementById(id);

/** @param {string} id @returns {boolean} whether a file was chosen */
export function hasFile(id) {
  return element(id).files.length > 0;
}

/** @returns {boolean} whether anything is given from which a trusted key could come */
export function hasKeys() {
  const { keys, keySets } = splitPasted(element("keys").value);
  return keys.length + keySets.length > 0 || hasFile("keySet") || hasFile("policy");
}

/**
 * Reads all that was given; throws UsageError, or TooLargeError for a file beyond its limit.
 * @returns {Promise<import("./judge.js").Raw>}
 */
export async function collect() {
  const { keys, keySets } = splitPasted(element("keys").value);
  const keyFile = await file("keySet", "the key set", MAX_KEY_SET_SIZE);
  const headers = lines("headers").map(utf8);
  const destinationKeys = [
    ...[element("destinationKeys").value].filter((text) => text.trim() !== "").map(utf8),
    ...[await file("destinationKeySet", "the destination's keys", MAX_DIRECTORY_SIZE)].filter((data) => data !== undefined),
  ];
  return {
    proof: await file("proof", "the proof", MAX_PROOF_SIZE),
    keys,
    keySets: keyFile === undefined ? keySets : [...keySets, keyFile],
    successors: await file("successors", "the set of successors", MAX_KEY_SET_SIZE),
    policy: await file("policy", "the policy", MAX_POLICY_SIZE),
    headers,
    destinationKeys,
    // Whatever is given to check a level with makes that level required.
    require: [
      ...(headers.length > 0 ? [ANCHORED] : []),
      ...(destinationKeys.length > 0 ? [ACKNOWLEDGED] : []),
      ...Array.from(document.querySelectorAll("[name=require]:checked"), (box) => box.value),
    ],
    knownCheckpoint: await file("knownCheckpoint", "the signed note", MAX_NOTE_SIZE),
    consistency: await file("consistency", "the consistency proof", MAX_CONSISTENCY_SIZE),
    body: await file("body", "the body", MAX_BODY_SIZE),
    salt: salt(),
    expected: expected(),
    nowMs: Date.now(),
    maxAgeMs: maxAge(),
  };
}

/** Lets files be dropped onto their fields, and onto the rest of the page as the proof. @param {() => void} changed */
export function takeDrops(changed) {
  const zoneOf = (event) => event.target.closest?.(".drop") ?? element("proof").closest(".drop");
  const mark = (zone) => {
    for (const other of document.querySelectorAll(".drop")) other.classList.toggle("dragging", other === zone);
  };
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(zoneOf(event));
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) mark(null);
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark(null);
    if (event.dataTransfer.files.length === 0) return;
    const input = event.target.closest?.("input[type=file]") ?? zoneOf(event).querySelector("input[type=file]");
    input.files = event.dataTransfer.files;
    changed();
  });
}

/** @param {string} id @param {string} what @param {number} limit @returns {Promise<Uint8Array | undefined>} */
async function file(id, what, limit) {
  const [chosen, ...others] = element(id).files;
  if (chosen === undefined) return undefined;
  if (others.length > 0) throw new UsageError(`One file at a time: ${others.length + 1} were dropped for ${what}.`);
  if (chosen.size > limit) throw new TooLargeError(what, limit);
  try {
    return new Uint8Array(await chosen.arrayBuffer());
  } catch (error) {
    throw new UsageError(`The file ${chosen.name} cannot be read. Was it changed, or is it a folder?`, { cause: error });
  }
}

/** @param {string} id @returns {string[]} the lines in a field that are not blank */
function lines(id) {
  return element(id).value.split("\n").map((line) => line.trim()).filter((line) => line !== "");
}

/** @returns {Uint8Array | undefined} */
function salt() {
  const text = element("salt").value.replace(/\s/g, "");
  if (text === "") return undefined;
  if (!/^(?:[0-9a-fA-F]{2})+$/.test(text)) throw new UsageError("The salt must be given in hex digits.");
  if (!hasFile("body")) throw new UsageError("The salt needs the body that was sent.");
  return fromHex(text);
}

/** @returns {Map<string, string>} */
function expected() {
  return new Map(lines("expected").map((line) => {
    const at = line.indexOf("=");
    if (at < 1) throw new UsageError(`What the record must say is given as name=value, not ${line}.`);
    return [line.slice(0, at), line.slice(at + 1)];
  }));
}

/** @returns {number | undefined} milliseconds */
function maxAge() {
  const text = element("maxAge").value.trim();
  if (text === "") return undefined;
  if (!/^[0-9]{1,6}$/.test(text)) throw new UsageError("How old the head may be is given as a whole number of days.");
  return Number(text) * DAY_MS;
}
