"""What was not delivered, by the store: pairs of event and destination, found by indexes whatever was delivered."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from kapsel_store import configuration, deliveries, events, facts, ids, undelivered
from kapsel_store.queries import statement
from kapsel_store.reasons import REASONS
from kapsel_store.rows import Configuration, DestinationRow, EndpointRow, NewDelivery, NewEvent, Verification
from kapsel_store.states import State

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(hours=3)
ORDERS = EndpointRow(id=uuid4(), namespace="shop", name="orders", verification=Verification(scheme="none"))
BILLING, CRM = sorted(
    (
        DestinationRow(id=uuid4(), endpoint_id=ORDERS.id, name=name, url="http://127.0.0.1:9/")
        for name in ("billing", "crm")
    ),
    key=lambda row: row.id,
)


@pytest.fixture
async def owner(database) -> asyncpg.Connection:
    connection = await (await database.pool()).acquire()
    desired = Configuration(endpoints=(ORDERS,), destinations=(BILLING, CRM))
    await configuration.apply(connection, database.sealing, desired, actor="test")
    return connection


async def put(
    connection: asyncpg.Connection,
    to: DestinationRow,
    count: int = 1,
    state: State = State.PENDING,
    reason: str | None = None,
    *,
    at: datetime = LONG_AGO,
) -> list[UUID]:
    """Store events that came in then, and leave their deliveries like this."""
    generator = ids.Generator()
    batch = [
        NewEvent(
            id=generator.new(ids.milliseconds(at)),
            endpoint_id=ORDERS.id,
            received_at=at,
            content_type="text/plain",
            headers="[]",
            body=b"x",
            body_hash=hashlib.sha256(b"x").digest(),
            salt=os.urandom(32),
            idempotency_key=None,
            idempotency_window=None,
            correlation_id=None,
            deliveries=(
                NewDelivery(id=generator.new(ids.milliseconds(at)), destination_id=to.id, max_age=timedelta(days=9)),
            ),
        )
        for _ in range(count)
    ]
    await events.insert(connection, batch)
    made = [delivery.id for event in batch for delivery in event.deliveries]
    await connection.execute(
        "UPDATE deliveries SET last_reason = $2, created_at = $3 WHERE id = ANY ($1) AND state = 'pending'",
        made,
        reason,
        at,
    )
    if state is State.PENDING:
        return made
    await connection.execute(
        "UPDATE deliveries SET state = 'sending', attempts = 1, lease_id = gen_random_uuid(), lease_expires_at = now() "
        "WHERE id = ANY ($1) AND state = 'pending'",
        made,
    )
    if state is not State.SENDING:
        back = State.PENDING if state is State.CANCELLED else state
        await connection.execute(
            "UPDATE deliveries SET state = $2, lease_id = NULL, lease_expires_at = NULL, "
            "finished_at = CASE WHEN $2 <> 'pending' THEN now() END WHERE id = ANY ($1) AND state = 'sending'",
            made,
            back,
        )
    if state is State.CANCELLED:
        await connection.execute(
            "UPDATE deliveries SET state = 'cancelled', finished_at = now() WHERE id = ANY ($1) AND state = 'pending'",
            made,
        )
    return made


async def listed(connection: asyncpg.Connection, **asked) -> set[UUID]:
    found = await undelivered.page(connection, limit=200, now=NOW, **asked)
    assert found.below is None
    return {row.id for row in found.found}


async def test_what_waits_for_long_and_what_was_given_up_is_undelivered(owner) -> None:
    waits = await put(owner, BILLING, 2)
    sending = await put(owner, BILLING, 1, State.SENDING)
    failed = await put(owner, CRM, 2, State.EXHAUSTED, "dns")
    await put(owner, BILLING, 2, State.DELIVERED, "status_200")
    await put(owner, BILLING, 2, State.CANCELLED, "filtered")
    fresh = await put(owner, BILLING, 2, at=NOW - timedelta(seconds=30))
    assert await listed(owner) == {*waits, *sending, *failed}
    assert await listed(owner, late=timedelta(seconds=20)) == {*waits, *sending, *failed, *fresh}
    assert await listed(owner, since=NOW - timedelta(hours=1)) == set()


async def test_it_is_narrowed_by_destination_fault_and_reason(owner) -> None:
    down = await put(owner, CRM, 2, State.EXHAUSTED, "status_503")
    ours = await put(owner, CRM, 1, State.EXHAUSTED, "internal")
    wrong = await put(owner, BILLING, 1, State.PENDING, "address_denied")
    assert await listed(owner, destination_ids=[CRM.id]) == {*down, *ours}
    assert await listed(owner, destination_ids=[BILLING.id, CRM.id]) == {*down, *ours, *wrong}
    assert await listed(owner, faults=["destination"]) == set(down)
    assert await listed(owner, faults=["ours", "configuration"]) == {*ours, *wrong}
    assert await listed(owner, reasons=["internal", "address_denied"], destination_ids=[CRM.id]) == set(ours)


@pytest.mark.parametrize("of", [None, [BILLING.id, CRM.id]])
async def test_pages_of_any_size_have_each_one_once_the_newest_first(owner, of) -> None:
    made = {
        *await put(owner, BILLING, 7, State.EXHAUSTED, "dns"),
        *await put(owner, CRM, 5, State.SENDING),
        *await put(owner, CRM, 6),
    }
    for limit in (1, 4, 17, 18, 19):
        found: list[UUID] = []
        before = None
        while True:
            page = await undelivered.page(owner, limit=limit, now=NOW, before=before, destination_ids=of)
            found += [row.id for row in page.found]
            before = page.below
            if before is None:
                break
        assert found == sorted(made, reverse=True)


async def test_what_was_delivered_again_is_asked_for_no_more(owner) -> None:
    first, second = await put(owner, CRM, 2, State.EXHAUSTED, "dns")
    again = await deliveries.retry(owner, first)
    assert isinstance(again, UUID)
    assert await listed(owner) == {second}
    found, _ = await undelivered.summaries(owner, limit=9, now=NOW)
    assert [group.count for one in found for group in one.groups] == [1]
    known = await facts.gather(owner, first)
    assert known is not None
    assert [one.id for one in known.family] == [first, again]


async def test_a_page_walks_past_what_was_delivered_again_in_bounded_steps(owner) -> None:
    gone = await put(owner, CRM, undelivered.WIDTH * undelivered.STEPS + 1, State.EXHAUSTED, "dns")
    kept = await put(owner, CRM, 1, State.EXHAUSTED, "dns", at=LONG_AGO - timedelta(hours=1))
    await owner.executemany("INSERT INTO superseded (delivery_id) VALUES ($1)", [(one,) for one in gone])
    first = await undelivered.page(owner, limit=10, now=NOW)
    assert (first.found, first.below is not None) == ((), True)
    rest = await undelivered.page(owner, limit=10, now=NOW, before=first.below)
    assert ([row.id for row in rest.found], rest.below) == (kept, None)


async def test_a_summary_says_how_many_how_old_why_and_whose_fault(owner) -> None:
    await put(owner, BILLING, 3, State.EXHAUSTED, "status_503")
    await put(owner, BILLING, 2, State.PENDING, "status_503", at=LONG_AGO - timedelta(hours=1))
    await put(owner, BILLING, 1, State.EXHAUSTED, "internal")
    await put(owner, CRM, 1)
    (billing, crm), after = await undelivered.summaries(owner, limit=9, now=NOW)
    assert (billing.destination, billing.more, after) == (f"shop/orders/{BILLING.name}", False, None)
    assert [(group.state, group.reason, group.fault, group.count) for group in billing.groups] == [
        (State.EXHAUSTED, "internal", "ours", 1),
        (State.PENDING, "status_503", "destination", 2),
        (State.EXHAUSTED, "status_503", "destination", 3),
    ]
    assert billing.groups[1].oldest == LONG_AGO - timedelta(hours=1)
    assert [(group.reason, group.fault) for group in crm.groups] == [("no_deliverer", "ours")]


DISABLED = "SELECT id, now(), 'status_410' FROM destinations"
ALIVE = "VALUES ('deliverer', 'one', '', 1, now() + interval '1 hour')"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE destinations SET spec = spec || '{\"suspend\": true}'", "destination_suspended"),
        ("UPDATE destinations SET deleted_at = now()", "destination_removed"),
        (f"INSERT INTO circuits (destination_id, disabled_at, disabled_reason) {DISABLED}", "destination_disabled"),
        (
            "INSERT INTO circuits (destination_id, state, open_until) SELECT id, 'open', now() FROM destinations",
            "circuit_open",
        ),
        (
            "INSERT INTO circuits (destination_id, state, open_until) SELECT id, 'half_open', now() FROM destinations",
            "circuit_half_open",
        ),
        (f"INSERT INTO processes (component, instance, address, generation, seen_at) {ALIVE}", "due"),
    ],
)
async def test_what_was_never_tried_says_what_keeps_it(owner, change: str, reason: str) -> None:
    await put(owner, BILLING)
    await owner.execute(change)
    (one,), _ = await undelivered.summaries(owner, limit=9, now=NOW)
    assert [group.reason for group in one.groups] == [reason]
    assert reason in REASONS
    (oldest,) = await undelivered.oldest(owner, now=NOW)
    assert (oldest.destination, oldest.fault, oldest.created_at) == (
        *(f"shop/orders/{BILLING.name}", REASONS[reason].fault, LONG_AGO),
    )


async def test_a_summary_counts_up_to_a_bound_and_says_so(owner) -> None:
    await put(owner, BILLING, undelivered.COUNTED + 1, State.EXHAUSTED, "dns")
    await put(owner, CRM, undelivered.COUNTED + 1)
    found, _ = await undelivered.summaries(owner, limit=9, now=NOW)
    assert [(one.more, one.groups[0].count) for one in found] == [(True, undelivered.COUNTED)] * 2


async def test_summaries_go_on_where_the_last_page_ended(owner) -> None:
    await put(owner, BILLING, 1, State.EXHAUSTED, "dns")
    await put(owner, CRM)
    for endpoint_id in (None, ORDERS.id):
        first, after = await undelivered.summaries(owner, limit=1, now=NOW, endpoint_id=endpoint_id)
        assert after == BILLING.id
        second, after = await undelivered.summaries(owner, limit=1, now=NOW, after=after, endpoint_id=endpoint_id)
        assert [one.destination_id for one in (*first, *second)] == [BILLING.id, CRM.id]
        assert after is not None
        assert await undelivered.summaries(owner, limit=1, now=NOW, after=after, endpoint_id=endpoint_id) == ([], None)


async def test_the_oldest_of_each_destination_is_measured_the_worst_off_first(owner) -> None:
    await put(owner, CRM, 2, State.EXHAUSTED, "dns", at=LONG_AGO)
    (replayed,) = await put(owner, BILLING, 1, State.EXHAUSTED, "dns", at=LONG_AGO - timedelta(days=1))
    await put(owner, BILLING, 1, State.EXHAUSTED, "internal", at=LONG_AGO - timedelta(hours=1))
    await deliveries.retry(owner, replayed)
    found = await undelivered.oldest(owner, now=NOW)
    assert [(one.destination, one.fault) for one in found] == [
        (f"shop/orders/{BILLING.name}", "ours"),
        (f"shop/orders/{CRM.name}", "destination"),
    ]


FIRST, LAST = f"'{events.FIRST_ID}'", f"'{events.LAST_ID}'"
SOME = f"'{{{BILLING.id},{CRM.id}}}'"
BY_DESTINATION = "deliveries_final_default_destination_id_id_idx"
PLANS = {
    "undelivered.step": (f"{LAST}, {FIRST}, 500, {LAST}", ["deliveries_final_default_id_idx1"]),
    "undelivered.step_of_destinations": (f"{LAST}, {FIRST}, 500, {LAST}, {SOME}", [BY_DESTINATION]),
    "undelivered.destinations": (f"{FIRST}, 50", [BY_DESTINATION]),
    "undelivered.groups": (f"{SOME}, {LAST}, 1000", [BY_DESTINATION]),
    "undelivered.oldest": (f"{SOME}, {LAST}, 1000", [BY_DESTINATION]),
    "explain.family": (f"'{uuid4()}', '{uuid4()}', 20", ["deliveries_final_default_event_id_idx"]),
}


async def test_nothing_that_was_delivered_is_waded_through(database, owner) -> None:
    await put(owner, BILLING, 3000, State.DELIVERED, "status_200")
    await put(owner, CRM, 3000, State.CANCELLED, "filtered")
    await put(owner, CRM, 10, State.EXHAUSTED, "dns")
    await owner.execute("ANALYZE events, deliveries")
    connection = await database.connection("console")
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    for name, (arguments, indexes) in PLANS.items():
        await connection.execute(f"PREPARE asked AS {statement(name)}")
        said = "\n".join(line[0] for line in await connection.fetch(f"EXPLAIN EXECUTE asked ({arguments})"))
        await connection.execute("DEALLOCATE asked")
        assert [index for index in indexes if index not in said] == [], said
        assert "Seq Scan on deliveries_final" not in said, said
    await connection.close()
