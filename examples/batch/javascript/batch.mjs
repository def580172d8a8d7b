// Takes webhooks that come together: a destination that declares `batch`, to start from.
//
// `take` is all of it, with nothing but Node (20 or newer). What is below keeps each webhook as a file, to try it with:
//
//     kapsel secret NAMESPACE/KEY > secret
//     node batch.mjs secret FOLDER [PORT]

import { createHmac, timingSafeEqual } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { basename, join } from "node:path";

const LARGEST = 32 << 20; // bytes of a request: maxBytes of the destination, or one webhook that is larger by itself

// Whether one of the signatures is good, and its time within five minutes of ours.
function isGenuine(key, headers, body) {
  const timestamp = headers["webhook-timestamp"] ?? "";
  if (!/^\d{1,12}$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) return false;
  const mac = createHmac("sha256", key).update(`${headers["webhook-id"]}.${timestamp}.`).update(body);
  const good = Buffer.from(`v1,${mac.digest("base64")}`);
  return (headers["webhook-signature"] ?? "").split(" ").some((each) => { // several while a key is rotated
    const offered = Buffer.from(each);
    return offered.length === good.length && timingSafeEqual(offered, good);
  });
}

// Returns the headers and the body of one webhook; throws if it is none.
function opened(item) {
  const { headers, body, body_base64 } = item;
  const content = typeof body === "string" ? Buffer.from(body) : Buffer.from(body_base64, "base64");
  if (typeof headers["webhook-id"] !== "string") throw new Error("it has no webhook-id");
  return [headers, content];
}

// Handles each webhook of a request that was not seen before; returns the status and the answer.
export async function take(key, headers, body, seen, handle) {
  if (!isGenuine(key, headers, body)) return [401, { error: "it is not signed with this key, or not just now" }];
  let webhooks = [];
  try {
    webhooks = JSON.parse(body.toString()).map(opened);
  } catch {} // it is no list, or not of webhooks
  if (webhooks.length === 0) return [400, { error: "it is no batch" }];
  const failures = [];
  for (const [itsHeaders, itsBody] of webhooks) {
    const id = itsHeaders["webhook-id"];
    try {
      if (!(await seen(id))) await handle(itsHeaders, itsBody);
    } catch (error) { // whatever it is, this one is sent again, and the others are done
      console.error(id, "failed:", error);
      failures.push({ itemIdentifier: id });
    }
  }
  return [200, { batchItemFailures: failures }];
}

// Where your own code goes: whatever `handle` has kept, `seen` must find afterwards.
const folder = (place) => {
  const fileOf = (id) => join(place, basename(id));
  return {
    seen: (id) => existsSync(fileOf(id)),
    handle: (headers, body) => {
      const file = fileOf(headers["webhook-id"]);
      writeFileSync(`${file}.new`, body);
      renameSync(`${file}.new`, file); // a crash leaves all of it or nothing
    },
  };
};

const [secretFile, place, port] = process.argv.slice(2);
if (place) {
  const [, encoded] = /^whsec_([A-Za-z0-9+/]{4,}=*)$/.exec(readFileSync(secretFile, "utf8").trim()) ?? [];
  if (!encoded) throw new Error(`${secretFile} holds no whsec_ secret`);
  const key = Buffer.from(encoded, "base64");
  const { seen, handle } = folder(place);
  const server = createServer(async (request, response) => {
    const answer = (status, said) => {
      response.writeHead(status, { "content-type": "application/json" });
      response.end(JSON.stringify(said));
    };
    const length = Number(request.headers["content-length"]);
    if (!(length <= LARGEST)) return answer(413, { error: "it is too large, or of no length" });
    const chunks = [];
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      return; // it was cut off
    }
    answer(...(await take(key, request.headers, Buffer.concat(chunks), seen, handle)));
  });
  server.listen(Number(port ?? 0), "127.0.0.1", () => {
    console.log(`listening on http://127.0.0.1:${server.address().port}/hooks`);
  });
}
