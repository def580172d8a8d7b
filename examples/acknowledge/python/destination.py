"""A destination that acknowledges what it gets: python destination.py KEY.pem [PORT].

The handler is where your own code goes: check webhook-signature first, then store the event, then answer.
"""

import asyncio
import base64
import sys

from acknowledge import acknowledge, read_key
from aiohttp import web
from nacl.signing import SigningKey

KEY_ID = "2026-11"


async def take(request: web.Request) -> web.Response:
    body = await request.read()
    return web.json_response({"took": len(body)})


def directory(key: SigningKey) -> web.Response:
    """Where a sender finds the key if its manifest says `wellKnown: {}`."""
    x = base64.urlsafe_b64encode(bytes(key.verify_key)).decode().rstrip("=")
    return web.json_response(
        {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": KEY_ID, "use": "sig", "x": x}]},
        content_type="application/http-message-signatures-directory+json",
    )


async def main(key_file: str, port: int = 0) -> None:
    key = read_key(key_file)

    async def keys(_: web.Request) -> web.Response:
        return directory(key)

    application = web.Application(middlewares=[acknowledge(key, KEY_ID)])
    application.router.add_post("/hooks", take)
    application.router.add_get("/.well-known/http-message-signatures-directory", keys)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    sys.stdout.write(f"listening on http://127.0.0.1:{runner.addresses[0][1]}/hooks\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3 or not all(port.isdecimal() for port in sys.argv[2:]):
        sys.exit(
            "usage: python destination.py KEY.pem [PORT]; make a key: openssl genpkey -algorithm ed25519 -out KEY.pem"
        )
    try:
        asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
    except OSError as error:
        sys.exit(f"destination.py: {error}")
