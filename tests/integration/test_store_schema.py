"""Migrations, roles, configuration, audit and the log's rows on a real Postgres."""

import asyncio
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from wires import Opened, Withheld, to_postgres

from kapsel_store import audit, configuration, database, processes, tlog
from kapsel_store.database import Listener
from kapsel_store.errors import (
    EditedMigrationError,
    NewerSchemaError,
    SealingError,
    StaleConfigurationError,
    StaleTreeError,
)
from kapsel_store.migrate import Migration, known, migrate
from kapsel_store.rows import (
    Acknowledgement,
    Anchoring,
    Backoff,
    Configuration,
    DestinationRow,
    EndpointRow,
    Idempotency,
    KeyRow,
    LogRow,
    Policy,
    Proxy,
    RateLimit,
    RelayRow,
    Verification,
)
from kapsel_store.sealing import SealingKeys

ORDERS = EndpointRow(
    id=uuid4(),
    namespace="shop",
    name="orders",
    verification=Verification(scheme="stripe", key_name="in", tolerance=timedelta(minutes=10)),
    idempotency=Idempotency(source="Header", header="Idempotency-Key"),
    rate_limit=RateLimit(requests_per_second=0.5, burst=3),
)
BILLING = DestinationRow(
    id=uuid4(),
    endpoint_id=ORDERS.id,
    name="billing",
    url="https://billing.example.com/",
    headers=(("x-team", "billing"),),
    policy=Policy(backoff=Backoff(type="Schedule", schedule=(timedelta(seconds=5), timedelta(hours=1)))),
    acknowledgement=Acknowledgement(required=True, public_keys=("ab" * 32,), tolerance=timedelta(seconds=30)),
)
KEY = KeyRow(
    id=uuid4(),
    namespace="shop",
    name="in",
    version=1,
    algorithm="HMAC-SHA256",
    secret=b"the secret of stripe",
    not_before=datetime(2026, 1, 1, tzinfo=UTC),
)
FULL = Configuration(
    relay=RelayRow(namespace="shop", name="main", allowed_cidrs=("10.0.0.0/8",)),
    endpoints=(ORDERS,),
    destinations=(BILLING,),
    keys=(KEY,),
    log=LogRow(
        namespace="shop",
        name="main",
        origin="kapsel.test/shop",
        key_name="log",
        anchoring=Anchoring(calendars=("https://a.example.com", "https://b.example.com"), minimum=2),
    ),
)


@pytest.fixture
async def owner(database) -> asyncpg.Connection:
    return await (await database.pool()).acquire()


async def test_migrating_twice_or_at_once_applies_each_migration_once(database) -> None:
    await asyncio.gather(*(migrate(database.url, schema=database.schema) for _ in range(3)))
    assert (await migrate(database.url, schema=database.schema)).applied == ()


async def test_a_schema_from_a_newer_version_is_refused_with_what_to_do(database) -> None:
    newer = (*known(), Migration(number=9999, name="9999_later.sql", sql="SELECT 1"))
    await migrate(database.url, schema=database.schema, migrations=newer)
    with pytest.raises(NewerSchemaError, match=r"9999_later\.sql.*upgrade"):
        await migrate(database.url, schema=database.schema)


async def test_an_applied_migration_that_was_edited_is_refused(database) -> None:
    edited = tuple(replace(migration, sql=migration.sql + " ") for migration in known())
    with pytest.raises(EditedMigrationError, match="never be edited"):
        await migrate(database.url, schema=database.schema, migrations=edited)


async def test_a_migration_that_fails_leaves_nothing_behind(database, owner: asyncpg.Connection) -> None:
    broken = (*known(), Migration(number=9999, name="9999_broken.sql", sql="CREATE TABLE half (); SELECT 1/0"))
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(database.url, schema=database.schema, migrations=broken)
    assert await owner.fetchval("SELECT to_regclass('half')") is None


