"""A whole deliverer over a real Postgres, destinations that behave as they are told, and a wire that can be cut."""

import asyncio
import hashlib
import os
import re
import shutil
import ssl
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from uuid import UUID, uuid4

import aiohttp
import pytest
import wires
from aiohttp import web
from pydantic import SecretStr
from serving import Serving
from system_names import System

from kapsel_deliverer import names
from kapsel_deliverer.__main__ import serve
from kapsel_deliverer.names import LookUp
from kapsel_deliverer.settings import DelivererSettings
from kapsel_store import attempts, circuits, configuration, database, deliveries, events, hints, ids, processes
from kapsel_store.attempts import ListedAttempt
from kapsel_store.circuits import CircuitRow
from kapsel_store.deliveries import DeliveryRow
from kapsel_store.rows import (
    Backoff,
    Configuration,
    DestinationRow,
    EndpointRow,
    KeyRow,
    NewDelivery,
    NewEvent,
    Policy,
    RelayRow,
    Verification,
)
from kapsel_store.states import State

TLS = Path(__file__).parent / "tls"
LOOPBACK = RelayRow(allowed_cidrs=("127.0.0.0/8", "::1/128"), allow_http=True)
QUICK = Backoff(initial=timedelta(milliseconds=20), factor=1, max=timedelta(milliseconds=20), jitter=0)
PATIENCE = 240.0
START_SECONDS = 480.0  # also for a Go that has compiled nothing yet


@pytest.fixture
def kit() -> ModuleType:
    """This module, for tests: with importlib mode they cannot import it."""
    return sys.modules[__name__]


Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def eventually(condition: Callable[[], Awaitable[object]], what: str = "the condition") -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, f"{what} did not come to hold"
        await asyncio.sleep(0.01)


@dataclass
class Received:
    """One request as the destination saw it."""

    headers: dict[str, str]
    body: bytes


class Destination:
    """A real HTTP server that answers what `answer` makes, and keeps what it got."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.under_way = 0
        self.most_under_way = 0
        self.statuses: list[int] = []  # answered in turn; after that 200
        self.answer: Answer = self._next_status
        self.url = ""

    async def _next_status(self, _: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200, text="thanks")

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            body = await request.read()
            self.received.append(Received({name.lower(): value for name, value in request.headers.items()}, body))
            return await self.answer(request)
        finally:
            self.under_way -= 1

    async def start(self, context: ssl.SSLContext | None = None) -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/hooks"
        return runner

    async def got(self, count: int) -> list[Received]:
        async def enough() -> bool:
            return len(self.received) >= count

        await eventually(enough, f"{count} requests, of which {len(self.received)} came,")
        return self.received


@pytest.fixture
async def destination() -> AsyncIterator[Destination]:
    """A destination that answers 200, or what a test sets."""
    made = Destination()
    runner = await made.start()
    yield made
    await runner.cleanup()


@pytest.fixture
def system() -> Iterator[System]:
    """A resolver that names can hang in."""
    made = System()
    yield made
    made.released.set()  # so that no thread outlives its test


class Raw(Serving):
    """A raw TCP server: each connection gets what `behave` does with it."""

    def __init__(self, behave: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        super().__init__()
        self._behave = behave
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read a head, then behave."""
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionError):
            await self._behave(reader, writer)


@pytest.fixture
async def wire(database) -> AsyncIterator[wires.Wire]:
    """A wire to the test's database."""
    async with wires.to_postgres(database.url) as made:
        yield made


