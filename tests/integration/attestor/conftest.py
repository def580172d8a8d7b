"""One log on a real Postgres: attempts recorded as deliverers do, attestors in this process or in their own."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID, uuid4

import asyncpg
import pytest
from nacl.signing import SigningKey
from prometheus_client import CollectorRegistry

from kapsel_attestor import metrics
from kapsel_attestor.attestor import Attestor, now_ms
from kapsel_attestor.beside import SideTask
from kapsel_attestor.fence import FileFence
from kapsel_attestor.metrics import Metrics
from kapsel_store import configuration, deliveries, ids, tlog
from kapsel_store.configuration import Source
from kapsel_store.database import CONFIGURATION_CHANNEL, Listener
from kapsel_store.rows import (
    AttemptRow,
    Configuration,
    DestinationRow,
    EndpointRow,
    KeyRow,
    LogRow,
    Result,
    Verification,
)
from kapsel_store.states import State
from kapsel_store.tlog import HeadRow, LogState
from kapsel_tlog import check, prover
from kapsel_verifier import proof as proof_file
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.merkle import verify_consistency
from kapsel_verifier.proof import Proof
from kapsel_verifier.verify import Verified, verify_proof

TABLES = ("logs", "leaves", "tiles", "heads", "chains", "unsequenced")
DEADLINE = 240.0
QUICK = timedelta(milliseconds=20)


@dataclass
class Running:
    """An attestor in this process."""

    attestor: Attestor
    source: Source
    metrics: Metrics
    registry: CollectorRegistry
    stopping: asyncio.Event
    task: asyncio.Task[None]

    async def stop(self) -> None:
        self.stopping.set()
        await asyncio.wait_for(self.task, DEADLINE)

    async def well(self) -> None:
        """Wait until nobody has to act: a head is published before its attestor says so."""
        await eventually(lambda: self.attestor.problem() is None)

    def value(self, metric: str, **labels: str) -> float:
        return self.registry.get_sample_value(metric, labels) or 0.0


@dataclass
class World:
    """A log with its key, two endpoints that feed it, and the people around it."""

    database: SimpleNamespace
    connection: asyncpg.Connection
    fence_file: Path
    row: LogRow
    keys: list[KeyRow]
    endpoints: tuple[EndpointRow, ...]
    destinations: tuple[DestinationRow, ...]
    running: list[Running] = field(default_factory=list)
    children: list[asyncio.subprocess.Process] = field(default_factory=list)
    connections: list[asyncpg.Connection] = field(default_factory=list)
    fences: type[FileFence] = FileFence
    clones: list["World"] = field(default_factory=list)

    async def configure(self, **log: object) -> None:
        """Apply the configuration with these fields of the log changed."""
        self.row = replace(self.row, **log)
        await self.apply(self.row)

    async def apply(self, row: LogRow | None) -> None:
        """Apply the configuration with this log, or none."""
        desired = Configuration(
            endpoints=self.endpoints, destinations=self.destinations, keys=tuple(self.keys), log=row
        )
        await configuration.apply(self.connection, self.database.sealing, desired, actor="test")

    async def beside(self) -> "World":
        """Return the same world over another connection, for what happens at the same time."""
        connection = await self.database.connection()
        self.connections.append(connection)
        return replace(self, connection=connection)

    def attempt(self, number: int = 0, **fields: object) -> AttemptRow:
        """Return an attempt of one of the endpoints."""
        destination = self.destinations[number % len(self.destinations)]
        made = AttemptRow(
            id=ids.new(),
            delivery_id=uuid4(),
            event_id=uuid4(),
            endpoint_id=destination.endpoint_id,
            destination_id=destination.id,
            number=1,
            started_at=datetime.now(UTC),
            duration=timedelta(milliseconds=3),
            outcome="delivered",
            reason="status_200",
            url=destination.url,
            payload_hash=os.urandom(32),
            payload_commitment=os.urandom(32),
            signature_digest=os.urandom(32),
            response_status=200,
            response_body=b"ok" * 100,
            response_digest=os.urandom(32),
        )
        return made._replace(**fields)

    async def record(self, count: int = 1, **fields: object) -> list[UUID]:
        """Record attempts as a deliverer does, and return their ids."""
        made = [self.attempt(number, **fields) for number in range(count)]
        results = [
            Result(attempt=attempt, lease_id=uuid4(), state=State.PENDING, retry_in=timedelta(0)) for attempt in made
        ]
        await deliveries.record(self.connection, results)
        return [attempt.id for attempt in made]

    async def start(
        self, clock: Callable[[], int] = now_ms, beside: Callable[[Metrics], Sequence[SideTask]] = lambda _: ()
    ) -> Running:
        """Start an attestor in this process, with the rights that it has in production."""
        pool = await self.database.pool("attestor")
        listener = Listener(
            self.database.url,
            role="kapsel_attestor",
            schema=self.database.schema,
            component="test",
            channels=[CONFIGURATION_CHANNEL],
        )
        source = Source(pool, self.database.sealing, listener)
        stopping = asyncio.Event()
        following = asyncio.create_task(source.follow(stopping))
        await eventually(lambda: source.loaded)
        registry = CollectorRegistry()
        measuring = Metrics(registry)
        attestor = Attestor(
            pool,
            source,
            lambda row: self.fences(self.fence_file, row.origin),
            measuring,
            clock=clock,
            beside=beside(measuring),
        )

        async def run() -> None:
            await attestor.run(stopping)
            following.cancel()

        started = Running(attestor, source, measuring, registry, stopping, asyncio.create_task(run()))
        self.running.append(started)
        return started

    @asynccontextmanager
    async def led_elsewhere(self) -> AsyncIterator[None]:
        """Hold the log as another attestor does, so that those of this world stand by."""
        connection = await self.database.connection()
        try:
            assert await tlog.try_lock(connection, self.row.origin)
            yield
        finally:
            await connection.close()

    @asynccontextmanager
    async def measured(self, running: Running) -> AsyncIterator[None]:
        """Keep the gauges of the log true, as the process of an attestor does."""
        stopping = asyncio.Event()
        pool = await self.database.pool("attestor")
        following = asyncio.create_task(metrics.follow(running.metrics, pool, running.source, stopping))
        try:
            yield
        finally:
            stopping.set()
            await following

    async def start_process(self, **changed: str | None) -> asyncio.subprocess.Process:
        """Start an attestor as a process of its own, with these variables changed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")}
        environment |= {
            "KAPSEL_DATABASE_URL": self.database.url,
            "KAPSEL_DATABASE_ROLE": "kapsel_attestor",
            "KAPSEL_DATABASE_SCHEMA": self.database.schema,
            "KAPSEL_SEALING_KEY_FILE": str(self.database.sealing_key_file),
            "KAPSEL_ATTESTOR_FENCE_FILE": str(self.fence_file),
        } | changed
        environment = {name: value for name, value in environment.items() if value is not None}
        told = asyncio.subprocess.PIPE if changed else asyncio.subprocess.DEVNULL
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "kapsel_attestor", env=environment, stderr=told
        )
        self.children.append(child)
        return child

    async def log(self) -> LogState:
        found = await tlog.state(self.connection, self.row.origin)
        assert found is not None
        return found

    async def head(self) -> HeadRow | None:
        found = await tlog.state(self.connection, self.row.origin)
        return None if found is None else await tlog.latest_head(self.connection, found.id)

    async def head_over(self, size: int) -> HeadRow:
        """Wait for a head over at least so many leaves."""
        return await eventually(self._head_over, size)

    async def _head_over(self, size: int) -> HeadRow | None:
        head = await self.head()
        return head if head is not None and head.tree_size >= size else None

    async def frozen(self) -> str:
        """Wait until the log is frozen and return why."""

        async def reason() -> str | None:
            return (await self.log()).frozen_reason

        return await eventually(reason)

    async def prove(self, attempt_id: UUID) -> Verified:
        """Fetch the proof file of an attempt and judge it as an auditor does who has the public key alone."""
        proof = await prover.proof_for_attempt(self.connection, attempt_id)
        assert isinstance(proof, Proof), proof
        public = [bytes(SigningKey(key.secret).verify_key) for key in self.keys]
        trusted = [TrustedKey(public_key=key, name=self.row.origin) for key in public]
        verified = verify_proof(proof_file.parse(proof.encode()), trusted)
        assert verified.leaf.delivery_attempt_id == str(attempt_id)
        return verified

    async def audit(self, attempt_ids: list[UUID]) -> None:
        """Check that exactly these attempts are in the log, once each, no gaps, all proven, all heads consistent."""
        log = await self.log()
        rows = await tlog.leaves(self.connection, log.id, 0, log.tree_size + 1)
        statements = [row for row in rows if row.attempt_id is None]
        assert [row.leaf_index for row in rows] == list(range(len(attempt_ids) + len(statements)))
        rows = [row for row in rows if row.attempt_id is not None]
        assert {row.attempt_id for row in rows} == set(attempt_ids)
        assert len(rows) == len(attempt_ids)
        assert await check.rebuild(self.connection, log.id, log.tree_size) == log.root
        for endpoint in self.endpoints:
            chain = [leaf for row in rows if (leaf := Leaf.parse(row.leaf or b"")).endpoint_id == str(endpoint.id)]
            assert [leaf.endpoint_sequence for leaf in chain] == list(range(len(chain)))
        for row in rows:
            assert (await self.prove(row.attempt_id)).leaf_index == row.leaf_index
        heads = (await tlog.heads(self.connection, log.id, 1000))[::-1]
        for old, new in pairwise(heads):
            path = await prover.consistency(self.connection, log.id, old.tree_size, new.tree_size)
            verify_consistency(old.tree_size, new.tree_size, path, old.root, new.root)

    async def cloned(self) -> "World":
        """Return this world on a copy of its schema, as a clone of the database is one, with the same fence."""
        database = await self.database.cloned()
        connection = await database.connection()
        other = replace(
            self, database=database, connection=connection, running=[], children=[], connections=[], clones=[]
        )
        self.clones.append(other)
        await other.apply(other.row)
        async with other.tampering():
            for table in reversed(TABLES):
                await connection.execute(f"DELETE FROM {table}")
            for table in TABLES:
                await connection.execute(
                    f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE {self.database.schema}.{table}"
                )
        return other

    async def end(self) -> None:
        """Stop all that runs."""
        for child in self.children:
            if child.returncode is None:
                child.send_signal(signal.SIGKILL)
                await child.wait()
        for running in self.running:
            await running.stop()
        for opened in (self.connection, *self.connections):
            await opened.close()
        for clone in self.clones:
            await clone.end()
            await clone.database.close()

    async def back_up(self) -> None:
        """Copy the tables of the log as they are now."""
        for table in TABLES:
            await self.connection.execute(f"DROP TABLE IF EXISTS copy_{table}")
            await self.connection.execute(f"CREATE TABLE copy_{table} AS TABLE {table}")

    async def restore(self) -> None:
        """Put the copied tables back, as restoring an older database does."""
        async with self.tampering():
            for table in reversed(TABLES):
                await self.connection.execute(f"DELETE FROM {table}")
            for table in TABLES:
                await self.connection.execute(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE TABLE copy_{table}")

    async def flip(self, level: int, index: int, place: int) -> None:
        """Flip one bit of a stored tile, as a failing disk does."""
        async with self.tampering():
            await self.connection.execute(
                "UPDATE tiles SET hashes = set_bit(hashes, $3, 1 - get_bit(hashes, $3)) "
                "WHERE level = $1 AND index = $2",
                level,
                index,
                place,
            )

    def tampering(self) -> "Tampering":
        return Tampering(self.connection)

    def guard(self) -> FileFence:
        return FileFence(self.fence_file, self.row.origin)


class Tampering:
    """A transaction in which no trigger protects the tables."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._transaction = connection.transaction()

    async def __aenter__(self) -> None:
        await self._transaction.start()
        await self._connection.execute("SET LOCAL session_replication_role = replica")

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await (self._transaction.rollback() if kind else self._transaction.commit())


async def eventually(look: Callable[..., object], *arguments: object) -> object:
    """Return the first true value that `look` gives; fail after a while."""
    deadline = time.monotonic() + DEADLINE
    while True:
        found = look(*arguments)
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"{look} did not come true"
        await asyncio.sleep(0.01)


@pytest.fixture(name="eventually")
def eventually_fixture() -> Callable[..., Awaitable[object]]:
    return eventually


@pytest.fixture
async def world(database: SimpleNamespace, tmp_path: Path) -> AsyncIterator[World]:
    """A configured log that integrates and publishes as fast as it may."""
    endpoints = tuple(
        EndpointRow(id=uuid4(), namespace="shop", name=name, verification=Verification(scheme="none"))
        for name in ("orders", "refunds")
    )
    destinations = tuple(
        DestinationRow(id=uuid4(), endpoint_id=endpoint.id, name="billing", url="https://billing.example.com/hooks")
        for endpoint in endpoints
    )
    key = KeyRow(
        id=uuid4(),
        namespace="shop",
        name="log-key",
        version=1,
        algorithm="Ed25519",
        secret=os.urandom(32),
        not_before=datetime.now(UTC) - timedelta(minutes=1),
    )
    row = LogRow(
        namespace="shop",
        name="log",
        origin=f"log.example.com/{uuid4().hex[:8]}",
        key_name="log-key",
        integrate_interval=QUICK,
        publish_interval=QUICK,
        publish_pending=1,
    )
    connection = await database.connection()
    made = World(database, connection, tmp_path / "fence.json", row, [key], endpoints, destinations)
    await made.configure()
    yield made
    await made.end()
