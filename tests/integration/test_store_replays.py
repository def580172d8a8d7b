"""Replays in the store: declared once, walked in steps over indexes, taken by one at a time, forgotten in the end."""

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from kapsel_store import audit, configuration, deliveries, erasures, events, ids, partitions, replay_runs, replays
from kapsel_store.queries import statement
from kapsel_store.reasons import pattern
from kapsel_store.replays import Phase
from kapsel_store.rows import (
    Configuration,
    DestinationRow,
    EndpointRow,
    NewDelivery,
    NewEvent,
    ReplayRow,
    Verification,
)
from kapsel_store.states import State

NOW = datetime.now(UTC)


def endpoint(name: str) -> EndpointRow:
    return EndpointRow(id=uuid4(), namespace="shop", name=name, verification=Verification(scheme="none"))


ORDERS, OTHER = endpoint("orders"), endpoint("other")
DESTINATIONS = tuple(
    DestinationRow(id=uuid4(), endpoint_id=of.id, name=name, url="http://127.0.0.1:9/")
    for of in (ORDERS, OTHER)
    for name in ("billing", "audit")
)
AGAIN = ReplayRow(
    id=uuid4(),
    namespace="shop",
    name="again",
    endpoint_id=ORDERS.id,
    destinations=None,
    received_from=NOW - timedelta(hours=2),
    received_to=NOW + timedelta(days=1),  # it may be hours since this was read
    states=(State.EXHAUSTED,),
)


@pytest.fixture
async def owner(database) -> asyncpg.Connection:
    connection = await (await database.pool()).acquire()
    desired = Configuration(endpoints=(ORDERS, OTHER), destinations=DESTINATIONS)
    await configuration.apply(connection, database.sealing, desired, actor="test")
    return connection


async def put(connection: asyncpg.Connection, of: EndpointRow, count: int, state: State) -> list[UUID]:
    """Store events whose deliveries have ended so; return the deliveries."""
    rows = [row for row in DESTINATIONS if row.endpoint_id == of.id]
    batch = [
        NewEvent(
            id=ids.new(),
            endpoint_id=of.id,
            received_at=NOW,
            content_type="text/plain",
            headers="[]",
            body=b"x",
            body_hash=hashlib.sha256(b"x").digest(),
            salt=os.urandom(32),
            idempotency_key=None,
            idempotency_window=None,
            correlation_id=None,
            deliveries=tuple(
                NewDelivery(id=ids.new(), destination_id=row.id, max_age=row.policy.max_age) for row in rows
            ),
        )
        for _ in range(count)
    ]
    await events.insert(connection, batch)
    made = [delivery.id for event in batch for delivery in event.deliveries]
    await connection.execute(
        "UPDATE deliveries SET state = 'sending', attempts = 1, lease_id = gen_random_uuid(), lease_expires_at = now() "
        "WHERE id = ANY ($1) AND state = 'pending'",
        made,
    )
    await connection.execute(
        "UPDATE deliveries SET state = $2, lease_id = NULL, lease_expires_at = NULL, finished_at = now() "
        "WHERE id = ANY ($1) AND state = 'sending'",
        made,
        state,
    )
    return made


async def begun(connection: asyncpg.Connection, row: ReplayRow) -> replay_runs.Run:
    """Declare a replay and return its run as it is after its start."""
    await replays.apply(connection, [row], actor="test")
    run = await replay_runs.take(connection)
    assert run is not None
    return replace(run, started_at=run.now)


async def walk(connection: asyncpg.Connection, run: replay_runs.Run, most: int, width: int) -> list[UUID]:
    found: list[UUID] = []
    while True:
        step = await replay_runs.step(connection, run, most=most, width=width)
        found += [one.id for one in step.found]
        if step.last:
            return found
        run = replace(run, walked_event=step.walked_event, walked_delivery=step.walked_delivery)


@pytest.mark.parametrize(("most", "width"), [(1, 1), (3, 2), (2, 7), (100, 3), (7, 100)])
@pytest.mark.parametrize("states", [(State.DELIVERED,), (State.EXHAUSTED,), tuple(State)[2:]])
async def test_steps_of_any_size_find_each_delivery_of_the_selection_once(owner, most, width, states) -> None:
    ended = {state: await put(owner, ORDERS, 5, state) for state in (State.DELIVERED, State.EXHAUSTED)}
    await put(owner, OTHER, 5, State.EXHAUSTED)
    await put(owner, ORDERS, 3, State.DELIVERED)
    ended[State.DELIVERED] = [
        row.id
        for row in await deliveries.page(
            owner, now=datetime.now(UTC), limit=200, states=[State.DELIVERED], endpoint_id=ORDERS.id
        )
    ]
    run = await begun(owner, replace(AGAIN, states=states))

    found = await walk(owner, run, most, width)

    assert len(found) == len(set(found))
    assert set(found) == {one for state in states for one in ended.get(state, [])}


