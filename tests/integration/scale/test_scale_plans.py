"""No statement whose cost grows with history: how every one of sql/queries is planned on a store that has some."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any

import asyncpg
import pytest

from kapsel_store import database as store_database
from kapsel_store import partitions
from kapsel_store.queries import statement

DAYS, EVENTS = 6, 24_000  # over these days; enough that reading all of it is dearer than finding a row
# What reads all of it, because that is what it is for, and by nobody who waits: each with its reason.
WHOLE = {"tlog.remove_tiles_beyond": "kapsel log rebuild, run by hand while nobody leads the log"}

FILL = """
WITH made AS MATERIALIZED (
    SELECT uuidv7(-(interval '1 day' * $3 * (1 - g::float8 / $4))) AS event_id, g,
           uuidv7(-(interval '1 day' * $3 * (1 - g::float8 / $4))) AS delivery_id,
           uuidv7(-(interval '1 day' * $3 * (1 - g::float8 / $4))) AS attempt_id
    FROM generate_series(1, $4::int) g
), stored AS (
    INSERT INTO events (id, endpoint_id, received_at, content_type, headers, body, body_hash, salt)
    SELECT event_id, $1, now(), 'application/json', '[]', decode(repeat('aa', 200), 'hex'), sha256('a'), sha256('b')
    FROM made
), known AS (
    INSERT INTO idempotency (endpoint_id, key, event_id, expires_at)
    SELECT $1, sha256(g::text::bytea), event_id, now() + interval '1 day' FROM made
), ended AS (
    INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, state, attempts, expires_at, finished_at)
    SELECT delivery_id, event_id, $1, $2, CASE WHEN g % 100 = 0 THEN 'exhausted' ELSE 'delivered' END, 1, now(), now()
    FROM made
), logged AS (
    INSERT INTO leaves (log_id, leaf_index, attempt_id, leaf)
    SELECT 1, g, attempt_id, decode(repeat('aa', 300), 'hex') FROM made
)
INSERT INTO attempts (id, delivery_id, event_id, endpoint_id, destination_id, number, started_at, duration, outcome,
                      reason, url, payload_hash, response_status)
SELECT attempt_id, delivery_id, event_id, $1, $2, 1, now(), interval '3 ms', 'delivered', 'status_200', 'http://x/',
       sha256('a'), 200
FROM made
"""
TILES = """
INSERT INTO tiles (log_id, level, index, hashes) SELECT 1, 0, g, sha256('a') FROM generate_series(0, 5000) g
"""
HEADS = """
INSERT INTO heads (log_id, timestamp_ms, tree_size, root, checkpoint, sth_signature, public_key)
SELECT 1, g, g, sha256('a'), 'x', decode(repeat('aa', 64), 'hex'), sha256('b') FROM generate_series(1, 5000) g
"""
QUEUED = """
INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, expires_at)
SELECT uuidv7(), uuidv7(), uuidv7(), '00000000-0000-0000-0000-000000000002', now() + interval '1 day'
FROM generate_series(1, $1::int)
"""
# A parameter has no value in a generic plan, and none is needed to make one.
EXPLAINER = """
CREATE FUNCTION explained(query text) RETURNS SETOF json LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE 'EXPLAIN (GENERIC_PLAN, FORMAT JSON) ' || query;
END $$
"""


@pytest.fixture
async def history(database) -> AsyncIterator[asyncpg.Connection]:
    """A store with a week of history in its partitions, analyzed."""
    connection = await database.connection()  # no pool's, whose statements have a deadline
    now = datetime.now(UTC)
    for age in range(DAYS, -1, -1):
        await partitions.maintain(connection, now - timedelta(days=age))
    endpoint, destination = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
    await connection.execute("INSERT INTO logs (origin, root) VALUES ('plans.test/log', sha256(''))")
    await connection.execute(FILL, endpoint, destination, DAYS, EVENTS)
    await connection.execute(TILES)
    await connection.execute(HEADS)
    await connection.execute("ANALYZE")
    await connection.execute(EXPLAINER)
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    yield connection
    await connection.close()


def names() -> list[str]:
    found = []
    for file in sorted((files("kapsel_store") / "sql" / "queries").iterdir(), key=lambda file: file.name):
        stem = file.name.removesuffix(".sql")
        found += [f"{stem}.{name}" for name in re.findall(r"^-- name: (\w+)", file.read_text(), re.MULTILINE)]
    return found


def nodes(plan: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Give each node of a plan with the types of those above it."""
    yield plan, above
    for child in plan.get("Plans", ()):
        yield from nodes(child, (*above, plan["Node Type"]))


async def tables_of_history(connection: asyncpg.Connection) -> set[str]:
    """Return those that are filled: the partitions of days to come are empty, and read whole for nothing."""
    return {row[0] for row in await connection.fetch("SELECT relname FROM pg_class WHERE reltuples >= 1000")}


