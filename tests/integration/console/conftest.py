"""A console on a real port over a real Postgres, and a world for it to show: endpoints, webhooks, tries, a log."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import aiohttp
import asyncpg
import openapi_document
import pytest
import queued
from aiohttp import web
from nacl.signing import SigningKey
from prometheus_client import CollectorRegistry

from kapsel_attestor.fence import FileFence
from kapsel_attestor.publisher import publish
from kapsel_attestor.sequencer import Sequencer
from kapsel_attestor.signers.gate import Gate
from kapsel_attestor.signers.seeds import SeedBackend
from kapsel_attestor.signers.signer import Signer
from kapsel_console import openapi
from kapsel_console.app import INDEX, ROUTES, build
from kapsel_console.context import Context
from kapsel_console.metrics import Metrics
from kapsel_console.openness import Visitors
from kapsel_console.storage import Storage
from kapsel_console.tokens import Tokens
from kapsel_store import configuration, deliveries, events, tlog
from kapsel_store.configuration import Source
from kapsel_store.database import CONFIGURATION_CHANNEL, Listener
from kapsel_store.rows import (
    AttemptRow,
    Claimed,
    Configuration,
    DestinationRow,
    EndpointRow,
    KeyRow,
    LogRow,
    NewEvent,
    Result,
    Verification,
)
from kapsel_store.states import State
from kapsel_store.tlog import HeadRow
from kapsel_verifier.note import VerifierKey

ORIGIN = "kapsel.example/test"
LEASE = timedelta(minutes=10)  # several commands may run within it
DEADLINE = 240.0
EVERYWHERE = ("token_required", "token_wrong", "unknown_host", "cross_origin")  # also where there is nothing
SEED = SigningKey(bytes(range(32)))


def endpoint(name: str, namespace: str = "shop", scheme: str = "none") -> EndpointRow:
    return EndpointRow(id=uuid4(), namespace=namespace, name=name, verification=Verification(scheme=scheme))


def destination(of: EndpointRow, name: str, **fields: Any) -> DestinationRow:
    return DestinationRow(id=uuid4(), endpoint_id=of.id, name=name, url="https://billing.example.com/hooks", **fields)


def log_key(**fields: Any) -> KeyRow:
    made = KeyRow(
        id=uuid4(),
        namespace="default",
        name="log",
        version=1,
        algorithm="Ed25519",
        secret=bytes(SEED),
        public=bytes(SEED.verify_key),
        not_before=datetime.now(UTC) - timedelta(days=1),
    )
    return replace(made, **fields)


@dataclass
class World:
    """What is stored, made by the functions that the other processes use."""

    connection: asyncpg.Connection
    sealing: Any
    fence: Path
    orders: EndpointRow = field(default_factory=lambda: endpoint("orders", scheme="github"))
    other: EndpointRow = field(default_factory=lambda: endpoint("other"))
    clock: int = field(default_factory=lambda: time.time_ns() // 1_000_000)

    def __post_init__(self) -> None:
        self.billing = destination(self.orders, "billing")
        self.crm = destination(self.other, "crm")
        self.desired = Configuration(
            endpoints=(self.orders, self.other),
            destinations=(self.billing, self.crm),
            keys=(log_key(),),
            log=LogRow(namespace="default", name="log", origin=ORIGIN, key_name="log"),
        )

    async def apply(self, **changed: Any) -> None:
        self.desired = replace(self.desired, **changed)
        await configuration.apply(self.connection, self.sealing, self.desired, actor="test")

    async def put(
        self, count: int = 1, *, to: DestinationRow | None = None, body: bytes = b'{"a": 1}', key: str | None = None
    ) -> list[NewEvent]:
        """Store webhooks as the receiver does."""
        to = to or self.billing
        batch = [
            queued.event(to.endpoint_id, [queued.delivery(to, timedelta(hours=1), key)], body=body)._replace(
                headers='[["X-GitHub-Event", "push"]]', correlation_id="abc"
            )
            for _ in range(count)
        ]
        await events.insert(self.connection, batch)
        return batch

    async def attempt(
        self,
        state: State = State.DELIVERED,
        *,
        to: DestinationRow | None = None,
        count: int = 100,
        detail: str | None = None,
    ) -> list[AttemptRow]:
        """Try what is due, as the deliverer does, with this end."""
        to = to or self.billing
        lease, claimed = await deliveries.claim(self.connection, {to.id: count}, LEASE)
        results = [self._result(one, to, lease, state, detail) for one in claimed]
        await deliveries.record(self.connection, results)
        return [result.attempt for result in results]

    def _result(
        self, claimed: Claimed, to: DestinationRow, lease: UUID, state: State, detail: str | None = None
    ) -> Result:
        fine = state is State.DELIVERED
        made = queued.result(claimed, lease, state, timedelta(hours=1) if state is State.PENDING else None)
        attempt = made.attempt._replace(
            duration=timedelta(microseconds=3210),
            detail=detail,
            url=to.url,
            payload_commitment=os.urandom(32),
            signature_digest=os.urandom(32),
            response_headers='[["Content-Type", "text/plain"]]',
            response_body=b"\xff\xfe" if not fine else b"thanks",
            response_size=6,
            response_digest=os.urandom(32),
        )
        return made._replace(attempt=attempt)

    async def sequence(self) -> int:
        """Put all attempts into the log, as the attestor does."""
        log = await tlog.open_log(self.connection, ORIGIN)
        sequencer = await Sequencer.open(self.connection, log)
        while await sequencer.integrate(self.connection, 1000):
            pass
        return sequencer.log.tree_size

    async def publish(self) -> HeadRow:
        """Sign and publish a head."""
        log = await tlog.open_log(self.connection, ORIGIN)
        row = log_key()
        signer = Signer(
            key=VerifierKey(ORIGIN, bytes(SEED.verify_key)),
            key_id=row.id,
            where="the key of the tests",
            not_before=row.not_before,
            not_after=None,
            backend=SeedBackend(row.secret),
            gate=Gate(),
        )
        self.clock += 1000
        return await publish(self.connection, log, FileFence(self.fence, ORIGIN), [signer], lambda: self.clock)

    async def delivered(self, count: int = 1) -> list[AttemptRow]:
        """Store, deliver, sequence and publish so many webhooks."""
        await self.put(count)
        attempts = await self.attempt(count=count)
        await self.sequence()
        await self.publish()
        return attempts


@dataclass
class Server:
    """A console, and somebody who asks it."""

    url: str
    session: aiohttp.ClientSession
    source: Source
    registry: CollectorRegistry
    app: web.Application

    async def ask(self, path: str, *, method: str = "GET", **options: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Return status, content (JSON if it is) and response."""
        async with self.session.request(method, self.url + path, **options) as response:
            content: Any = await response.read()
            if "json" in response.headers.get("Content-Type", ""):
                content = await response.json(content_type=None)
            if response.content_type == "application/problem+json":
                assert _undescribed(method, response.url.path, content) == []
            return response.status, content, response

    async def get(self, path: str) -> Any:
        """Return the content of a good answer."""
        status, content, _ = await self.ask(path)
        assert status == 200, content
        return content

    async def raw(self, path: str) -> tuple[bytes, Any]:
        """Return the bytes of a good answer, and its headers."""
        async with self.session.get(self.url + path) as response:
            assert response.status == 200
            return await response.read(), response.headers

    async def problem(self, path: str, *, method: str = "GET", **options: Any) -> tuple[int, str, str]:
        """Return status, code and detail of a problem."""
        status, content, response = await self.ask(path, method=method, **options)
        assert response.content_type == "application/problem+json"
        assert content["status"] == status
        return status, content["code"], content["detail"]

    def counted(self, **labels: str) -> float:
        return self.registry.get_sample_value("console_requests_total", labels) or 0.0