async def test_a_time_before_all_times_selects_from_the_first_event(owner) -> None:
    made = await put(owner, ORDERS, 2, State.DELIVERED)
    for states in ((State.DELIVERED,), (State.CANCELLED,)):
        long = replace(AGAIN, id=uuid4(), received_from=datetime(1970, 1, 1, tzinfo=UTC), states=states)
        run = await begun(owner, long)
        assert len(await walk(owner, run, 10, 10)) == (len(made) if State.DELIVERED in states else 0)


async def test_applying_the_same_replays_again_writes_nothing(owner) -> None:
    await replays.apply(owner, [AGAIN], actor="test")
    before = await owner.fetchval("SELECT xmin FROM replays"), len(await audit.page(owner, before=None, limit=10))
    await replays.apply(owner, [AGAIN], actor="test")
    assert (await owner.fetchval("SELECT xmin FROM replays"), len(await audit.page(owner, before=None, limit=10))) == (
        before
    )


async def test_another_selection_under_the_same_name_is_another_run(owner) -> None:
    await replays.apply(owner, [AGAIN], actor="test")
    other = replace(AGAIN, id=uuid4(), states=(State.CANCELLED,))
    await replays.apply(owner, [other], complete=False, actor="test")
    assert [one.id for one in await replays.progress(owner)] == [other.id]
    assert {one.phase for one in await replays.page(owner, limit=10)} == {Phase.REMOVED, Phase.WAITING}


async def test_what_may_still_exist_is_not_removed(owner) -> None:
    other = replace(AGAIN, id=uuid4(), name="other")
    await replays.apply(owner, [AGAIN, other], actor="test")
    await replays.apply(owner, [], complete=False, actor="test")
    await replays.apply(owner, [], kept=[("shop", "other")], actor="test")
    assert [one.name for one in await replays.progress(owner)] == ["other"]


async def test_a_replay_is_taken_by_one_at_a_time(database, owner) -> None:
    await replays.apply(owner, [AGAIN], actor="test")
    one, other = [await database.connection("deliverer") for _ in range(2)]
    usual = await other.fetchval("SHOW idle_in_transaction_session_timeout")
    async with one.transaction():
        assert await replay_runs.take(one) is not None
        assert await replay_runs.take(other) is None
        assert await one.fetchval("SHOW idle_in_transaction_session_timeout") == "30s"
    assert await one.fetchval("SHOW idle_in_transaction_session_timeout") == usual
    assert await replay_runs.take(other) is not None
    await one.close()
    await other.close()


async def test_no_delivery_gets_a_second_new_one_from_the_same_replay(owner) -> None:
    await put(owner, ORDERS, 2, State.EXHAUSTED)
    run = await begun(owner, AGAIN)
    step = await replay_runs.step(owner, run, most=10, width=10)
    assert [await replay_runs.enqueue(owner, run, step.found) for _ in range(2)] == [4, 0]
    assert await owner.fetchval("SELECT count(*) FROM deliveries WHERE replay_of IS NOT NULL") == 4


async def test_open_deliveries_are_looked_at_in_turn_until_all_have_ended(owner) -> None:
    await put(owner, ORDERS, 3, State.EXHAUSTED)
    run = await begun(owner, AGAIN)
    step = await replay_runs.step(owner, run, most=10, width=10)
    run = replace(run, enqueued=await replay_runs.enqueue(owner, run, step.found))
    run = await replay_runs.settle(owner, run, 4)
    assert (run.open, run.settled_to != events.FIRST_ID) == (6, True)
    run = await replay_runs.settle(owner, run, 4)
    assert (run.open, run.settled_to) == (6, events.FIRST_ID)
    _, claimed = await deliveries.claim(owner, {row.id: 10 for row in DESTINATIONS}, timedelta(seconds=9))
    await owner.execute("DELETE FROM deliveries WHERE id = $1", claimed[0].id)
    await owner.execute(
        "UPDATE deliveries SET state = 'delivered', lease_id = NULL, lease_expires_at = NULL, finished_at = now() "
        "WHERE state = 'sending'"
    )
    for _ in range(3):
        run = await replay_runs.settle(owner, run, 4)
    assert (run.delivered, run.failed, run.open) == (5, 1, 0)


