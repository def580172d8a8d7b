"""What they share: a server on this machine, faults to order, and signatures of both kinds."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import nacl.bindings
from aiohttp import web
from nacl.signing import SigningKey


@dataclass
class Faults:
    """What goes wrong from now on."""

    status: int | None = None  # answer everything with this
    body: object = None  # and say this
    hangs: bool = False  # until `released`
    prehashed: bool = False  # sign as Ed25519ph
    wrong_key: bool = False  # sign with another key than the one that is asked for
    released: asyncio.Event = field(default_factory=asyncio.Event)


class Server:
    """One service; `requests` counts what it was asked, in its own words."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.requests: list[str] = []
        self.url = ""
        self._app = web.Application(middlewares=[self._faulty])
        self._runner = web.AppRunner(self._app, shutdown_timeout=1.0)

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"{'http' if tls is None else 'https'}://{host}:{port}"

    async def stop(self) -> None:
        self.faults.released.set()
        await self._runner.cleanup()

    def route(self, method: str, path: str, handler: Callable[[web.Request], Awaitable[web.Response]]) -> None:
        self._app.router.add_route(method, path, handler)

    @web.middleware
    async def _faulty(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path} {request.headers.get('X-Amz-Target', '')}".strip())
        if self.faults.hangs:
            await self.faults.released.wait()
        if self.faults.status is not None:
            return web.json_response(self.faults.body, status=self.faults.status)
        return await handler(request)

    def signed(self, key: SigningKey, message: bytes) -> bytes:
        """Return a signature as the faults want it."""
        if self.faults.wrong_key:
            key = SigningKey.generate()
        if not self.faults.prehashed:
            return key.sign(message).signature
        state = nacl.bindings.crypto_sign_ed25519ph_state()
        nacl.bindings.crypto_sign_ed25519ph_update(state, message)
        secret = bytes(key) + bytes(key.verify_key)
        return nacl.bindings.crypto_sign_ed25519ph_final_create(state, secret)
