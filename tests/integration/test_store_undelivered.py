"""What was not delivered, by the store: pairs of event and destination, found by indexes whatever was delivered."""

import hashlib
import os
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from kapsel_console.explanation import explain
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
    return {one.row.id for one in found.found}


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
            found += [one.row.id for one in page.found]
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
    assert ([one.row.id for one in rest.found], rest.below) == (kept, None)


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


ALIVE = "INSERT INTO processes (component, instance, address, generation, seen_at, waiting) VALUES "
ALIVE += "('deliverer', 'd-1', '', 1, now() + interval '1 hour', {})"
D1 = ALIVE.format("'{}'")
CIRCUIT = "INSERT INTO circuits (destination_id, {}) SELECT id, {} FROM destinations"
EMPTY = (
    "INSERT INTO buckets (id, version, tokens, filled_at, outstanding) SELECT id, 1, 0, now(), '{}' FROM destinations"
)
SLOW = """UPDATE destinations SET spec = spec || '{"rate_limit": {"requests_per_second": 0.001, "burst": 1}}'"""
KEYED = "UPDATE deliveries SET order_key = '\\x00112233445566778899aabbccddeeff', order_number = 2, held = true, "
KEYED += "due_at = '3000-01-01' WHERE state = 'pending'"
TURN = "INSERT INTO turns (destination_id, key, head, last, blocked_by, blocked_at) SELECT id, "
TURN += "'\\x00112233445566778899aabbccddeeff', 1, 2, {}, {} FROM destinations"
GRANTED = "INSERT INTO slots (destination_id, version, grants) SELECT id, 1, "
GRANTED += "jsonb_build_object('gone', jsonb_build_array(32, 32, now() + interval '1 hour')) FROM destinations"
KEPT = {
    "destination_removed": ["UPDATE destinations SET deleted_at = now()"],
    "destination_suspended": ["UPDATE destinations SET spec = spec || '{\"suspend\": true}'"],
    "destination_disabled": [CIRCUIT.format("disabled_at, disabled_reason", "now(), 'status_410'")],
    "circuit_open": [CIRCUIT.format("state, open_until", "'open', now()")],
    "circuit_half_open": [CIRCUIT.format("state, open_until", "'half_open', now()")],
    "no_deliverer": [],
    "rate_limited": [D1, SLOW, EMPTY],
    "circuit_recovering": [D1, EMPTY, CIRCUIT.format("recovering_since", "now() + interval '1 hour'")],
    "slots_held": [
        D1,
        GRANTED,
    ],
    "places_taken": [ALIVE.format("(SELECT array_agg(id) FROM destinations)")],
    "batch_gathers": [
        D1,
        """UPDATE destinations SET spec = spec || '{"batch": {"interval": "PT1H"}}'""",
        "UPDATE deliveries SET due_at = now()",
    ],
    "concurrency_full": [D1, "UPDATE destinations SET spec = spec || '{\"max_in_flight\": 0}'"],
    "order_key_blocked": [D1, TURN.format("gen_random_uuid()", "now()"), KEYED],
    "order_key_waits": [D1, TURN.format("NULL", "NULL"), KEYED],
    "retry_scheduled": [D1, "UPDATE deliveries SET due_at = now() + interval '1 hour' WHERE state = 'pending'"],
    "being_sent": [],
    "due": [D1],
}


@pytest.mark.parametrize("code", [reason.code for reason in REASONS.values() if reason.kind == "wait"])
async def test_what_was_never_tried_says_everywhere_what_keeps_it(owner, code: str) -> None:
    (waits,) = await put(owner, BILLING, state=State.SENDING if code == "being_sent" else State.PENDING)
    for change in KEPT[code]:
        await owner.execute(change)
    known = await facts.gather(owner, waits)
    assert known is not None
    assert explain(known, None).reason == code
    assert [one.reason for one in (await undelivered.page(owner, limit=9, now=NOW)).found] == [code]
    assert await listed(owner, faults=[REASONS[code].fault]) == await listed(owner, reasons=[code]) == {waits}
    (one,), _ = await undelivered.summaries(owner, limit=9, now=NOW)
    assert [(group.reason, group.fault) for group in one.groups] == [(code, REASONS[code].fault)]
    oldest = [(one.destination, one.fault, one.created_at) for one in await undelivered.oldest(owner, now=NOW)]
    there = code != "destination_removed"
    assert oldest == [(f"shop/orders/{BILLING.name}", REASONS[code].fault, LONG_AGO)] * there