@pytest.mark.parametrize("state", [State.EXHAUSTED, State.DELIVERED])
async def test_a_replay_skips_what_was_erased_also_between_its_walks(owner, state) -> None:
    made = await put(owner, ORDERS, 3, state)
    run = await begun(owner, replace(AGAIN, states=(state,)))
    erased = await owner.fetchval("SELECT event_id FROM deliveries WHERE id = $1", made[0])
    assert (await erasures.erase(owner, erased)) is not None
    step = await replay_runs.step(owner, run, most=100, width=100)
    assert {one.id for one in step.found if one.gone} == set(made[:2])
    later = await owner.fetchval("SELECT event_id FROM deliveries WHERE id = $1", made[2])
    await replay_runs.enqueue(owner, run, [one for one in step.found if not one.gone])
    await erasures.erase(owner, later)  # after its new deliveries were made: they end before they are tried
    _, claimed = await deliveries.claim(owner, {row.id: 10 for row in DESTINATIONS}, timedelta(seconds=9))
    assert {one.event_id for one in claimed}.isdisjoint({erased, later})
    ended = await owner.fetch("SELECT state FROM deliveries WHERE event_id = $1 AND replay_of IS NOT NULL", later)
    assert [row["state"] for row in ended] == ["cancelled"] * 2


async def test_removed_replays_are_forgotten_with_the_retention_of_what_they_selected(owner) -> None:
    run = await begun(owner, AGAIN)
    await put(owner, ORDERS, 1, State.EXHAUSTED)
    await replay_runs.enqueue(owner, run, (await replay_runs.step(owner, run, most=10, width=10)).found)
    await replays.apply(owner, [], actor="test")
    await partitions.maintain(owner, datetime.now(UTC))
    assert len(await replays.page(owner, limit=10)) == 1
    await partitions.maintain(owner, datetime.now(UTC) + timedelta(days=40))
    assert await replays.page(owner, limit=10) == []


async def selected(connection: asyncpg.Connection, row: ReplayRow, most: int = 3) -> list[replay_runs.Matched]:
    """Return what a replay that begins now selects, with what is made anew of it."""
    run = await begun(connection, replace(row, id=uuid4()))
    await connection.execute("UPDATE replays SET next_at = 'infinity' WHERE id = $1", run.id)
    found: list[replay_runs.Matched] = []
    while True:
        step = await replay_runs.step(connection, run, most=most, width=2)
        found += step.found
        if step.last:
            return found
        run = replace(run, walked_event=step.walked_event, walked_delivery=step.walked_delivery)


@pytest.mark.parametrize("states", [(State.EXHAUSTED,), (State.EXHAUSTED, State.DELIVERED)])
async def test_a_selection_by_reason_means_those_alone(owner, states) -> None:
    made = await put(owner, ORDERS, 3, State.EXHAUSTED)
    await owner.execute("ALTER TABLE deliveries DISABLE TRIGGER deliveries_transitions")
    for delivery, code in zip(made, ("status_503", "status_404", "dns", "internal", "tls", "reset"), strict=True):
        await owner.execute("UPDATE deliveries SET last_reason = $2 WHERE id = $1", delivery, code)
    for codes, expected in (
        (("status_5xx", "internal"), {made[0], made[3]}),
        (("dns",), {made[2]}),
        (None, set(made)),
    ):
        patterns = None if codes is None else tuple(pattern(code) for code in codes)
        found = await selected(owner, replace(AGAIN, states=states, reasons=patterns))
        assert {one.id for one in found} == expected


async def test_what_a_destination_that_was_declared_later_has_missed_is_selected(database, owner) -> None:
    await put(owner, ORDERS, 3, State.DELIVERED)
    later = DestinationRow(id=uuid4(), endpoint_id=ORDERS.id, name="later", url="http://127.0.0.1:9/")
    before = await configuration.load(owner, database.sealing)
    await configuration.apply(
        owner, database.sealing, replace(before, destinations=(*before.destinations, later)), actor="test"
    )
    missed = replace(AGAIN, states=(), missing=True)
    for destinations in (None, (later.id,)):
        found = await selected(owner, replace(missed, destinations=destinations))
        assert {one.destination_id for one in found} == {later.id}
        assert len({one.event_id for one in found}) == len(found) == 3
    assert await selected(owner, replace(missed, destinations=(DESTINATIONS[0].id,))) == []
    run = await begun(owner, replace(missed, id=uuid4(), name="other"))
    assert await replay_runs.enqueue(owner, run, found) == 3
    assert await replay_runs.enqueue(owner, run, found) == 0
    made = await owner.fetch("SELECT destination_id, replay_of FROM deliveries WHERE state = 'pending'")
    assert [(row["destination_id"], row["replay_of"]) for row in made] == [(later.id, None)] * 3
    assert await selected(owner, missed) == []