REFUSED = {
    "receiver": [
        "SELECT body FROM events",
        "UPDATE events SET body = NULL",
        "DELETE FROM events",
        "SELECT * FROM deliveries",
        "UPDATE deliveries SET due_at = now()",
        "SELECT * FROM attempts",
        "INSERT INTO attempts (id) VALUES (gen_random_uuid())",
        "DELETE FROM idempotency",
        "UPDATE endpoints SET namespace = 'x'",
        "INSERT INTO keys (id) VALUES (gen_random_uuid())",
        "SELECT * FROM leaves",
        "SELECT * FROM audit",
        "SELECT * FROM replays",
        "SELECT * FROM erasures",
        "SELECT * FROM gap_healings",
        "UPDATE errands SET answer = NULL",
        "DELETE FROM errands",
    ],
    "deliverer": [
        "UPDATE events SET body = NULL",
        "INSERT INTO events (id) VALUES (gen_random_uuid())",
        "DELETE FROM deliveries",
        "SELECT url FROM attempts",
        "UPDATE attempts SET reason = 'x'",
        "DELETE FROM unsequenced",
        "INSERT INTO heads (log_id) VALUES (1)",
        "SELECT * FROM anchors",
        "UPDATE logs SET tree_size = 0",
        "UPDATE destinations SET name = 'x'",
        "SELECT event_id FROM idempotency",
        "UPDATE idempotency SET expires_at = now()",
        "DELETE FROM gap_healings",
        "INSERT INTO errands (url, kind) VALUES ('https://a.example', 'certificate')",
        "INSERT INTO replays (id) VALUES (gen_random_uuid())",
        "UPDATE replays SET suspend = false",
        "UPDATE replays SET endpoint_id = gen_random_uuid()",
        "DELETE FROM replays",
        "UPDATE replayed SET delivery_id = gen_random_uuid()",
        "DELETE FROM replayed",
    ],
    "attestor": [
        "SELECT * FROM events",
        "SELECT * FROM deliveries",
        "UPDATE attempts SET reason = 'x'",
        "UPDATE unsequenced SET attempt_id = gen_random_uuid()",
        "UPDATE leaves SET leaf = NULL",
        "DELETE FROM leaves",
        "UPDATE heads SET tree_size = 0",
        "DELETE FROM heads",
        "DELETE FROM anchors",
        "UPDATE anchors SET nonce = ''",
        "DELETE FROM tiles",
        "UPDATE logs SET origin = 'log.example.com/other'",
        "DELETE FROM logs",
        "UPDATE keys SET version = 2",
        "SELECT * FROM replays",
        "SELECT * FROM gap_healings",
        "SELECT * FROM errands",
    ],
    "console": [
        "UPDATE events SET body = NULL",
        "DELETE FROM deliveries",
        "UPDATE attempts SET reason = 'x'",
        "INSERT INTO leaves (log_id) VALUES (1)",
        "UPDATE logs SET tree_size = 0",
        "UPDATE endpoints SET namespace = 'x'",
        "DELETE FROM audit",
        "UPDATE replays SET filter = NULL",
        "UPDATE replays SET completed_at = now()",
        "DELETE FROM replays",
        "UPDATE anchors SET height = 1",
        "SELECT * FROM replayed",
        "UPDATE attempts SET response_body = NULL",
        "UPDATE leaves SET leaf = NULL",
        "INSERT INTO erasures (event_id, next_at) VALUES (gen_random_uuid(), now())",
        "DELETE FROM erasures",
    ],
}


