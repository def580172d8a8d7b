"""An HTTP proxy in front of a real API server that counts what passes and fails as a test tells it to.

Processes under test talk plain HTTP to it; it talks TLS to the API server, with the credentials of a kubeconfig.
"""

import asyncio
import base64
import re
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_HOP_BY_HOP = frozenset({"connection", "content-length", "content-encoding", "host", "keep-alive", "transfer-encoding"})


@dataclass(frozen=True)
class Passed:
    """A request that came by."""

    method: str
    path: str  # with its query
    body: bytes = field(repr=False)

    @property
    def is_write(self) -> bool:
        """Whether it changes anything; renewals of a Lease are no work."""
        return self.method in WRITES and "/leases" not in self.path and "dryRun" not in self.path

    @property
    def is_watch(self) -> bool:
        return "watch=true" in self.path


Answer = web.StreamResponse | None
Fault = Callable[[Passed], Answer]


class FaultyProxy:
    """One proxy; use it with `async with`."""

    def __init__(self, kubeconfig: Path, directory: Path) -> None:
        self.server, self._ssl, self._token = _credentials(kubeconfig)
        self.kubeconfig = directory / "proxy.kubeconfig"
        self.passed: list[Passed] = []
        self.fault: Fault = lambda _: None  # an answer in the API server's place
        self.after_write: Callable[[Passed], None] = lambda _: None  # once the API server has taken it
        self.blind = False  # watches are accepted and tell nothing
        self.swallowed: list[bytes] = []  # what they would have told
        self._watches: set[asyncio.Transport] = set()

    async def __aenter__(self) -> "FaultyProxy":
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._ssl, limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        self.kubeconfig.write_text(_kubeconfig(self._runner.addresses[0][1]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.drop_watches()
        await self._runner.cleanup()
        await self._session.close()

    @property
    def writes(self) -> list[Passed]:
        """What was written through it, besides Leases."""
        return [one for one in self.passed if one.is_write]

    def drop_watches(self) -> None:
        """Cut every watch off in the middle."""
        for transport in list(self._watches):
            transport.abort()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        passed = Passed(request.method, request.path_qs, await request.read())
        self.passed.append(passed)
        answer = self.fault(passed)
        if answer is not None:
            return answer
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        url = self.server + request.path_qs
        async with self._session.request(request.method, url, data=passed.body or None, headers=headers) as response:
            if passed.is_watch:
                return await self._stream(request, response)
            body = await response.read()
            if passed.is_write and response.status < 400:
                self.after_write(passed)
            return web.Response(status=response.status, body=body, content_type=response.content_type)

    async def _stream(self, request: web.Request, response: aiohttp.ClientResponse) -> web.StreamResponse:
        answer = web.StreamResponse(status=response.status, headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._watches.add(transport)
        try:
            async for chunk in response.content.iter_any():
                if self.blind:
                    self.swallowed.append(chunk)
                else:
                    await answer.write(chunk)
        except (ConnectionError, aiohttp.ClientError):
            pass
        finally:
            self._watches.discard(transport)
        return answer


def refusal(status: int, **headers: str) -> web.Response:
    """Return an error as an API server words it."""
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "code": status,
        "message": f"a test says {status}",
    }
    return web.json_response(body, status=status, headers=headers)


def matching(pattern: str, make: Callable[[], web.StreamResponse], times: int = 1_000_000) -> Fault:
    """Return a fault for the first requests whose method and path match."""
    left = [times]

    def fault(passed: Passed) -> Answer:
        if left[0] <= 0 or not re.search(pattern, f"{passed.method} {passed.path}"):
            return None
        left[0] -= 1
        return make()

    return fault


def _credentials(kubeconfig: Path) -> tuple[str, ssl.SSLContext, str | None]:
    read: Any = yaml.safe_load(kubeconfig.read_text())
    cluster, user = read["clusters"][0]["cluster"], read["users"][0]["user"]
    context = ssl.create_default_context(cadata=_content(cluster, "certificate-authority").decode())
    if "client-certificate" in user or "client-certificate-data" in user:
        with tempfile.TemporaryDirectory() as directory:
            files = [Path(directory) / name for name in ("crt", "key")]
            for path, name in zip(files, ("client-certificate", "client-key"), strict=True):
                path.write_bytes(_content(user, name))
            context.load_cert_chain(*files)
    return cluster["server"], context, user.get("token")


def _content(part: dict[str, str], name: str) -> bytes:
    if f"{name}-data" in part:
        return base64.b64decode(part[f"{name}-data"])
    return Path(part[name]).read_bytes()


def _kubeconfig(port: int) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        }
    )
