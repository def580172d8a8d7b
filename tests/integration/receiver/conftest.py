"""A receiver on the real database, a client that speaks raw bytes, and a wire that can be cut."""

import asyncio
import hashlib
import hmac
import json
import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from uuid import UUID

import pytest
from prometheus_client import CollectorRegistry

from kapsel_receiver.app import App
from kapsel_receiver.certificates import Certificates
from kapsel_receiver.connection import Limits, Server
from kapsel_receiver.endpoints import Index
from kapsel_receiver.hints import Hints
from kapsel_receiver.intake import Bounds, Intake
from kapsel_receiver.limits import Limiter
from kapsel_receiver.metrics import Metrics
from kapsel_store import configuration
from kapsel_store.rows import Configuration, DestinationRow, EndpointRow, KeyRow, Verification

START = datetime(2026, 1, 1, tzinfo=UTC)
ENDPOINT = UUID("11111111-1111-4111-8111-111111111111")
DESTINATION = UUID("22222222-2222-4222-8222-222222222222")
SECRET = b"It's a Secret to Everybody"
BOUNDS = Bounds(commit_timeout=60.0)
LIMITS = Limits(body_timeout=60.0)


async def until(condition: Callable[[], bool], seconds: float = 240.0) -> None:
    """Wait until a condition holds; fail after a deadline."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


@dataclass(frozen=True)
class Answer:
    """One HTTP response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        assert self.headers["content-type"] == "application/problem+json"
        document = self.json
        assert document["status"] == self.status
        assert document["type"].endswith(document["code"])
        assert document["correlation_id"] == self.headers["x-correlation-id"]
        assert document["title"]
        assert document["detail"]
        return str(document["code"])


@dataclass
class Wire:
    """One TCP connection of a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, head: bool = False, seconds: float = 60.0) -> Answer:
        """Read one whole response; `head`: one without a body."""
        async with asyncio.timeout(seconds):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
            length = 0 if head else int(headers.get("content-length", "0"))
            return Answer(int(lines[0].split(" ")[1]), headers, await self.reader.readexactly(length))

    async def closed(self, seconds: float = 60.0) -> bool:
        """Wait until the other side has closed."""
        async with asyncio.timeout(seconds):
            with suppress(ConnectionError):
                return await self.reader.read() == b""
        return True


def post(
    body: bytes = b"{}", headers: dict[str, str] | None = None, path: str = "/ingest/shop/orders", method: str = "POST"
) -> bytes:
    """Return the bytes of one request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: kapsel", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape") + body


def signed(body: bytes, secret: bytes = SECRET) -> dict[str, str]:
    """Return GitHub's signature header."""
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()}


def endpoint(**changes: Any) -> EndpointRow:
    """Return an endpoint that asks for no proof, unless told otherwise."""
    fields: dict[str, Any] = {
        "id": ENDPOINT,
        "namespace": "shop",
        "name": "orders",
        "verification": Verification(scheme="none"),
    }
    return EndpointRow(**(fields | changes))


def key(secret: bytes = SECRET, **changes: Any) -> KeyRow:
    """Return a key named "in" that is live since 2026."""
    fields: dict[str, Any] = {
        "id": UUID(int=5),
        "namespace": "shop",
        "name": "in",
        "version": 1,
        "algorithm": "HMAC-SHA256",
        "secret": secret,
        "not_before": START,
    }
    return KeyRow(**(fields | changes))


class Proxy:
    """A whole TCP proxy in front of Postgres: it can refuse, cut and hang connections."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Bound to the end and never listening, so that nobody else gets the port while connections are refused.
        self._held = socket.socket()
        self._held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._held.bind(("127.0.0.1", 0))
        self.port: int = self._held.getsockname()[1]
        self.lose_answer_to: bytes | None = None  # cut everything when the answer to what holds these bytes comes

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_port=True)

    def refuse(self) -> None:
        """Cut all connections and take no more."""
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def hang(self) -> None:
        """Let nothing through, and close nothing."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def close(self) -> None:
        self.flow()
        if self._server is not None:
            self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._held.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(self._socket_path)
        self._writers |= {writer, ours}
        losing = asyncio.Event()  # the next answer on this connection shall not arrive
        for source, sink, answers in ((reader, ours, False), (theirs, writer, True)):
            task = asyncio.create_task(self._pump(source, sink, answers, losing))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool, losing: asyncio.Event
    ) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                await self._flowing.wait()
                if answers and losing.is_set():
                    self.cut()
                    return
                if not answers and self.lose_answer_to is not None and self.lose_answer_to in data:
                    self.lose_answer_to = None
                    losing.set()
                sink.write(data)
                await sink.drain()
        sink.transport.abort()


