"""A schema of an older version is brought up to date while others work on it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from kapsel_store import database
from kapsel_store.errors import BusySchemaError
from kapsel_store.migrate import Migration, known, migrate, missing
from kapsel_store.queries import statement

DEADLINE = 240.0
RECEIVE = (
    "INSERT INTO events (id, endpoint_id, received_at, content_type, headers, body_hash) "
    "VALUES (gen_random_uuid(), gen_random_uuid(), now(), 'text/plain', '[]', sha256('x'))"
)
RECORD = (
    "INSERT INTO attempts (id, delivery_id, event_id, endpoint_id, destination_id, number, started_at, duration, "
    "outcome, reason, url, payload_hash) SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), "
    "gen_random_uuid(), gen_random_uuid(), 1, now(), '1s', 'delivered', '', 'https://example.com/', sha256('x')"
)
MOVE = "UPDATE deliveries SET finished_at = now() WHERE id = gen_random_uuid()"

Connect = Callable[[], Awaitable[asyncpg.Connection]]


@pytest.fixture
async def schema(postgres) -> AsyncIterator[str]:
    """A schema as the version before proof of delivery left it."""
    name = f"up_{uuid4().hex[:8]}"
    owner = await asyncpg.connect(
        postgres.url, server_settings=database.settings(schema=name, role=None, component="test")
    )
    await owner.execute(f"CREATE SCHEMA {name}")
    await owner.execute(statement("migrate.ledger"))
    for migration in known()[:2]:
        await owner.execute(migration.sql)
        await owner.execute(statement("migrate.done"), migration.number, migration.name, migration.checksum)
    yield name
    await owner.execute(f"DROP SCHEMA {name} CASCADE")
    await owner.close()


@pytest.fixture
async def connect(postgres, schema: str) -> AsyncIterator[Connect]:
    opened: list[asyncpg.Connection] = []

    async def one() -> asyncpg.Connection:
        settings = database.settings(schema=schema, role=None, component="test")
        opened.append(await asyncpg.connect(postgres.url, server_settings=settings))
        return opened[-1]

    yield one
    for connection in opened:
        connection.terminate()


async def waits(connection: asyncpg.Connection, schema: str) -> None:
    """Wait until somebody waits for a lock on a table of the schema."""
    asked = (
        "SELECT EXISTS (SELECT FROM pg_locks k JOIN pg_class c ON c.oid = k.relation "
        "WHERE NOT k.granted AND c.relnamespace = $1::regnamespace)"
    )
    async with asyncio.timeout(DEADLINE):
        while not await connection.fetchval(asked, schema):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("steps", [(MOVE, RECORD), (RECORD, MOVE)], ids=["delivery first", "attempt first"])
async def test_no_deliverer_loses_its_record_to_the_migration(
    postgres, schema: str, connect: Connect, steps: tuple[str, str]
) -> None:
    """Whichever of its tables it holds already when the migration comes."""
    deliverer, watch = await connect(), await connect()
    first, second = steps
    async with asyncio.timeout(DEADLINE):
        async with deliverer.transaction():
            await deliverer.execute(first)
            migrating = asyncio.create_task(migrate(postgres.url, schema=schema))
            await waits(watch, schema)
            await deliverer.execute(second)
        assert (await migrating).applied == tuple(migration.name for migration in known()[2:])
    assert await watch.fetchval("SELECT count(*) FROM attempts") == 1


async def test_no_batch_of_the_sequencer_is_lost_to_the_migration(postgres, schema: str, connect: Connect) -> None:
    sequencer, watch = await connect(), await connect()
    await sequencer.execute("INSERT INTO logs (origin, root) VALUES ('log.example.com/orders', sha256(''))")
    async with asyncio.timeout(DEADLINE):
        async with sequencer.transaction():
            await sequencer.execute("UPDATE logs SET tree_size = 1, root = sha256('x')")
            migrating = asyncio.create_task(migrate(postgres.url, schema=schema))
            await waits(watch, schema)
            await sequencer.execute(
                "INSERT INTO leaves (log_id, leaf_index, attempt_id, leaf) "
                "SELECT id, 0, gen_random_uuid(), '{}' FROM logs"
            )
        await migrating
    assert await watch.fetchval("SELECT count(*) FROM leaves") == 1


async def test_webhooks_are_received_while_the_migration_waits_for_a_long_reader(
    postgres, schema: str, connect: Connect
) -> None:
    reader, receiver, watch = await connect(), await connect(), await connect()
    async with asyncio.timeout(DEADLINE):
        async with reader.transaction():
            await reader.fetch("SELECT FROM attempts")
            migrating = asyncio.create_task(migrate(postgres.url, schema=schema))
            await waits(watch, schema)
            for _ in range(3):
                await receiver.execute(RECEIVE)
        await migrating
    assert await watch.fetchval("SELECT count(*) FROM events") == 3


async def test_what_one_migration_has_locked_is_given_back_before_the_next_one_waits(
    postgres, schema: str, connect: Connect
) -> None:
    reader, others, watch = await connect(), await connect(), await connect()
    async with asyncio.timeout(DEADLINE):
        async with reader.transaction():
            await reader.fetch("SELECT FROM replays")  # which 0007 changes
            migrating = asyncio.create_task(migrate(postgres.url, schema=schema))
            await waits(watch, schema)
            assert await watch.fetchval("SELECT max(number) FROM migrations") == 6
            for statement_ in (RECEIVE, RECORD, MOVE):
                await others.execute(statement_)
        assert len((await migrating).applied) == len(known()) - 2
    assert await watch.fetchval("SELECT count(*) FROM attempts") == 1


async def test_a_migration_that_is_killed_is_gone_on_from_where_it_was(postgres, schema: str, connect: Connect) -> None:
    watch = await connect()
    first, *_ = rest = known()[2:]
    killed = replace(rest[1], sql="CREATE TABLE half (); SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await migrate(postgres.url, schema=schema, migrations=(*known()[:3], killed, *rest[2:]))
    assert await watch.fetchval("SELECT max(number) FROM migrations") == first.number
    assert await watch.fetchval("SELECT to_regclass('half')") is None
    assert [one.name for one in await missing(watch)] == [one.name for one in rest[1:]]
    # What the version before does meanwhile goes well.
    for statement_ in (RECEIVE, RECORD, MOVE):
        await watch.execute(statement_)
    assert (await migrate(postgres.url, schema=schema)).applied == tuple(one.name for one in rest[1:])
    assert await missing(watch) == ()


async def test_components_get_their_rights_together_with_the_last_migration(
    postgres, schema: str, connect: Connect
) -> None:
    last = Migration(number=9999, name="9999_killed.sql", sql="SELECT pg_terminate_backend(pg_backend_pid())")
    watch = await connect()
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError)):
        await migrate(postgres.url, schema=schema, migrations=(*known(), last))
    asked = (
        "SELECT EXISTS (SELECT FROM information_schema.role_table_grants "
        "WHERE table_schema = $1 AND table_name = 'audit' AND grantee = 'kapsel_console')"
    )
    assert not await watch.fetchval(asked, schema)
    assert (await migrate(postgres.url, schema=schema)).roles
    assert await watch.fetchval(asked, schema)


async def test_a_migration_that_gets_no_lock_says_who_is_in_its_way_and_keeps_what_was_done(
    postgres, schema: str, connect: Connect
) -> None:
    reader, watch = await connect(), await connect()
    async with reader.transaction():
        await reader.fetch("SELECT FROM replays")
        with pytest.raises(BusySchemaError, match=r"within 0:00:00: .*lock timeout.*pg_stat_activity"):
            await migrate(postgres.url, schema=schema, patience=timedelta(0))
    assert await watch.fetchval("SELECT max(number) FROM migrations") == 6


async def test_new_attempts_are_held_to_what_old_ones_are_not_asked_for(
    postgres, schema: str, connect: Connect
) -> None:
    connection = await connect()
    await connection.execute(RECORD)
    await migrate(postgres.url, schema=schema)
    with pytest.raises(asyncpg.CheckViolationError, match="acknowledged_with_evidence"):
        await connection.execute(RECORD.replace("payload_hash)", "payload_hash, acknowledgement)") + ", 'acknowledged'")
