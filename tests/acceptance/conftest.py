"""The whole of kapsel as its users run it: `kapsel up` on a directory, with a destination and a producer beside it."""

import asyncio
import hashlib
import hmac
import itertools
import json
import os
import secrets
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
import psutil
import pytest
from aiohttp import web

from kapsel_cli.postgres import EmbeddedPostgres

START_SECONDS: Final = 60.0
SECRET: Final = "It's a Secret to Everybody"

MANIFESTS: Final = """
apiVersion: v1
kind: Secret
metadata: {{name: in, namespace: crash}}
stringData: {{github: "{secret}"}}
---
apiVersion: kapsel.dev/v1alpha1
kind: SigningKey
metadata: {{name: in, namespace: crash}}
spec: {{algorithm: HMAC-SHA256, source: Secret, secretRef: {{name: in}}}}
---
apiVersion: kapsel.dev/v1alpha1
kind: Relay
metadata: {{name: main, namespace: crash}}
spec:
  egress: {{allowedCIDRs: [127.0.0.0/8], allowHTTP: true}}
---
apiVersion: kapsel.dev/v1alpha1
kind: AttestationLog
metadata: {{name: log, namespace: crash}}
spec:
  origin: crash.test/log
  publication: {{interval: 1s}}
---
apiVersion: kapsel.dev/v1alpha1
kind: RetryPolicy
metadata: {{name: quick, namespace: crash}}
spec:
  backoff: {{type: Exponential, initial: 50ms, factor: 2, max: 500ms, jitter: 0.5}}
  maxAttempts: 100
---
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {{name: in, namespace: crash}}
spec:
  verification: {{github: {{signingKeyRef: {{name: in}}}}}}
  idempotency: {{source: Provider}}
  destinations:
  - name: steady
    url: http://127.0.0.1:{port}/steady
    retryPolicyRef: {{name: quick}}
    timeout: 2s
  - name: shaky
    url: http://127.0.0.1:{port}/shaky
    retryPolicyRef: {{name: quick}}
    timeout: 2s
"""


class Destination:
    """Counts what arrives, by path and webhook-id; `/shaky` answers every third request with 500."""

    def __init__(self) -> None:
        self.seen: dict[str, Counter[str]] = {"/steady": Counter(), "/shaky": Counter()}
        self.port = 0
        self._turn = itertools.count()
        self._runner = web.AppRunner(self._application(), access_log=None)

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
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self._runner.cleanup()


class Up:
    """One `kapsel up` process on a data directory that outlives it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.manifests = directory / "manifests"
        self.data_dir = directory / "data"
        self.log = directory / "up.log"
        self.state: dict[str, Any] = {}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def database_url(self) -> str:
        return EmbeddedPostgres(self.data_dir).url

    async def start(self, *arguments: str) -> None:
        """Start it and wait until it says where it can be reached."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "kapsel_cli", "up", str(self.manifests)),
                *("--data-dir", str(self.data_dir), "--port", "0", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        async with asyncio.timeout(START_SECONDS):
            while not self._read_state():
                assert self._process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.02)

    def _read_state(self) -> bool:
        assert self._process is not None
        with suppress(FileNotFoundError, json.JSONDecodeError):
            self.state = json.loads((self.data_dir / "up.json").read_text())
        return self.state.get("pid") == self._process.pid

    async def stop(self) -> int:
        """Drain it and return the exit code."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self._process.wait(), 60)

    async def kill(self) -> None:
        """Kill the supervisor itself, with no chance to stop its children."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def child(self, name: str) -> psutil.Process | None:
        """Return a running child: a component's process, or the postmaster."""
        assert self._process is not None
        mark = "/bin/postgres -D" if name == "postgres" else f"kapsel_{name}"
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if mark in " ".join(child.cmdline()):
                        return child
        return None

    async def connection(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.database_url, server_settings={"search_path": "kapsel"})


class Producer:
    """Posts numbered webhooks as GitHub signs them, again and again until each is accepted."""

    def __init__(self, ingest: str) -> None:
        self.url = f"{ingest}/ingest/crash/in"
        self.accepted: dict[str, str] = {}  # delivery id of the provider -> event id

    async def send(self, session: aiohttp.ClientSession, number: int) -> None:
        """Post one webhook until it is accepted."""
        body = json.dumps({"number": number, "padding": secrets.token_hex(200)}).encode()
        guid = f"delivery-{number}"
        headers = {
            "Content-Type": "application/json",
            "X-GitHub-Event": "push",
            "X-GitHub-Delivery": guid,
            "X-Hub-Signature-256": "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest(),
        }
        async with asyncio.timeout(60):
            while guid not in self.accepted:
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with session.post(self.url, data=body, headers=headers) as answer:
                        if answer.status == 202:
                            self.accepted[guid] = (await answer.json())["id"]
                            return
                        assert answer.status in (429, 503), await answer.text()
                await asyncio.sleep(0.02)

    async def run(self, count: int, at_once: int = 16) -> None:
        """Post `count` webhooks, so many at once."""
        numbers = iter(range(count))
        timeout = aiohttp.ClientTimeout(total=10)

        async def work() -> None:
            for number in numbers:
                await self.send(session, number)

        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(work())


@pytest.fixture
async def destination() -> AsyncIterator[Destination]:
    made = Destination()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def up(tmp_path: Path, destination: Destination) -> AsyncIterator[Up]:
    """A `kapsel up` that has not been started yet."""
    made = Up(tmp_path)
    made.manifests.mkdir()
    (made.manifests / "crash.yaml").write_text(MANIFESTS.format(secret=SECRET, port=destination.port))
    yield made
    with suppress(AssertionError, ProcessLookupError):
        await made.stop()
    if os.environ.get("CI"):
        print(made.log.read_text() if made.log.exists() else "")


@pytest.fixture
def make_producer() -> type[Producer]:
    """The producer, to be made once the ingest URL is known."""
    return Producer