# Every right that migrations and roles.sql grant to others than the owner: on tables, columns and functions(). Those of
# triggers nobody can call.
ALLOWED = {
    "kapsel_attestor": {
        "DELETE": "parked processes unsequenced",
        "INSERT": "anchors chains heads leaves log_keys logs parked processes tiles unsequenced",
        "SELECT": (
            "anchors attempts chains configuration destinations endpoints heads keys leaves log_keys logs parked "
            "policies processes tiles unsequenced"
        ),
        "UPDATE": (
            "anchors.complete anchors.confirmed_at anchors.height anchors.next_at anchors.ots anchors.tries "
            "chains log_keys.not_after_ms logs.frozen_reason logs.root logs.tree_size parked processes tiles"
        ),
    },
    "kapsel_console": {
        "DELETE": "processes",
        "EXECUTE": "erase_event() pass_turns()",
        "INSERT": "audit deliveries ended_turns processes replays superseded",
        "SELECT": (
            "anchors attempts audit buckets chains circuits configuration deliveries deliveries_live destinations "
            "endpoints erasures events heads keys leaves log_keys logs parked policies processes replays slots "
            "superseded tiles turns unsequenced"
        ),
        "UPDATE": (
            "circuits deliveries deliveries_live processes replays.next_at replays.rate replays.removed_at "
            "replays.suspend turns.blocked_at turns.blocked_by"
        ),
    },
    "kapsel_deliverer": {
        "DELETE": "errands processes",
        "EXECUTE": "pass_turns()",
        "INSERT": (
            "attempts buckets circuits deliveries ended_turns gap_healings processes replayed slots superseded "
            "unsequenced"
        ),
        "SELECT": (
            "attempts.id buckets circuits configuration deliveries deliveries_live destinations ended_turns "
            "endpoints errands events gap_healings heads idempotency.endpoint_id idempotency.expires_at "
            "idempotency.key keys logs policies processes replayed replays slots superseded turns"
        ),
        "UPDATE": (
            "buckets circuits deliveries deliveries_live errands gap_healings processes replayed.outcome "
            "replays.completed_at replays.counted_at replays.delivered replays.enqueued replays.enqueued_at "
            "replays.failed replays.matched replays.next_at replays.settled_to replays.skipped_destinations "
            "replays.skipped_events replays.skipped_pending replays.started_at replays.unjudged "
            "replays.walked_delivery replays.walked_event slots turns.blocked_at turns.blocked_by"
        ),
    },
    "kapsel_receiver": {
        "DELETE": "processes",
        "INSERT": "buckets deliveries errands events idempotency processes turns",
        "SELECT": (
            "buckets configuration destinations endpoints errands events.id idempotency keys policies processes "
            "turns.destination_id turns.head turns.key turns.last"
        ),
        "UPDATE": "buckets idempotency processes turns.last",
    },
}
GRANTS = """
SELECT coalesce(rolname, 'everybody') AS role, granted.privilege_type AS privilege, granted.name
FROM (
    SELECT relname::text AS name, relowner AS owner, (aclexplode(relacl)).*
    FROM pg_class WHERE relnamespace = current_schema()::regnamespace
    UNION ALL
    SELECT format('%s.%s', relname, attname), relowner, (aclexplode(attacl)).*
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid WHERE relnamespace = current_schema()::regnamespace
    UNION ALL
    SELECT format('%s()', proname), proowner, (aclexplode(coalesce(proacl, acldefault('f', proowner)))).*
    FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND prosecdef AND prorettype <> 'trigger'::regtype
) AS granted LEFT JOIN pg_roles ON pg_roles.oid = granted.grantee
WHERE granted.grantee <> granted.owner
"""


async def test_each_component_has_the_rights_that_are_written_here_and_no_others(owner: asyncpg.Connection) -> None:
    granted: dict[str, dict[str, set[str]]] = {}
    for row in await owner.fetch(GRANTS):
        granted.setdefault(row["role"], {}).setdefault(row["privilege"], set()).add(row["name"])
    assert granted == {
        role: {verb: {*names.split()} for verb, names in verbs.items()} for role, verbs in ALLOWED.items()
    }


@pytest.mark.parametrize(("role", "sql"), [(role, sql) for role, list_ in REFUSED.items() for sql in list_])
async def test_a_component_may_do_no_more_than_its_work(database, role: str, sql: str) -> None:
    connection = await database.connection(role)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(sql)
    finally:
        await connection.close()