@dataclass
class Receiver:
    """A receiver that runs inside the test."""

    database: Any
    pool: Any
    index: Index
    intake: Intake
    app: App
    registry: CollectorRegistry
    server: Server
    port: int
    wires: list[Wire] = field(default_factory=list)

    async def connect(self) -> Wire:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self.port))
        self.wires.append(wire)
        return wire

    async def exchange(self, data: bytes, *, head: bool = False) -> Answer:
        """Send bytes on a fresh connection and return the answer."""
        wire = await self.connect()
        wire.send(data)
        return await wire.answer(head=head)

    def count(self, result: str, label: str = "shop/orders") -> float:
        """Return webhook_ingestion_total of one result."""
        found = self.registry.get_sample_value("webhook_ingestion_total", {"endpoint": label, "result": result})
        return found or 0.0

    async def rows(self, query: str) -> list[Any]:
        """Ask the database directly, past every proxy."""
        connection = await self.database.connection()
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    async def commits_blocked(self, number: int) -> None:
        """Wait until so many commits of the receiver wait for a lock."""
        query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'kapsel-receiver'"
        async with asyncio.timeout(60):
            while len(await self.rows(query)) != number:
                await asyncio.sleep(0.01)

    async def events(self) -> list[Any]:
        return await self.rows("SELECT * FROM events ORDER BY id")


@pytest.fixture
async def receive(database: Any) -> AsyncIterator[Any]:
    """Return a context manager that runs a receiver for some endpoints."""
    return _Receivers(database)


class _Receivers:
    def __init__(self, database: Any) -> None:
        self._database = database

    @asynccontextmanager
    async def __call__(
        self,
        *endpoints: EndpointRow,
        keys: tuple[KeyRow, ...] = (),
        destinations: tuple[DestinationRow, ...] = (
            DestinationRow(id=DESTINATION, endpoint_id=ENDPOINT, name="billing", url="https://a.example"),
        ),
        url: str | None = None,
        bounds: Bounds = BOUNDS,
        limits: Limits = LIMITS,
        loaded: bool = True,
        **clocks: Callable[[], Any],
    ) -> AsyncIterator[Receiver]:
        desired = Configuration(
            endpoints=endpoints or (endpoint(),),
            destinations=destinations,
            keys=keys,
        )
        connection = await self._database.connection()
        await configuration.apply(connection, self._database.sealing, desired, actor="test")
        await connection.close()
        pool = await self._pool(url)
        registry = CollectorRegistry()
        metrics = Metrics(registry)
        limiter = Limiter(pool, "test")
        index = Index(limiter.ask, clocks.get("monotonic", asyncio.get_running_loop().time))
        if loaded:
            index.replace(desired)
        hints = Hints(pool)
        intake = Intake(pool, metrics, hints, bounds, random.Random(0))
        intake.configure(desired)
        app = App(index, intake, metrics, Certificates(pool, patience=60.0), **clocks)
        server = Server(app, limits)
        listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        tasks = [asyncio.create_task(work) for work in (server.sweep(), hints.run(), limiter.run())]
        committing = asyncio.create_task(intake.run())
        receiver = Receiver(self._database, pool, index, intake, app, registry, server, port)
        try:
            if url is None:
                await until(lambda: intake.check() is None)
            yield receiver
        finally:
            for wire in receiver.wires:
                wire.writer.close()
            listening.close()
            await server.shutdown(1.0)
            intake.close()
            async with asyncio.timeout(60):
                await committing
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            pool.terminate()

    async def _pool(self, url: str | None) -> Any:
        self_url, self._database.url = self._database.url, url or self._database.url
        try:
            return await self._database.pool("receiver", size=4)
        finally:
            self._database.url = self_url


@pytest.fixture
async def proxy(database: Any) -> AsyncIterator[tuple[Proxy, str]]:
    """A proxy in front of the database, and the URL that goes through it."""
    parts = urlsplit(database.url)
    query = dict(parse_qsl(parts.query))
    made = Proxy(f"{query['host']}/.s.PGSQL.{query.get('port', '5432')}")
    await made.open()
    yield made, f"postgresql://{query['user']}@127.0.0.1:{made.port}{parts.path}"
    await made.close()


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Any]]:
    """Open connections that end with the test."""
    opened: list[Wire] = []

    async def one(port: int) -> Wire:
        opened.append(Wire(*await asyncio.open_connection("127.0.0.1", port)))
        return opened[-1]

    yield one
    for wire in opened:
        wire.writer.close()


@pytest.fixture(name="post")
def post_fixture() -> Callable[..., bytes]:
    return post


@pytest.fixture(name="signed")
def signed_fixture() -> Callable[..., dict[str, str]]:
    return signed


@pytest.fixture(name="endpoint")
def endpoint_fixture() -> Callable[..., EndpointRow]:
    return endpoint


@pytest.fixture(name="key")
def key_fixture() -> Callable[..., KeyRow]:
    return key


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., Any]:
    return until