async def test_those_that_there_are_tokens_for_are_told_from_those_that_wait_for_one(owner) -> None:
    made = [(await put(owner, BILLING))[0] for _ in range(5)]
    for number, one in enumerate(made):
        await owner.execute(
            "UPDATE deliveries SET due_at = $2 WHERE id = $1", one, LONG_AGO + timedelta(minutes=number)
        )
    for change in (D1, SLOW.replace('"burst": 1', '"burst": 9'), EMPTY.replace("1, 0,", "1, 2,")):
        await owner.execute(change)
    explained = {one: explain(known, None).reason for one in made if (known := await facts.gather(owner, one))}
    assert explained == {one: "due" if number < 2 else "rate_limited" for number, one in enumerate(made)}
    assert {one.row.id: one.reason for one in (await undelivered.page(owner, limit=9, now=NOW)).found} == explained
    (summary,), _ = await undelivered.summaries(owner, limit=9, now=NOW)
    assert [(group.reason, group.count) for group in summary.groups] == [("due", 2), ("rate_limited", 3)]


async def test_those_in_line_and_those_before_them_are_told_apart(owner) -> None:
    first, held = (await put(owner, BILLING))[0], (await put(owner, BILLING))[0]
    for change in (D1, TURN.format("NULL", "NULL"), KEYED.replace("state = 'pending'", f"id = '{held}'")):
        await owner.execute(change)
    found = {one.row.id: one.reason for one in (await undelivered.page(owner, limit=9, now=NOW)).found}
    assert found == {first: "due", held: "order_key_waits"}
    (summary,), _ = await undelivered.summaries(owner, limit=9, now=NOW)
    assert {(group.reason, group.count) for group in summary.groups} == {("due", 1), ("order_key_waits", 1)}
    assert {one.fault for one in await undelivered.oldest(owner, now=NOW)} == {"ours", "none"}


async def test_what_others_owe_for_longer_does_not_hide_what_is_ours(database, owner) -> None:
    await put(owner, BILLING, 1, State.EXHAUSTED, "status_422", at=LONG_AGO - timedelta(days=1))
    await put(owner, BILLING)
    measures = await database.connection("deliverer")
    found = await undelivered.oldest(measures, now=NOW)
    await measures.close()
    assert [(one.fault, one.created_at) for one in found] == [
        ("destination", LONG_AGO - timedelta(days=1)),
        ("ours", LONG_AGO),
    ]


async def test_what_was_given_up_by_others_fault_does_not_hide_what_was_by_ours(owner) -> None:
    for days, reason in ((3, "status_503"), (2, "proxy_unreachable"), (1, "internal"), (1, "filter_error")):
        await put(owner, BILLING, 1, State.EXHAUSTED, reason, at=LONG_AGO - timedelta(days=days))
    assert [(one.fault, one.created_at) for one in await undelivered.oldest(owner, now=NOW)] == [
        ("destination", LONG_AGO - timedelta(days=3)),
        ("ours", LONG_AGO - timedelta(days=2)),
        ("configuration", LONG_AGO - timedelta(days=1)),
    ]


async def test_what_a_removed_destination_did_not_get_is_not_measured_for_nobody_can_retry_it(owner) -> None:
    await put(owner, BILLING, 1, State.EXHAUSTED, "internal")
    await put(owner, CRM, 1, State.EXHAUSTED, "internal")
    await owner.execute("UPDATE destinations SET deleted_at = now() WHERE id = $1", BILLING.id)
    assert [one.destination for one in await undelivered.oldest(owner, now=NOW)] == [f"shop/orders/{CRM.name}"]
    found, _ = await undelivered.summaries(owner, limit=9, now=NOW)
    assert [one.removed for one in found] == [True, False]


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
    "undelivered.groups": (f"{SOME}, {LAST}, 1000, '{{NULL,NULL}}'", [BY_DESTINATION]),
    "undelivered.oldest": (f"{SOME}, {LAST}, 1000", [BY_DESTINATION]),
    "explain.family": (f"'{uuid4()}', '{uuid4()}', 20, {FIRST}", ["deliveries_final_default_event_id_idx"]),
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
