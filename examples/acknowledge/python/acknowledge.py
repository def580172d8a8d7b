"""An aiohttp middleware that signs what a handler took, so that the sender can prove the delivery (RFC 9421).

It signs a success alone, and only if the request carries the Content-Digest of the very body that was read: a sender
that wants no signature sends none. Let it stand around whatever checks webhook-signature. It needs PyNaCl.
"""

import base64
import hashlib
import time
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from nacl.signing import SigningKey

COVERED = '("@status" "content-digest" "webhook-id";req "content-digest";req)'


def read_key(path: str) -> SigningKey:
    """Read what `openssl genpkey -algorithm ed25519` writes: the seed is the end of it."""
    return SigningKey(base64.b64decode("".join(Path(path).read_text().splitlines()[1:-1]))[-32:])


def content_digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def acknowledge(key: SigningKey, key_id: str) -> Middleware:
    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        response = await handler(request)
        digest = content_digest(await request.read())
        wanted = request.headers.get("Content-Digest") == digest and "Webhook-Id" in request.headers
        if (
            not wanted
            or not 200 <= response.status < 300
            or not isinstance(response, web.Response)
            or not isinstance(response.body, bytes | None)
        ):
            return response  # what is streamed cannot be signed
        answer = content_digest(response.body or b"")
        parameters = f'{COVERED};created={int(time.time())};keyid="{key_id}";alg="ed25519";tag="kapsel-ack"'
        base = (
            f'"@status": {response.status}\n"content-digest": {answer}\n'
            f'"webhook-id";req: {request.headers["Webhook-Id"]}\n"content-digest";req: {digest}\n'
            f'"@signature-params": {parameters}'
        )
        signature = base64.b64encode(key.sign(base.encode()).signature).decode()
        response.headers["Content-Digest"] = answer
        response.headers["Signature-Input"] = f"ack={parameters}"
        response.headers["Signature"] = f"ack=:{signature}:"
        return response

    return middleware