async def test_a_frozen_log_goes_on_when_the_owner_says_so_and_for_no_component(
    database, owner: asyncpg.Connection
) -> None:
    attestor = await database.connection("attestor")
    try:
        log = await tlog.open_log(attestor, "log.example.com/orders")
        await tlog.freeze(attestor, log.id, "two roots for one tree size")
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="stays so for kapsel_attestor"):
            await tlog.unfreeze(attestor, log.id)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await attestor.execute("UPDATE logs SET frozen_reason = 'nothing much'")
        assert (await tlog.open_log(attestor, log.origin)).frozen_reason == "two roots for one tree size"
    finally:
        await attestor.close()
    await tlog.unfreeze(owner, log.id)
    assert (await tlog.open_log(owner, log.origin)).frozen_reason is None


async def test_what_was_applied_is_what_is_loaded(database, owner: asyncpg.Connection) -> None:
    assert await configuration.load(owner, database.sealing) == Configuration()
    assert await configuration.apply(owner, database.sealing, FULL, actor="test") == 1
    assert await configuration.load(owner, database.sealing) == replace(FULL, generation=1)


async def test_the_authorities_of_a_proxy_are_kept_and_without_them_nothing_is_written_of_them(
    database, owner: asyncpg.Connection
) -> None:
    """What is not declared leaves no trace, so a new version makes no new generation of an old configuration."""
    for proxy, members in (
        (Proxy(url="https://proxy.example:3128"), {"url", "credentials_name"}),
        (Proxy(url="https://proxy.example:3128", ca_name="ca/s/ca.crt"), {"url", "credentials_name", "ca_name"}),
    ):
        wanted = replace(FULL, relay=replace(FULL.relay, proxy=proxy))
        await configuration.apply(owner, database.sealing, wanted, actor="test")
        assert set(json.loads(await owner.fetchval("SELECT relay -> 'proxy' FROM configuration"))) == members
        assert (await configuration.load(owner, database.sealing)).relay == wanted.relay


async def test_applying_the_same_again_writes_nothing(database, owner: asyncpg.Connection) -> None:
    await configuration.apply(owner, database.sealing, FULL, actor="test")
    before = await owner.fetchval("SELECT xmin FROM configuration")
    assert await configuration.apply(owner, database.sealing, FULL, actor="test") == 1
    assert await owner.fetchval("SELECT xmin FROM configuration") == before


async def test_only_what_changed_gets_the_new_generation(database, owner: asyncpg.Connection) -> None:
    other = replace(ORDERS, id=uuid4(), name="other")
    await configuration.apply(owner, database.sealing, replace(FULL, endpoints=(ORDERS, other)), actor="test")
    changed = replace(FULL, endpoints=(ORDERS, replace(other, suspend=True)))
    assert await configuration.apply(owner, database.sealing, changed, actor="test") == 2
    rows = await owner.fetch("SELECT name, generation FROM endpoints ORDER BY name")
    assert [tuple(row) for row in rows] == [("orders", 1), ("other", 2)]


async def test_what_was_planned_on_a_generation_that_runs_no_more_is_not_applied(
    database, owner: asyncpg.Connection
) -> None:
    assert await configuration.apply(owner, database.sealing, FULL, actor="test", expected=0) == 1
    late = replace(FULL, endpoints=(replace(ORDERS, suspend=True),))
    with pytest.raises(StaleConfigurationError):
        await configuration.apply(owner, database.sealing, late, actor="test", expected=0)
    assert await configuration.load(owner, database.sealing) == replace(FULL, generation=1)
    assert await configuration.apply(owner, database.sealing, FULL, actor="test", expected=0) == 1  # says the same
    assert await configuration.apply(owner, database.sealing, late, actor="test", expected=1) == 2


