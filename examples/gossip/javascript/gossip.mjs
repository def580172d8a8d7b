// Holds a kapsel log to its word: what a destination does with the header `kapsel-checkpoint`.
//
// `check` is all of it: it keeps the last checkpoint, has the log prove that each other one belongs to the same
// history, and throws a Fork if it cannot be so. `open` and `consistent` are what docs/proof-format.md says, with
// nothing but Node (20 or newer). What is below is a destination to try it with:
//
//     node gossip.mjs VKEY CONSOLE_URL FILE [PORT]

import { createHash, verify } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";

// Two signed heads, and the log has not shown that they are of one history: keep both.
export class Fork extends Error {}

// Return what a note says; throw unless the key has signed it for its own log.
export function open(note, vkey) {
  const [, name, id, encoded] = /^([^+]+)\+([0-9a-f]{8})\+(.+)$/.exec(vkey);
  const end = note.lastIndexOf("\n\n");
  const text = note.slice(0, end + 1);
  const x = Buffer.from(encoded, "base64").subarray(1).toString("base64url");
  const key = { key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" };
  const signed = note.slice(end + 2).split("\n").some((line) => {
    const [dash, by, blob] = line.split(" ");
    const bytes = Buffer.from(blob ?? "", "base64");
    return dash === "\u2014" && by === name && bytes.subarray(0, 4).toString("hex") === id &&
      verify(null, Buffer.from(text), key, bytes.subarray(4));
  });
  const [origin, size, root] = text.split("\n");
  if (end < 0 || !signed) throw new Error("the checkpoint is not signed by the log");
  if (origin !== name || !/^(0|[1-9]\d{0,15})$/.test(size)) throw new Error("it is no checkpoint of this log");
  return { size: Number(size), root: Buffer.from(root, "base64") };
}

const hash = (left, right) => createHash("sha256").update(Buffer.concat([Buffer.of(1), left, right])).digest();

// Whether the tree of m leaves is the beginning of the one of n.
export function consistent(m, n, proof, old, fresh) {
  if (m === 0 || m === n) return proof.length === 0 && (m === 0 || old.equals(fresh));
  const path = (BigInt(m) & BigInt(m - 1)) === 0n ? [old, ...proof] : [...proof];
  if (proof.length === 0 || path.some((node) => node.length !== 32)) return false;
  let [f, s] = [BigInt(m - 1), BigInt(n - 1)];
  while (f & 1n) [f, s] = [f >> 1n, s >> 1n];
  let [a, b] = [path[0], path[0]];
  for (const c of path.slice(1)) {
    if (s === 0n) return false;
    if (f & 1n || f === s) {
      [a, b] = [hash(c, a), hash(c, b)];
      while (f && !(f & 1n)) [f, s] = [f >> 1n, s >> 1n];
    } else b = hash(b, c);
    [f, s] = [f >> 1n, s >> 1n];
  }
  return s === 0n && a.equals(old) && b.equals(fresh);
}

// Compare the checkpoint of a delivery with the last one that was kept, and keep the larger.
export async function check(header, vkey, console_, kept) {
  const note = Buffer.from(header, "base64").toString();
  const fresh = open(note, vkey);
  if (existsSync(kept)) {
    const before = readFileSync(kept, "utf8");
    const old = open(before, vkey);
    const [first, second] = old.size <= fresh.size ? [old, fresh] : [fresh, old];
    let proof = [];
    if (0 < first.size && first.size < second.size) {
      const sizes = new URLSearchParams({ old_size: first.size, new_size: second.size, origin: vkey.split("+")[0] });
      const url = `${console_}/api/v1/attestation/consistency-proof?${sizes}`;
      const answer = await fetch(url, { signal: AbortSignal.timeout(10_000) });
      if (!answer.ok) throw new Error(`the log has no proof: ${answer.status} ${await answer.text()}`);
      proof = (await answer.json()).proof.map((node) => Buffer.from(node, "hex"));
    }
    if (!consistent(first.size, second.size, proof, first.root, second.root)) throw new Fork(`${before}\n${note}`);
    if (fresh.size <= old.size) return;
  }
  writeFileSync(`${kept}.new`, note);
  renameSync(`${kept}.new`, kept); // a crash leaves the old one or the new one
}

const [vkey, console_, kept, port] = process.argv.slice(2);
if (kept) {
  let queue = Promise.resolve(); // one after the other: there is one file
  const server = createServer((request, response) => {
    request.resume().on("end", () => {
      const header = request.headers["kapsel-checkpoint"]; // absent before the log has its first head
      if (header) {
        queue = queue.then(() => check(header, vkey, console_, kept)).then(
          () => console.log("ok", open(Buffer.from(header, "base64").toString(), vkey).size),
          (error) => (error instanceof Fork
            ? console.log("FORK", JSON.stringify(error.message))
            : console.log("NOT PROVEN", error.message)), // the console is away, or it has no proof: ask again next time
        );
      }
      response.writeHead(204).end();
    });
  });
  server.listen(Number(port ?? 0), "127.0.0.1", () => console.log("listening on", server.address().port));
}
