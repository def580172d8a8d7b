// A destination that acknowledges what it gets: node destination.mjs KEY.pem [PORT]
import { createPrivateKey, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { acknowledgement } from "./acknowledge.mjs";

const KEY_ID = "2026-11";
const key = createPrivateKey(readFileSync(process.argv[2])); // what `openssl genpkey -algorithm ed25519` writes

// Where your own code goes: check webhook-signature first, then store the event, then answer.
const take = (body) => ({ status: 200, answer: JSON.stringify({ took: body.length }) });

// Where a sender finds the key if its manifest says `wellKnown: {}`.
const directory = () => {
  const { x } = createPublicKey(key).export({ format: "jwk" });
  return JSON.stringify({ keys: [{ kty: "OKP", crv: "Ed25519", kid: KEY_ID, use: "sig", x }] });
};

const server = createServer(async (request, response) => {
  if (request.url === "/.well-known/http-message-signatures-directory") {
    response.writeHead(200, { "content-type": "application/http-message-signatures-directory+json" });
    response.end(directory());
    return;
  }
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  const { status, answer } = take(body);
  const headers = acknowledgement(key, KEY_ID, request, body, status, answer);
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(answer);
});
server.listen(Number(process.argv[3] ?? 0), "127.0.0.1", () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}/hooks`);
});