@dataclass
class Shop:
    """An endpoint with destinations in the database, and what has become of its deliveries."""

    pool: database.Pool
    database: object
    endpoint: EndpointRow = field(
        default_factory=lambda: EndpointRow(
            id=uuid4(), namespace="shop", name="orders", verification=Verification(scheme="none")
        )
    )
    relay: RelayRow = LOOPBACK
    destinations: list[DestinationRow] = field(default_factory=list)
    keys: list[KeyRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys.append(hmac_key("endpoint/orders"))

    async def apply(self) -> None:
        """Write the configuration."""
        desired = Configuration(
            relay=self.relay,
            endpoints=(self.endpoint,),
            destinations=tuple(self.destinations),
            keys=tuple(self.keys),
        )
        async with self.pool.acquire() as connection:
            await configuration.apply(connection, self.database.sealing, desired, actor="test")

    async def send_to(self, url: str, *, policy: Policy | None = None, **settings: object) -> DestinationRow:
        """Add a destination and write the configuration."""
        row = DestinationRow(
            id=uuid4(),
            endpoint_id=self.endpoint.id,
            name=f"d{len(self.destinations)}",
            url=url,
            policy=policy or Policy(backoff=QUICK, circuit_breaker=None),
            **settings,
        )
        self.destinations.append(row)
        await self.apply()
        return row

    async def change(self, row: DestinationRow, **changes: object) -> DestinationRow:
        """Change a destination and write the configuration."""
        changed = replace(row, **changes)
        self.destinations[self.destinations.index(row)] = changed
        await self.apply()
        return changed

    async def put(self, count: int = 1, *, body: bytes = b'{"a": 1}', said: str = "", **fields: object) -> list[UUID]:
        """Store events for all destinations, and hint that; return the ids of the deliveries."""
        batch = [
            NewEvent(
                **{
                    "id": ids.new(),
                    "endpoint_id": self.endpoint.id,
                    "received_at": datetime.now(UTC),
                    "content_type": "application/json",
                    "headers": "[]",
                    "body": body,
                    "body_hash": hashlib.sha256(body).digest(),
                    "salt": os.urandom(32),
                    "idempotency_key": None,
                    "idempotency_window": None,
                    "correlation_id": None,
                    "deliveries": tuple(
                        NewDelivery(id=ids.new(), destination_id=row.id, max_age=row.policy.max_age)
                        for row in self.destinations
                    ),
                    **fields,
                }
            )
            for _ in range(count)
        ]
        async with self.pool.acquire() as connection:
            await events.insert(connection, batch)
            await hints.hint(connection, database.DELIVERIES_CHANNEL, said)
        return [delivery.id for event in batch for delivery in event.deliveries]

    async def delivery(self, delivery_id: UUID) -> DeliveryRow:
        async with self.pool.acquire() as connection:
            row = await deliveries.get(connection, delivery_id)
        assert row is not None
        return row

    async def attempts(self, delivery_id: UUID) -> list[ListedAttempt]:
        """Return a delivery's attempts, first one first."""
        async with self.pool.acquire() as connection:
            found = await attempts.page(connection, now=datetime.now(UTC), limit=100, delivery_id=delivery_id)
        return found[::-1]

    async def circuit(self, destination_id: UUID) -> CircuitRow | None:
        async with self.pool.acquire() as connection:
            return (await circuits.load(connection, [destination_id])).get(destination_id)

    async def ends(self, state: State, *delivery_ids: UUID) -> DeliveryRow:
        """Wait until deliveries are in `state`; return the last one."""
        row: DeliveryRow | None = None
        for delivery_id in delivery_ids:

            async def reached(wanted: UUID = delivery_id) -> bool:
                nonlocal row
                row = await self.delivery(wanted)
                return row.state is state

            await eventually(reached, f"a delivery in state {state}")
        assert row is not None
        return row


def hmac_key(name: str, version: int = 1, **fields: object) -> KeyRow:
    return KeyRow(
        **{
            "id": uuid4(),
            "namespace": "shop",
            "name": name,
            "version": version,
            "algorithm": "HMAC-SHA256",
            "secret": os.urandom(32),
            "not_before": datetime(2020, 1, 1, tzinfo=UTC),
            **fields,
        }
    )


@pytest.fixture
async def shop(database) -> Shop:
    """A shop whose configuration a test writes."""
    return Shop(pool=await database.pool(), database=database)


class Running:
    """A deliverer that runs in this process."""

    def __init__(self, settings: DelivererSettings, pool: database.Pool, look_up: LookUp) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self._pool = pool
        self._address: str | None = None
        self.task = asyncio.create_task(serve(settings, self.stopping, look_up))

    async def metric(self, name: str, **labels: str) -> float:
        """Return the sum of a metric's samples that have these labels, as /metrics says."""
        if self._address is None:
            async with self._pool.acquire() as connection:
                rows = await processes.list_live(connection)
            self._address = next(row.address for row in rows if row.instance == self.settings.instance)
        async with aiohttp.ClientSession() as session, session.get(f"{self._address}/metrics") as answer:
            text = await answer.text()
        total = 0.0
        for line in text.splitlines():
            if match := re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line):
                found = dict(re.findall(r'(\w+)="([^"]*)"', match[1] or ""))
                if labels.items() <= found.items():
                    total += float(match[2])
        return total

    async def stop(self) -> None:
        self.stopping.set()
        await asyncio.wait_for(self.task, 180)


Start = Callable[..., Awaitable[Running]]


def settings_for(database, **changes: object) -> dict[str, object]:
    """Return the settings of a deliverer of this test."""
    return {
        "database_url": SecretStr(database.url),
        "database_role": "kapsel_deliverer",
        "database_schema": database.schema,
        "sealing_key_file": database.sealing_key_file,
        "instance": f"test-{uuid4()}",
        "deliverer_poll_interval": timedelta(milliseconds=200),
        "deliverer_rescue_interval": timedelta(milliseconds=100),
        "deliverer_ca_file": TLS / "ca.pem",
        **changes,
    }


@pytest.fixture
async def start(database, shop: Shop) -> AsyncIterator[Start]:
    """Start deliverers that are stopped with the test."""
    running: list[Running] = []

    async def start(look_up: LookUp = names.system, **changes: object) -> Running:
        made = Running(DelivererSettings(**settings_for(database, **changes)), shop.pool, look_up)
        running.append(made)

        async def is_alive() -> bool:
            if made.task.done():
                made.task.result()
            async with shop.pool.acquire() as connection:
                rows = await processes.list_live(connection)
            return any(row.instance == made.settings.instance for row in rows)

        if "database_url" not in changes:
            await eventually(is_alive, "a deliverer that is alive")
        return made

    yield start
    for made in running:
        if not made.task.done():
            await made.stop()


Run = Callable[..., Awaitable[str]]


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    """Run examples, each a file or a folder of Go, until the test ends; return the URL where one listens."""
    started: list[asyncio.subprocess.Process] = []

    async def command(example: Path) -> list[str]:
        match example.suffix:
            case ".py":
                return [sys.executable, str(example)]
            case ".mjs":
                return [_program("node"), str(example)]
            case _:
                built = tmp_path / "built"
                made = await asyncio.create_subprocess_exec(_program("go"), "build", "-o", str(built), ".", cwd=example)
                assert await asyncio.wait_for(made.wait(), START_SECONDS) == 0
                return [str(built)]

    async def run(example: Path, *arguments: Path) -> str:
        process = await asyncio.create_subprocess_exec(
            *await command(example), *map(str, arguments), stdout=asyncio.subprocess.PIPE
        )
        started.append(process)
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        assert line.startswith(b"listening on http://"), line
        return line.decode().removeprefix("listening on ").strip()

    yield run
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None and os.environ.get("CI") != "true":
        pytest.skip(f"the example needs {name}: install it with your package manager")
    assert found is not None, f"{name} is not installed"
    return found