async def test_two_replays_at_once_deliver_nothing_twice_unless_they_are_told_to(owner) -> None:
    await put(owner, ORDERS, 2, State.EXHAUSTED)
    runs = [await begun(owner, replace(AGAIN, id=uuid4(), name=name)) for name in ("one", "other")]
    steps = [await replay_runs.step(owner, run, most=10, width=10) for run in runs]
    assert [len(step.found) for step in steps] == [4, 4]
    assert [await replay_runs.enqueue(owner, run, step.found) for run, step in zip(runs, steps, strict=True)] == [4, 0]
    assert await selected(owner, AGAIN) == []
    told = replace(runs[1], anyway=True)
    assert await replay_runs.enqueue(owner, told, steps[1].found) == 4
    assert len(await selected(owner, replace(AGAIN, anyway=True))) == 4


async def test_each_event_is_selected_once_for_a_destination_whoever_retried_it_before(owner) -> None:
    first, _ = await put(owner, ORDERS, 1, State.EXHAUSTED)
    retried = [await deliveries.retry(owner, first) for _ in range(2)]
    await owner.execute("ALTER TABLE deliveries DISABLE TRIGGER deliveries_transitions")
    await owner.execute("UPDATE deliveries SET state = 'exhausted', finished_at = now() WHERE state = 'pending'")
    for anyway in (False, True):
        found = await selected(owner, replace(AGAIN, anyway=anyway))
        assert len(found) == 2
        assert len({one.id for one in found} & {first, *retried}) == 1


async def test_no_more_of_events_is_read_at_once_than_asked_for_and_the_first_in_any_case(owner) -> None:
    made = await put(owner, ORDERS, 4, State.DELIVERED)
    rows = await owner.fetch("SELECT DISTINCT event_id FROM deliveries WHERE id = ANY ($1) ORDER BY event_id", made)
    of = [row["event_id"] for row in rows]
    asked = [of[0], uuid4(), *of[1:]]
    for most, read in ((1, asked[:1]), (2, asked[:3]), (1000, asked)):
        found = await replay_runs.contents(owner, asked, most)
        assert list(found) == read, most
        assert [event for event, content in found.items() if content is None] == [
            one for one in read if one == asked[1]
        ]


ANY = f"'{uuid4()}'"
ALL = f"{ANY}, '{events.FIRST_ID}', '{events.LAST_ID}', '{events.FIRST_ID}', '{{exhausted}}', now(), NULL, 9"
REST = f"'{events.LAST_ID}', '{{exhausted}}', now(), NULL, 9, '{events.LAST_ID}', '{{dns}}', false"
MISSING = f"{ANY}, '{events.FIRST_ID}', '{events.LAST_ID}', '{events.FIRST_ID}', now(), NULL, 9, '{events.FIRST_ID}'"
WALKS = {
    "step_of_not_delivered": (f"'{events.FIRST_ID}', '{events.LAST_ID}', 9", ["deliveries_final_default_id_idx"]),
    "step_of_events": (f"{ANY}, '{events.FIRST_ID}', '{events.LAST_ID}', 9", ["events_default_endpoint_id_id_idx"]),
    "matched_of_events": (
        f"{ALL}, '{events.FIRST_ID}', '{{dns}}', false",
        ["events_default_endpoint_id_id_idx", "deliveries_final_default_event_id_idx"],
    ),
    "matched_of_missing": (
        MISSING,
        ["events_default_endpoint_id_id_idx", "deliveries_final_default_event_id_idx"],
    ),
    "matched_of_not_delivered": (
        f"{ANY}, '{events.FIRST_ID}', '{events.FIRST_ID}', {REST}",
        ["deliveries_final_default_id_idx"],
    ),
    "events_of": (f"ARRAY[{ANY}::uuid], 1048576", ["events_default_pkey"]),
    "settle": (f"{ANY}, '{events.FIRST_ID}', 9", ["deliveries_live_pkey", "Tid Scan on replayed"]),
}


@pytest.mark.parametrize("name", WALKS)
async def test_the_walk_goes_by_indexes(database, owner, name: str) -> None:
    await put(owner, OTHER, 2000, State.DELIVERED)
    await put(owner, ORDERS, 10, State.EXHAUSTED)
    await owner.execute("UPDATE events SET endpoint_id = gen_random_uuid() WHERE endpoint_id = $1", OTHER.id)
    await owner.execute("ANALYZE events, deliveries")
    connection = await database.connection("deliverer")
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE asked AS {statement(f'replays.{name}')}")
    arguments, indexes = WALKS[name]
    plan = await connection.fetch(f"EXPLAIN EXECUTE asked ({arguments})")
    await connection.close()
    said = "\n".join(line[0] for line in plan)
    assert [index for index in indexes if index not in said] == [], said
    assert "Seq Scan on deliveries_final" not in said
    assert "Seq Scan on events" not in said