async def test_secrets_lie_sealed_in_the_database(database, owner: asyncpg.Connection) -> None:
    await configuration.apply(owner, database.sealing, FULL, actor="test")
    tables = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'"
    )
    for table in tables:
        rows = await owner.fetch(f"SELECT t::text FROM {table['relname']} t")
        for row in rows:
            assert "the secret of stripe" not in row[0]
            assert b"the secret of stripe".hex() not in row[0]
    with pytest.raises(SealingError):
        await configuration.load(owner, SealingKeys([os.urandom(32)]))


async def test_a_source_follows_the_configuration_and_keeps_the_last_good_one(database, owner) -> None:
    pool = await database.pool("receiver")
    listener = database_listener(database)
    source = configuration.Source(pool, database.sealing, listener)
    seen: asyncio.Queue[int] = asyncio.Queue()
    source.subscribe(lambda loaded: seen.put_nowait(loaded.generation))
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(listener.run(stopping))
        tasks.create_task(source.follow(stopping))
        assert await asyncio.wait_for(seen.get(), 240) == 0
        await configuration.apply(owner, database.sealing, FULL, actor="test")
        assert await asyncio.wait_for(seen.get(), 240) == 1
        await owner.execute("UPDATE keys SET sealed = sealed || 'x'")
        await owner.execute("UPDATE configuration SET generation = 2")
        while source.problem is None:
            await asyncio.sleep(0)
        assert source.current.generation == 1
        stopping.set()


async def test_a_listener_finds_out_that_nobody_is_there_any_more(database) -> None:
    """Whoever vanishes closes no connection, and one that only listens would wait for its hints for ever."""
    passing = asyncio.Event()
    passing.set()
    wire = to_postgres(database.url)

    async def held() -> Opened:
        there, back = await open_there()
        return Withheld(there, passing), back

    open_there, wire.open_there = wire.open_there, held
    stopping = asyncio.Event()
    async with wire, asyncio.timeout(240), asyncio.TaskGroup() as tasks:
        listener = Listener(
            wire.url, role=None, schema=database.schema, component="test", channels=["said"], quiet=0.05
        )
        heard = listener.event("said")
        tasks.create_task(listener.run(stopping))
        await heard.wait()
        heard.clear()
        passing.clear()
        while wire.connections < 2:  # it has given the first one up
            await asyncio.sleep(0.01)
        passing.set()
        await heard.wait()  # it listens anew, and what was said meanwhile is looked for
        stopping.set()


async def test_postgres_notices_soon_that_a_client_has_vanished(owner: asyncpg.Connection) -> None:
    """Else it keeps what that one has locked for two hours."""
    asked = "SELECT reset_val FROM pg_settings WHERE name IN ('tcp_keepalives_idle', 'tcp_user_timeout') ORDER BY name"
    # The settings themselves are 0 at a Unix socket.
    assert [row["reset_val"] for row in await owner.fetch(asked)] == ["10", "25000"]


def database_listener(made) -> database.Listener:
    return database.Listener(
        made.url,
        role=None,
        schema=made.schema,
        component="test",
        channels=[database.CONFIGURATION_CHANNEL],
    )


async def test_a_heartbeat_says_who_lives_and_leaves_when_it_stops(database) -> None:
    pool = await database.pool("receiver")
    source = configuration.Source(pool, database.sealing, database_listener(database))
    beats = [processes.Heartbeat(pool, "receiver", name, "http://127.0.0.1:1", source) for name in ("a", "b")]
    stopping = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for beat in beats:
            tasks.create_task(beat.run(stopping))
        async with pool.acquire() as connection:
            async with asyncio.timeout(240):
                while len(beating := await processes.list_live(connection)) != 2:
                    await asyncio.sleep(0.01)
            assert [row.instance for row in beating] == ["a", "b"]
        stopping.set()
    async with pool.acquire() as connection:
        assert await processes.list_live(connection) == []


