"""Failover to a promoted standby: what synchronous replication keeps, and what asynchronous loses and shows."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import uuid4

import asyncpg
import pytest
from traffic import within
from traffic.accounts import account, settled
from traffic.producer import Producer

from kapsel_cli import postgres
from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_store import circuits
from kapsel_store.circuits import CircuitRow
from kapsel_store.migrate import migrate

SCHEMA = "kapsel"
DEADLINE = 240.0


class Standby(EmbeddedPostgres):
    """A server that follows another one until it is promoted."""

    def is_ready(self, pid: int) -> bool:
        try:
            lines = (self.data_dir / "postgres" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) == 8 and lines[0] == str(pid) and lines[7].strip() in ("ready", "standby")

    def copy(self, of: EmbeddedPostgres) -> None:
        """Take a base backup of a running server, and be set up to follow it."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(of.url).query).items()}
        owner = (of.data_dir / "postgres").stat()
        self.data_dir.mkdir()
        os.chown(self.data_dir, owner.st_uid, owner.st_gid)
        program = postgres._binaries() / "pg_basebackup"
        subprocess.run(
            [
                *(str(program), "--pgdata", str(self.data_dir / "postgres"), "--write-recovery-conf"),
                *("--wal-method=stream", "--checkpoint=fast", "--no-sync"),
                *("--host", asked["host"], "--port", asked["port"], "--username", asked["user"]),
            ],
            check=True,
            capture_output=True,
            **of.spawn_options(),
        )


@pytest.fixture
def servers() -> Iterator[tuple[EmbeddedPostgres, Standby]]:
    """A migrated primary, and a standby that follows it."""
    with tempfile.TemporaryDirectory(prefix="kapsel-") as made:  # sockets have short paths, those of pytest are long
        directory = Path(made)
        directory.chmod(0o711)
        primary, standby = EmbeddedPostgres(directory / "a"), Standby(directory / "b")
        try:
            primary.start()
            asyncio.run(migrate(primary.url, schema=SCHEMA))
            standby.copy(primary)
            standby.start()
            yield primary, standby
        finally:
            standby.stop()
            primary.stop()


def either(*servers: EmbeddedPostgres) -> str:
    """Return a URL of whichever of these takes writes."""
    queries = [parse_qs(urlsplit(server.url).query) for server in servers]
    query = urlencode(
        {
            "host": ",".join(one["host"][0] for one in queries),
            "port": ",".join(one["port"][0] for one in queries),
            "user": "postgres",
            "target_session_attrs": "read-write",
        }
    )
    return f"postgresql:///kapsel?{query}"


@pytest.fixture
async def plane(servers, tmp_path, destination, planes) -> AsyncIterator[Any]:
    made = planes(url=either(*servers), schema=SCHEMA, directory=tmp_path, destination=destination)
    await made.configure(datetime.now(UTC))
    yield made
    await made.stop()


async def sending(plane: Any) -> Producer:
    """Start a receiver, a deliverer and an attestor; return who posts to the receiver."""
    receiver = await plane.start("receiver")
    await plane.start("deliverer")
    await plane.start("attestor")
    return await plane.producer(receiver)


