// Signs what a node:http handler took, so that the sender can prove the delivery (RFC 9421). No dependencies.
import { createHash, sign } from "node:crypto";

const COVERED = '("@status" "content-digest" "webhook-id";req "content-digest";req)';

const contentDigest = (body) => `sha-256=:${createHash("sha256").update(body).digest("base64")}:`;

// Returns the headers to send with an answer: none unless it is a success, and the request carries the Content-Digest of
// the very body that was read. A sender that wants no signature sends none. Call it after webhook-signature was checked.
export function acknowledgement(key, keyId, request, body, status, answer) {
  const digest = contentDigest(body);
  const wanted = request.headers["content-digest"] === digest && request.headers["webhook-id"];
  if (!wanted || status < 200 || status > 299) return {};
  const answered = contentDigest(answer);
  const created = Math.floor(Date.now() / 1000);
  const parameters = `${COVERED};created=${created};keyid="${keyId}";alg="ed25519";tag="kapsel-ack"`;
  const base = [
    `"@status": ${status}`,
    `"content-digest": ${answered}`,
    `"webhook-id";req: ${request.headers["webhook-id"]}`,
    `"content-digest";req: ${digest}`,
    `"@signature-params": ${parameters}`,
  ].join("\n");
  const signature = sign(null, Buffer.from(base), key).toString("base64");
  return { "content-digest": answered, "signature-input": `ack=${parameters}`, signature: `ack=:${signature}:` };
}