async def test_the_audit_is_a_chain_that_shows_a_changed_entry(database, owner: asyncpg.Connection) -> None:
    for number in range(3):
        await audit.write(owner, actor="ada", action="retry", subject=str(number), detail={"n": number})
    entries = (await audit.page(owner, before=None, limit=10))[::-1]
    previous = bytes(32)
    for entry in entries:
        assert entry.previous == previous
        previous = audit.entry_hash(
            previous,
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            subject=entry.subject,
            detail=entry.detail,
        )
        assert entry.hash == previous
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await owner.execute("UPDATE audit SET actor = 'eve'")


async def test_two_sequencers_cannot_both_extend_the_same_tree(database, owner: asyncpg.Connection) -> None:
    log = await tlog.open_log(owner, "kapsel.test")
    leaf = tlog.NewLeaf(leaf_index=0, attempt_id=str(uuid4()), leaf=b"leaf")
    await owner.execute("INSERT INTO unsequenced VALUES ($1)", leaf.attempt_id)
    tile = tlog.TileRow(level=0, index=0, hashes=b"h" * 32)
    await tlog.append(owner, log, new_size=1, root=b"r" * 32, leaves=[leaf], tiles=[tile], chains=[])
    with pytest.raises(StaleTreeError, match="expected tree size 0, found 1"):
        await tlog.append(owner, log, new_size=1, root=b"s" * 32, leaves=[leaf], tiles=[tile], chains=[])
    assert (await tlog.open_log(owner, "kapsel.test")).root == b"r" * 32


async def test_a_tile_only_grows(database, owner: asyncpg.Connection) -> None:
    tlog.TileRow(level=0, index=0, hashes=b"a" * 32)
    tlog.TileRow(level=0, index=0, hashes=b"b" * 64)
    log = await tlog.open_log(owner, "kapsel.test")
    await tlog.append(
        owner,
        log,
        new_size=1,
        root=b"r" * 32,
        leaves=[],
        tiles=[tlog.TileRow(level=0, index=0, hashes=b"a" * 32)],
        chains=[],
    )
    grown = replace(log, tree_size=1)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="may only grow"):
        await tlog.append(
            owner,
            grown,
            new_size=2,
            root=b"r" * 32,
            leaves=[],
            tiles=[tlog.TileRow(level=0, index=0, hashes=b"b" * 64)],
            chains=[],
        )


async def test_only_one_connection_holds_the_sequencer_lock(database, owner: asyncpg.Connection) -> None:
    other = await database.connection("attestor")
    assert await tlog.try_lock(other, "kapsel.test")
    assert not await tlog.try_lock(owner, "kapsel.test")
    await other.close()
    async with asyncio.timeout(60):
        while not await tlog.try_lock(owner, "kapsel.test"):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (asyncpg.CannotConnectNowError("starting up"), True),
        (asyncpg.AdminShutdownError("going down"), True),
        (asyncpg.DiskFullError("full"), True),
        (asyncpg.SerializationError("moved to another partition"), True),
        (asyncpg.DeadlockDetectedError("deadlock"), True),
        (asyncpg.UniqueViolationError("twice"), False),
        (ValueError(), False),
    ],
)
def test_what_counts_as_the_database_being_away(error: Exception, away: bool) -> None:
    assert database.is_away(error) is away


@pytest.mark.parametrize(
    ("error", "asked"),
    [(asyncpg.SerializationError("moved"), database.TRIES), (asyncpg.UniqueViolationError("twice"), 1)],
)
async def test_only_what_others_rolled_back_is_asked_again_and_not_for_ever(error: Exception, asked: int) -> None:
    errors = [error] * asked

    async def ask() -> str:
        if errors:
            raise errors.pop()
        return "answer"

    with pytest.raises(type(error)):
        await database.again(ask)
    assert errors == []
    errors = [asyncpg.DeadlockDetectedError("deadlock"), asyncpg.SerializationError("moved")]
    assert await database.again(ask) == "answer"