async def growing(connection: asyncpg.Connection, query: str) -> list[str]:
    """Return the nodes that read a whole table of history: by itself, or along an index that nothing bounds."""
    filled = await tables_of_history(connection)
    [row] = await connection.fetch("SELECT explained($1)", query)
    found = []
    for node, above in nodes(json.loads(row[0])[0]["Plan"]):
        if node.get("Relation Name") not in filled:
            continue
        whole = node["Node Type"] == "Seq Scan" or (
            node["Node Type"] in ("Index Scan", "Index Only Scan") and "Index Cond" not in node and "Limit" not in above
        )
        if whole:
            found.append(f"{node['Node Type']} of {node['Relation Name']}")
    return found


async def test_no_statement_reads_a_whole_table_of_history(history: asyncpg.Connection) -> None:
    found = {}
    for name in names():
        query = statement(name)
        if not re.match(r"(--[^\n]*\n)*\s*(SELECT|WITH|INSERT|UPDATE|DELETE)\b", query):
            continue  # DDL
        try:
            whole = await growing(history, query)
        except asyncpg.PostgresError as error:
            raise AssertionError(f"{name} cannot be planned: {error}") from error
        if whole:
            found[name] = whole
    assert {name: whole for name, whole in found.items() if name not in WHOLE} == {}


async def test_the_check_would_see_a_statement_that_does(history: asyncpg.Connection) -> None:
    for query in (
        "SELECT count(*) FROM events WHERE correlation_id = $1",
        "SELECT * FROM attempts WHERE event_id = $1",
        "SELECT max(finished_at) FROM deliveries WHERE destination_id = $1",
        "SELECT event_id FROM idempotency WHERE event_id = $1",
    ):
        assert await growing(history, query), query


async def planned(connection: asyncpg.Connection, name: str, **options: bool) -> list[dict[str, Any]]:
    """Return the nodes of a statement's plan as a connection of the deliverer makes it."""
    session = store_database.settings(schema="any", role=None, component="deliverer", **options)
    async with connection.transaction():
        for setting in session.keys() - {"application_name", "search_path", "timezone"}:
            await connection.execute(f"SET LOCAL {setting} = {session[setting]}")
        [row] = await connection.fetch("SELECT explained($1)", statement(name))
    return [node for node, _ in nodes(json.loads(row[0])[0]["Plan"])]


@pytest.mark.parametrize("waiting", [0, 30, 3000])
async def test_a_plan_of_the_queue_is_good_however_full_it_was_when_it_was_made(
    history: asyncpg.Connection, waiting: int
) -> None:
    await history.execute(QUEUED, waiting)
    await history.execute("VACUUM ANALYZE deliveries_live")
    claim = await planned(history, "deliveries.claim")
    read = [node for node in claim if node.get("Relation Name") == "deliveries_live" and "Scan" in node["Node Type"]]
    assert [(node["Node Type"], node.get("Index Name")) for node in read] == [
        ("Index Scan", "deliveries_due"),
        ("Tid Scan", None),
    ]
    assert "due_at <= now()" in read[0]["Index Cond"]
    # A nested loop of the batch and its rows is the square of it.
    record = await planned(history, "deliveries.record", nested_loops=False)
    assert {node["Node Type"] for node in record}.isdisjoint({"Nested Loop", "Seq Scan", "Bitmap Heap Scan"})
    [row] = [node for node in record if node.get("Index Name") == "deliveries_live_pkey"]
    assert "ANY ($2)" in row["Index Cond"]


@pytest.mark.parametrize(
    ("name", "found_by"),
    [
        ("deliveries.page_of_event", {"deliveries": "event_id"}),
        ("attempts.page_of_event", {"deliveries": "event_id", "attempts": "delivery_id"}),
        ("attempts.page_of_delivery", {"attempts": "delivery_id"}),
        ("explain.family", {"deliveries": "event_id"}),
    ],
)
async def test_what_is_of_one_event_or_delivery_is_found_by_it_and_not_among_all_of_its_age(
    history: asyncpg.Connection, name: str, found_by: dict[str, str]
) -> None:
    filled = await tables_of_history(history)
    [row] = await history.fetch("SELECT explained($1)", statement(name))
    plan = [node for node, _ in nodes(json.loads(row[0])[0]["Plan"])]
    read = [
        (table, node)
        for node in plan
        for table in found_by
        if node.get("Relation Name") in filled and node["Relation Name"].startswith(table)
    ]
    assert {table for table, _ in read} == found_by.keys()
    for table, node in read:
        assert f"{found_by[table]} = " in node.get("Index Cond", node.get("Recheck Cond", "")), node