@asynccontextmanager
async def connected(server: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(server.url, server_settings={"search_path": SCHEMA})
    try:
        yield connection
    finally:
        await connection.close()


async def run(server: EmbeddedPostgres, *statements: str) -> Any:
    async with connected(server) as connection:
        found = None
        for statement in statements:
            found = await connection.fetchval(statement)
        return found


async def eventually(server: EmbeddedPostgres, statement: str) -> None:
    async with asyncio.timeout(DEADLINE):
        while not await run(server, statement):
            await asyncio.sleep(0.05)


async def promote(standby: Standby) -> None:
    assert await run(standby, "SELECT pg_promote(true, 240)")


async def test_with_synchronous_replication_a_failover_loses_nothing_and_the_log_goes_on(
    servers, plane, destination, until: Callable[..., Any]
) -> None:
    primary, standby = servers
    await run(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()")
    await eventually(primary, "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')")
    await eventually(primary, "SELECT current_setting('synchronous_standby_names') = '*'")
    producer = await sending(plane)
    before = asyncio.create_task(producer.run(range(100)))
    await until(lambda: len(producer.accepted) >= 40)

    await asyncio.to_thread(primary.kill)
    await promote(standby)

    taken, delivered = len(producer.accepted), len(destination.seen["/steady"])
    with within(2):  # the longest wait between two tries to connect
        await until(lambda: len(producer.accepted) > taken and len(destination.seen["/steady"]) > delivered)
    await before
    await producer.run(range(100, 120))
    async with connected(standby) as connection:
        await settled(connection)
        assert len(producer.accepted) == 120
        await account(connection, producer.accepted, destination)
        assert await connection.fetchval("SELECT count(*) FROM logs WHERE frozen_reason IS NOT NULL") == 0


async def test_what_asynchronous_replication_loses_is_gone_and_the_log_says_so(servers, plane, until) -> None:
    primary, standby = servers
    producer = await sending(plane)
    await producer.run(range(20))
    connection = await plane.connection()
    await settled(connection)
    kept = dict(producer.accepted)
    place = await connection.fetchval("SELECT pg_current_wal_lsn()::text")
    await eventually(standby, f"SELECT pg_last_wal_replay_lsn() >= '{place}'")

    # From here on the standby lags, by as much as is accepted, delivered, logged and signed without it.
    await asyncio.to_thread(standby.stop)
    await producer.run(range(20, 40))
    await settled(connection)
    await connection.close()
    await asyncio.to_thread(primary.kill)
    await asyncio.to_thread(standby.start)
    await promote(standby)

    await eventually(
        standby, "SELECT EXISTS (SELECT FROM logs WHERE frozen_reason LIKE '%older than what was signed%')"
    )
    rows = await run(standby, "SELECT array_agg(id::text) FROM events")
    assert set(rows) == set(kept.values())
    assert not set(rows) & (set(producer.accepted.values()) - set(kept.values()))
    # Webhooks go on coming in and out; what is signed stays as it was.
    await producer.run(range(40, 45))
    await eventually(standby, "SELECT NOT EXISTS (SELECT FROM deliveries_live)")
    assert await run(standby, "SELECT count(*) FROM unsequenced") >= 10


def failed(row: CircuitRow, now: datetime) -> CircuitRow:
    return replace(row, attempts=row.attempts + 1, failures=row.failures + 1)


async def test_a_circuits_change_that_a_failover_has_lost_is_not_taken_for_that_of_who_has_its_transaction_id_now(
    servers,
) -> None:
    primary, standby = servers
    known, new = uuid4(), uuid4()
    async with connected(primary) as connection:
        await circuits.change(connection, known, failed)
        place = await connection.fetchval("SELECT pg_current_wal_lsn()::text")
        await eventually(standby, f"SELECT pg_last_wal_replay_lsn() >= '{place}'")
        await asyncio.to_thread(standby.stop)
        lost: list[tuple[str, CircuitRow, CircuitRow]] = []
        for destination_id in (known, new):
            await circuits.change(connection, destination_id, failed, lambda *change: lost.append(change))
        for change in lost:
            assert await circuits.is_committed(connection, *change)
    await asyncio.to_thread(primary.kill)
    await asyncio.to_thread(standby.start)
    await promote(standby)
    async with connected(standby) as connection:
        for transaction_id, before, after in lost:
            while int(await connection.fetchval("SELECT pg_current_xact_id()::text")) < int(transaction_id):
                pass
            assert await connection.fetchval("SELECT pg_xact_status($1::text::xid8)", transaction_id) == "committed"
            assert await circuits.is_committed(connection, transaction_id, before, after) is False