def _undescribed(method: str, path: str, problem: Any) -> list[str]:
    """Return in what a problem is not one that the OpenAPI document has for its path and status."""
    document = openapi.document((INDEX, *ROUTES))
    operation = openapi_document.described(document, method, path)
    if operation is None:  # so it is about that
        return [] if problem["code"] in ("unknown_route", "method_not_allowed", *EVERYWHERE) else [problem["code"]]
    answer = operation["responses"].get(str(problem["status"]))
    if answer is None:
        return [f"{method} {path} answers with {problem['code']}, which is not described"]
    schema = openapi_document.resolved(document, answer["$ref"])["content"]["application/problem+json"]["schema"]
    return openapi_document.wrong(document, schema, problem)


@pytest.fixture
async def world(database, tmp_path: Path) -> AsyncIterator[World]:
    made = World(await database.connection(), database.sealing, tmp_path / "fence.json")
    await made.apply()
    yield made
    await made.connection.close()


@pytest.fixture
async def serve(database) -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    """Start consoles: serve(pool=..., timeout=..., host=..., tokens=..., visitors=...)."""
    cleanups: list[Callable[[], Awaitable[object]]] = []

    async def start(
        *,
        pool: Any = None,
        timeout: float = 10.0,
        host: str = "127.0.0.1",
        tokens: Tokens | None = None,
        visitors: Visitors | None = None,
    ) -> Server:
        pool = pool or await database.pool("console")
        listener = Listener(
            database.url, role="kapsel_console", schema=database.schema, component="console",
            channels=(CONFIGURATION_CHANNEL,),
        )  # fmt: skip
        source = Source(pool, database.sealing, listener)
        context = Context(storage=Storage(pool, timeout), source=source, now=lambda: datetime.now(UTC))
        registry = CollectorRegistry()
        app = build(context, Metrics(registry), host, tokens, visitors)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE))
        cleanups.extend((runner.cleanup, session.close))
        return Server(f"http://127.0.0.1:{runner.addresses[0][1]}", session, source, registry, app)

    yield start
    for cleanup in reversed(cleanups):
        await cleanup()


@pytest.fixture
async def console(serve, world: World) -> Server:
    return await serve()


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str
    raw: bytes


class Cli:
    """Runs `kapsel` as people do, as a process of its own in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "kapsel_cli",
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # A shell that runs the tests in the background has them ignore Ctrl-C, and they would pass that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            cwd=self.directory,
            env={**os.environ, **environment},
        )

    async def __call__(self, *arguments: str, stdin: bytes = b"", **environment: str) -> Ran:
        process = await self.start(*arguments, **environment)
        out, err = await asyncio.wait_for(process.communicate(stdin), DEADLINE)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(errors="replace"), err.decode(), out)


@pytest.fixture
def kapsel(tmp_path: Path) -> Cli:
    """The command, in a directory of its own where nothing runs."""
    directory = tmp_path / "work"
    directory.mkdir()
    return Cli(directory)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + DEADLINE
    while not await condition():
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)
