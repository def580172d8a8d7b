"""Where webhooks go: counts what arrives, and fails as real ones do."""

import itertools
from collections import Counter

from aiohttp import web


class Destination:
    """Counts what arrives, by path and webhook-id; `/shaky` answers every third request with 500."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.seen: dict[str, Counter[str]] = {"/steady": Counter(), "/shaky": Counter()}
        self.host = host
        self.port = 0
        self._turn = itertools.count()
        self._runner = web.AppRunner(self._application(), access_log=None)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def _application(self) -> web.Application:
        application = web.Application()
        application.router.add_post("/{name}", self._take)
        return application

    async def _take(self, request: web.Request) -> web.Response:
        await request.read()
        self.seen[request.path][request.headers["webhook-id"]] += 1
        fails = request.path == "/shaky" and next(self._turn) % 3 == 0
        return web.Response(status=500 if fails else 200, text="no" if fails else "yes")

    async def start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, self.host, 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()
