"""The queue on a real Postgres: events in once, deliveries leased, fenced, rescued, ended."""

import asyncio
import hashlib
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from random import Random
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
import queued
from pydantic import TypeAdapter
from queued import result

from kapsel_store import attempts, circuits, configuration, deliveries, events, ids, partitions
from kapsel_store.queries import statement
from kapsel_store.reasons import fault_of
from kapsel_store.rows import (
    Accepted,
    Batch,
    Claimed,
    Configuration,
    DestinationRow,
    Duplicate,
    EndpointRow,
    NewEvent,
    Policy,
    Verification,
)
from kapsel_store.states import FINAL, TRANSITIONS, State

LEASE = timedelta(minutes=10)


def endpoint(name: str = "orders") -> EndpointRow:
    return EndpointRow(id=uuid4(), namespace="shop", name=name, verification=Verification(scheme="none"))


def destination(of: EndpointRow, name: str = "billing", policy: Policy | None = None) -> DestinationRow:
    return DestinationRow(
        id=uuid4(), endpoint_id=of.id, name=name, url="http://127.0.0.1:9/", policy=policy or Policy()
    )


def event(of: EndpointRow, *to: DestinationRow, key: bytes | None = None, body: bytes = b"{}") -> NewEvent:
    return queued.event(of.id, (queued.delivery(row, row.policy.max_age) for row in to), once=key, body=body)


class Queue:
    """One endpoint with one destination in a fresh database, and a connection that owns it."""

    def __init__(self, connection: asyncpg.Connection, sealing, policy: Policy | None = None) -> None:
        self.connection = connection
        self.endpoint = endpoint()
        self.destination = destination(self.endpoint, policy=policy)
        self.sealing = sealing

    async def configure(self, *more: DestinationRow) -> None:
        rows = (self.destination, *more)
        desired = Configuration(endpoints=(self.endpoint,), destinations=rows)
        await configuration.apply(self.connection, self.sealing, desired, actor="test")

    async def put(self, count: int = 1) -> list[NewEvent]:
        batch = [event(self.endpoint, self.destination) for _ in range(count)]
        await events.insert(self.connection, batch)
        return batch

    async def claim(self, room: int = 100, lease: timedelta = LEASE) -> tuple[UUID, list[Claimed]]:
        return await deliveries.claim(self.connection, {self.destination.id: room}, lease)


@pytest.fixture
async def queue(database) -> Queue:
    made = Queue(await (await database.pool()).acquire(), database.sealing)
    await made.configure()
    return made


async def test_an_event_and_its_deliveries_are_stored_together(queue: Queue) -> None:
    second = destination(queue.endpoint, "audit")
    await queue.configure(second)
    new = event(queue.endpoint, queue.destination, second, body=b'{"a": 1}')
    assert await events.insert(queue.connection, [new]) == [Accepted(event_id=new.id)]
    stored = await events.get(queue.connection, new.id)
    assert stored is not None
    assert stored.body == b'{"a": 1}'
    rows = await deliveries.page(queue.connection, now=datetime.now(UTC), limit=10, event_id=new.id)
    assert {(row.destination, row.state) for row in rows} == {("billing", State.PENDING), ("audit", State.PENDING)}


async def test_a_key_seen_before_answers_with_the_first_event_within_a_batch_and_across(queue: Queue) -> None:
    first, twin, other = (event(queue.endpoint, queue.destination, key=key) for key in (b"a", b"a", b"b"))
    answers = await events.insert(queue.connection, [first, twin, other])
    assert answers == [Accepted(event_id=first.id), Duplicate(event_id=first.id), Accepted(event_id=other.id)]
    late = event(queue.endpoint, queue.destination, key=b"b")
    assert await events.insert(queue.connection, [late]) == [Duplicate(event_id=other.id)]
    assert len(await deliveries.page(queue.connection, now=datetime.now(UTC), limit=10)) == 2


async def test_the_same_key_at_two_endpoints_is_two_events(queue: Queue) -> None:
    elsewhere = endpoint("elsewhere")
    here, there = event(queue.endpoint, key=b"a"), event(elsewhere, key=b"a")
    assert await events.insert(queue.connection, [here, there]) == [
        Accepted(event_id=here.id),
        Accepted(event_id=there.id),
    ]


async def test_a_key_is_free_again_after_its_window(queue: Queue) -> None:
    first = event(queue.endpoint, key=b"a")
    await events.insert(queue.connection, [first])
    await queue.connection.execute("UPDATE idempotency SET expires_at = now() - interval '1 second'")
    again = event(queue.endpoint, key=b"a")
    assert await events.insert(queue.connection, [again]) == [Accepted(event_id=again.id)]


async def test_receivers_that_store_the_same_keys_at_once_agree_on_the_first_event(database, queue: Queue) -> None:
    pool = await database.pool("receiver")
    keys = [os.urandom(8) for _ in range(50)]

    async def receive(order: list[bytes]) -> list[Accepted | Duplicate]:
        batch = [event(queue.endpoint, queue.destination, key=key) for key in order]
        async with pool.acquire() as connection:
            return await events.insert(connection, batch)

    first, second = await asyncio.gather(receive(keys), receive(keys[::-1]))
    assert [answer.event_id for answer in first] == [answer.event_id for answer in second[::-1]]
    assert len(await events.page(queue.connection, now=datetime.now(UTC), limit=200)) == 50


async def test_claims_at_once_share_the_deliveries_without_overlap(database, queue: Queue) -> None:
    await queue.put(100)
    pool = await database.pool("deliverer")

    async def claim() -> list[UUID]:
        async with pool.acquire() as connection:
            _, claimed = await deliveries.claim(connection, {queue.destination.id: 60}, LEASE)
            return [row.id for row in claimed]

    one, two = await asyncio.gather(claim(), claim())
    assert not set(one) & set(two)
    assert len(one) + len(two) == 100


async def test_a_claim_takes_the_oldest_and_leaves_room_limits_alone(queue: Queue) -> None:
    batch = await queue.put(5)
    _, claimed = await queue.claim(room=2)
    assert {row.event_id for row in claimed} == {batch[0].id, batch[1].id}
    assert {row.number for row in claimed} == {1}


async def test_a_destination_with_a_backlog_does_not_hide_another(queue: Queue) -> None:
    quiet = destination(queue.endpoint, "quiet")
    await queue.configure(quiet)
    await queue.put(50)
    await events.insert(queue.connection, [event(queue.endpoint, quiet)])
    _, claimed = await deliveries.claim(queue.connection, {queue.destination.id: 5, quiet.id: 5}, LEASE)
    assert [row.destination_id for row in claimed].count(quiet.id) == 1
    assert len(claimed) == 6


async def test_a_recorded_try_moves_its_delivery_and_waits_for_the_sequencer(queue: Queue) -> None:
    await queue.put()
    lease, [claimed] = await queue.claim()
    done = result(claimed, lease, State.DELIVERED)
    assert await deliveries.record(queue.connection, [done]) == {done.attempt.id}
    row = await deliveries.get(queue.connection, claimed.id)
    assert row is not None
    assert (row.state, row.attempts, row.last_reason) == (State.DELIVERED, 1, "status_200")
    assert row.finished_at is not None
    [attempt] = await attempts.page(queue.connection, now=datetime.now(UTC), limit=10, delivery_id=claimed.id)
    assert await queue.connection.fetchval("SELECT attempt_id FROM unsequenced") == attempt.attempt.id


async def test_a_retry_is_due_after_its_wait_and_counts_up(queue: Queue) -> None:
    await queue.put()
    lease, [claimed] = await queue.claim()
    await deliveries.record(queue.connection, [result(claimed, lease, State.PENDING, timedelta(hours=1))])
    assert (await queue.claim())[1] == []
    wait = await deliveries.next_due(queue.connection, [queue.destination.id])
    assert wait is not None
    assert timedelta(minutes=50) < wait <= timedelta(hours=1)
    await queue.connection.execute("UPDATE deliveries SET due_at = now() WHERE state = 'pending'")
    _, [again] = await queue.claim()
    assert (again.id, again.number) == (claimed.id, 2)


async def test_who_lost_the_lease_records_the_try_and_moves_nothing(queue: Queue) -> None:
    await queue.put()
    slow_lease, [slow] = await queue.claim(lease=timedelta(seconds=-1))
    assert await deliveries.rescue(queue.connection) == 1
    quick_lease, [quick] = await queue.claim()
    assert await deliveries.record(queue.connection, [result(slow, slow_lease, State.DELIVERED)]) == set()
    row = await deliveries.get(queue.connection, slow.id)
    assert row is not None
    assert row.state is State.SENDING
    await deliveries.record(queue.connection, [result(quick, quick_lease, State.DELIVERED)])
    recorded = await attempts.page(queue.connection, now=datetime.now(UTC), limit=10, delivery_id=slow.id)
    assert [attempt.attempt.number for attempt in recorded] == [2, 1]


async def test_of_two_tries_that_are_recorded_at_once_the_one_that_holds_the_lease_moves_the_delivery(
    queue: Queue,
) -> None:
    await queue.put()
    slow_lease, [slow] = await queue.claim(lease=timedelta(seconds=-1))
    await deliveries.rescue(queue.connection)
    quick_lease, [quick] = await queue.claim()
    both = [result(slow, slow_lease, State.DELIVERED), result(quick, quick_lease, State.EXHAUSTED)]
    assert await deliveries.record(queue.connection, both) == {both[1].attempt.id}
    row = await deliveries.get(queue.connection, slow.id)
    assert row is not None
    assert row.state is State.EXHAUSTED


async def test_recording_the_same_result_again_changes_nothing(queue: Queue) -> None:
    await queue.put()
    lease, [claimed] = await queue.claim()
    done = result(claimed, lease, State.DELIVERED)
    await deliveries.record(queue.connection, [done])
    assert await deliveries.record(queue.connection, [done]) == set()
    assert await queue.connection.fetchval("SELECT count(*) FROM attempts") == 1
    assert await queue.connection.fetchval("SELECT count(*) FROM unsequenced") == 1


async def test_released_deliveries_go_back_as_if_never_claimed(queue: Queue) -> None:
    await queue.put()
    lease, [claimed] = await queue.claim()
    await deliveries.release(queue.connection, {claimed.id: lease})
    _, [again] = await queue.claim()
    assert again.number == 1


@pytest.mark.parametrize("give_back", [deliveries.release, deliveries.skip])
async def test_a_delivery_that_was_claimed_anew_is_not_given_back_with_its_old_lease(
    queue: Queue, give_back: Callable[..., Any]
) -> None:
    await queue.put()
    old, [claimed] = await queue.claim(lease=timedelta(seconds=-1))
    await deliveries.rescue(queue.connection)
    await queue.put()
    new, both = await queue.claim()
    [other] = [one for one in both if one.id != claimed.id]
    # Both leases are of one deliverer, which gives something else back with the newer one.
    await give_back(queue.connection, {claimed.id: old, other.id: new})
    rows = [await deliveries.get(queue.connection, one.id) for one in (claimed, other)]
    assert [(row.state is State.SENDING, row.attempts) for row in rows if row] == [(True, 2), (False, 0)]


async def test_a_renewed_lease_is_not_rescued_and_a_foreign_one_is_not_renewed(queue: Queue) -> None:
    await queue.put(2)
    one, [mine] = await queue.claim(room=1, lease=timedelta(seconds=-1))
    _, [other] = await queue.claim(room=1, lease=timedelta(seconds=-1))
    await deliveries.renew(queue.connection, {mine.id: one, other.id: one}, LEASE)
    assert await deliveries.rescue(queue.connection) == 1
    row = await deliveries.get(queue.connection, mine.id)
    assert row is not None
    assert row.state is State.SENDING


async def test_a_lease_that_still_holds_is_not_rescued(queue: Queue) -> None:
    await queue.put()
    await queue.claim()
    assert await deliveries.rescue(queue.connection) == 0


async def test_what_waits_past_its_age_is_exhausted(queue: Queue) -> None:
    [waiting] = await queue.put()
    await queue.connection.execute("UPDATE deliveries SET expires_at = now() - interval '1 second'")
    assert await deliveries.expire(queue.connection) == 1
    [row] = await deliveries.page(queue.connection, now=datetime.now(UTC), limit=1, event_id=waiting.id)
    assert (row.state, row.last_reason) == (State.EXHAUSTED, "never_tried")


CIRCUIT = "INSERT INTO circuits (destination_id, {}) SELECT id, {} FROM destinations"


@pytest.mark.parametrize(
    ("kept", "reason", "fault"),
    [
        (
            "UPDATE destinations SET spec = spec || '{\"suspend\": true}'",
            *("destination_suspended", "configuration"),
        ),
        (
            CIRCUIT.format("disabled_at, disabled_reason", "now(), 'status_410'"),
            *("destination_disabled", "destination"),
        ),
        (CIRCUIT.format("state, open_until", "'open', now()"), "circuit_open", "destination"),
        (CIRCUIT.format("state, open_until", "'half_open', now()"), "circuit_half_open", "destination"),
        (CIRCUIT.format("state", "'closed'"), "never_tried", "ours"),
    ],
)
async def test_what_was_kept_until_its_age_was_up_says_by_what_and_only_if_it_was_never_tried(
    database, queue: Queue, kept: str, reason: str, fault: str
) -> None:
    await queue.put(2)
    await queue.claim(1, lease=timedelta(seconds=-1))
    assert await deliveries.rescue(queue.connection) == 1
    await queue.connection.execute(kept)
    await queue.connection.execute("UPDATE deliveries SET expires_at = now() - interval '1 second'")
    told: list[tuple[str, str]] = []
    deliverer = await database.connection("deliverer")
    assert await deliveries.expire(deliverer, given_up=lambda *one: told.append(one)) == 2
    await deliverer.close()
    assert sorted(told) == sorted([("shop/orders/billing", "lease_expired"), ("shop/orders/billing", reason)])
    assert fault_of(reason) == fault


async def test_only_a_pending_delivery_can_be_cancelled(queue: Queue) -> None:
    await queue.put(2)
    _, [sending] = await queue.claim(room=1)
    [pending] = await deliveries.page(queue.connection, now=datetime.now(UTC), limit=5, states=[State.PENDING])
    assert not await deliveries.cancel(queue.connection, sending.id)
    assert await deliveries.cancel(queue.connection, pending.id)
    assert not await deliveries.cancel(queue.connection, pending.id)


async def test_a_retry_by_hand_is_a_new_delivery_and_the_old_one_stays(queue: Queue) -> None:
    await queue.put()
    lease, [claimed] = await queue.claim()
    early = await deliveries.retry(queue.connection, claimed.id)
    assert early == deliveries.NotRetried(reason="not_final")
    await deliveries.record(queue.connection, [result(claimed, lease, State.EXHAUSTED)])
    made = await deliveries.retry(queue.connection, claimed.id)
    assert isinstance(made, UUID)
    new = await deliveries.get(queue.connection, made)
    old = await deliveries.get(queue.connection, claimed.id)
    assert new is not None
    assert old is not None
    assert (new.state, new.replay_of, old.state) == (State.PENDING, claimed.id, State.EXHAUSTED)
    assert await deliveries.retry(queue.connection, uuid4()) == deliveries.NotRetried(reason="unknown")


async def test_a_removed_destination_cancels_what_waited_for_it(queue: Queue) -> None:
    await queue.put()
    gone = Configuration(endpoints=(queue.endpoint,))
    await configuration.apply(queue.connection, queue.sealing, gone, actor="test")
    [row] = await deliveries.page(queue.connection, now=datetime.now(UTC), limit=1)
    assert (row.state, row.last_reason) == (State.CANCELLED, "destination_removed")
    assert await deliveries.retry(queue.connection, row.id) == deliveries.NotRetried(reason="destination_removed")


async def test_a_delivery_that_comes_back_to_a_removed_destination_is_cancelled(queue: Queue) -> None:
    await queue.put(2)
    lease, claimed = await queue.claim()
    gone = Configuration(endpoints=(queue.endpoint,))
    await configuration.apply(queue.connection, queue.sealing, gone, actor="test")
    back = [result(row, lease, State.PENDING, timedelta(seconds=5)) for row in claimed]
    await deliveries.record(queue.connection, back)
    assert await deliveries.cancel_orphans(queue.connection) == 2
    rows = await deliveries.page(queue.connection, now=datetime.now(UTC), limit=5)
    assert {(row.state, row.last_reason) for row in rows} == {(State.CANCELLED, "destination_removed")}


async def test_a_delivery_whose_event_is_gone_cannot_be_retried(queue: Queue) -> None:
    await queue.put()
    lease, [claimed] = await queue.claim()
    await deliveries.record(queue.connection, [result(claimed, lease, State.EXHAUSTED)])
    await queue.connection.execute("DELETE FROM events")
    assert await deliveries.retry(queue.connection, claimed.id) == deliveries.NotRetried(reason="event_gone")


async def test_the_depth_counts_what_waits_and_what_is_being_sent(queue: Queue) -> None:
    await queue.put(3)
    await queue.claim(room=1)
    depth = await deliveries.depth(queue.connection)
    assert (depth.pending, depth.sending) == (2, 1)
    assert depth.oldest_pending_age > timedelta()


async def test_what_more_deliverers_could_not_take_does_not_count_as_due(queue: Queue) -> None:
    await queue.put(2)
    assert (await deliveries.depth(queue.connection)).oldest_due_age > timedelta()
    lease, [first] = await queue.claim(room=1)
    await deliveries.record(queue.connection, [result(first, lease, State.PENDING, timedelta(hours=1))])
    assert (await deliveries.depth(queue.connection)).oldest_due_age > timedelta()
    lease, [second] = await queue.claim(room=1)
    await deliveries.record(queue.connection, [result(second, lease, State.PENDING, timedelta(hours=1))])
    depth = await deliveries.depth(queue.connection)
    assert (depth.oldest_due_age, depth.pending) == (timedelta(), 2)
    assert depth.oldest_pending_age > timedelta()


async def test_what_gathers_for_a_batch_counts_as_due_when_its_time_is_over(queue: Queue) -> None:
    await queue.put()
    gathers = "UPDATE destinations SET spec = spec || jsonb_build_object('batch', $1::jsonb)"
    for interval, is_due in ((timedelta(hours=1), False), (timedelta(milliseconds=100), True)):
        batch = TypeAdapter(Batch).dump_json(Batch(interval=interval)).decode()
        await queue.connection.execute(gathers, batch)
        await queue.connection.execute("UPDATE deliveries SET due_at = now() - interval '1 minute'")
        depth = await deliveries.depth(queue.connection)
        assert (depth.oldest_due_age > timedelta(), depth.pending) == (is_due, 1)


async def test_what_waits_for_a_destination_that_takes_nothing_does_not_count_as_due(queue: Queue) -> None:
    await queue.put()
    opened = "INSERT INTO circuits (destination_id, state, open_until) SELECT id, 'open', now() FROM destinations"
    await queue.connection.execute(opened)
    assert (await deliveries.depth(queue.connection)).oldest_due_age == timedelta()
    await queue.connection.execute("UPDATE circuits SET state = 'closed', open_until = NULL")
    assert (await deliveries.depth(queue.connection)).oldest_due_age > timedelta()
    suspended = "UPDATE destinations SET spec = jsonb_set(spec, '{suspend}', 'true')"
    await queue.connection.execute(suspended)
    assert (await deliveries.depth(queue.connection)).oldest_due_age == timedelta()


async def put_into(queue: Queue, state: State) -> UUID:
    """Make a delivery that is in `state`, by the ways that lead there."""
    [new] = await queue.put()
    delivery_id = new.deliveries[0].id
    if state is State.CANCELLED:
        await deliveries.cancel(queue.connection, delivery_id)
    elif state is not State.PENDING:
        lease, [claimed] = await queue.claim()
        if state is not State.SENDING:
            await deliveries.record(queue.connection, [result(claimed, lease, state)])
    return delivery_id


@pytest.mark.parametrize("source", list(State))
@pytest.mark.parametrize("target", list(State))
async def test_the_database_allows_exactly_the_transitions_of_the_state_table(
    queue: Queue, source: State, target: State
) -> None:
    delivery_id = await put_into(queue, source)
    stays = source is target and source not in FINAL  # moving a due time or a lease is no transition
    allowed = target in TRANSITIONS[source].values() or stays
    change = queue.connection.execute(
        """UPDATE deliveries SET state = $2, attempts = 1,
               lease_id = CASE WHEN $2 = 'sending' THEN id END,
               lease_expires_at = CASE WHEN $2 = 'sending' THEN now() END,
               finished_at = CASE WHEN $2 = ANY ($3) THEN now() END
           WHERE id = $1""",
        delivery_id,
        target,
        list(FINAL),
    )
    if allowed:
        await change
    else:
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="cannot become"):
            await change


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("state", "'unheard_of'"),
        ("lease_id", "id"),
        ("finished_at", "now()"),
        ("attempts", "-1"),
    ],
)
async def test_impossible_rows_are_refused(queue: Queue, column: str, value: str) -> None:
    await queue.put()
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await queue.connection.execute(f"UPDATE deliveries SET {column} = {value}")


SIGNED = {
    "acknowledgement": "acknowledged",
    "acknowledgement_base": b"what was signed",
    "acknowledgement_key": bytes(32),
    "acknowledgement_signature": bytes(64),
}


async def test_what_the_destination_signed_is_recorded_with_its_delivery(queue: Queue) -> None:
    await queue.put()
    lease, [claimed] = await queue.claim()
    made = result(claimed, lease, State.DELIVERED)
    await deliveries.record(queue.connection, [made._replace(attempt=made.attempt._replace(**SIGNED))])
    [listed] = await attempts.page(queue.connection, now=datetime.now(UTC), limit=10, delivery_id=claimed.id)
    assert {name: getattr(listed.attempt, name) for name in SIGNED} == SIGNED
    found = await deliveries.get(queue.connection, claimed.id)
    assert found is not None
    assert found.acknowledgement == "acknowledged"


@pytest.mark.parametrize(
    "changes",
    [
        {"acknowledgement": "missing"},
        {"acknowledgement": None},
        {"acknowledgement": "perhaps"},
        {"acknowledgement_base": None},
        {"acknowledgement_base": b""},
        {"acknowledgement_base": bytes(8193)},
        {"acknowledgement_key": None},
        {"acknowledgement_key": bytes(31)},
        {"acknowledgement_signature": bytes(63)},
        dict.fromkeys(("acknowledgement_base", "acknowledgement_key", "acknowledgement_signature")),
    ],
)
async def test_an_acknowledgement_and_its_evidence_are_recorded_together_or_not_at_all(
    queue: Queue, changes: dict[str, object]
) -> None:
    await queue.put()
    lease, [claimed] = await queue.claim()
    made = result(claimed, lease, State.DELIVERED)
    with pytest.raises(asyncpg.CheckViolationError):
        await deliveries.record(
            queue.connection, [made._replace(attempt=made.attempt._replace(**{**SIGNED, **changes}))]
        )


@pytest.mark.parametrize("change", ["UPDATE attempts SET reason = 'x'", "DELETE FROM attempts", "TRUNCATE attempts"])
async def test_attempts_are_append_only_even_for_the_owner(queue: Queue, change: str) -> None:
    await queue.put()
    lease, [claimed] = await queue.claim()
    await deliveries.record(queue.connection, [result(claimed, lease, State.DELIVERED)])
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await queue.connection.execute(change)


async def test_a_circuit_changes_under_its_lock_and_only_if_the_rule_says_so(database, queue: Queue) -> None:

    pool = await database.pool("deliverer", size=8)

    async def fail() -> None:
        async with pool.acquire() as connection:
            await circuits.change(
                connection,
                queue.destination.id,
                lambda row, _: replace(row, attempts=row.attempts + 1, failures=row.failures + 1),
            )

    await asyncio.gather(*(fail() for _ in range(20)))
    loaded = await circuits.load(queue.connection, [queue.destination.id])
    assert loaded[queue.destination.id].failures == 20


async def test_a_changed_destination_gets_a_fresh_circuit(queue: Queue) -> None:

    def stop(row: circuits.CircuitRow, now: datetime) -> circuits.CircuitRow:
        return replace(row, disabled_at=now, disabled_reason="status_410")

    await circuits.change(queue.connection, queue.destination.id, stop)
    queue.destination = replace(queue.destination, url="http://127.0.0.1:9/new")
    await queue.configure()
    loaded = await circuits.load(queue.connection, [queue.destination.id])
    assert loaded[queue.destination.id].disabled_at is None


async def test_partitions_are_made_ahead_and_dropped_after_retention(queue: Queue) -> None:
    now = datetime(2026, 3, 1, 23, 59, tzinfo=UTC)
    made = await partitions.maintain(queue.connection, now)
    assert "events_20260301" in made.made
    assert "deliveries_final_20260304" in made.made
    assert (await partitions.maintain(queue.connection, now)).made == ()
    late = await partitions.maintain(queue.connection, now + timedelta(days=60))
    assert "events_20260301" in late.dropped
    assert "attempts_20260304" in late.dropped


async def test_an_event_outside_every_partition_is_stored_and_its_day_is_left_to_the_default(queue: Queue) -> None:
    [stray] = await queue.put()
    now = ids.timestamp(stray.id)
    made = await partitions.maintain(queue.connection, now)
    assert f"events_{now:%Y%m%d}" not in made.made
    assert f"attempts_{now:%Y%m%d}" in made.made
    assert await events.get(queue.connection, stray.id) is not None


async def test_expired_idempotency_keys_are_forgotten(queue: Queue) -> None:
    await events.insert(queue.connection, [event(queue.endpoint, key=b"a"), event(queue.endpoint, key=b"b")])
    await queue.connection.execute(
        "UPDATE idempotency SET expires_at = now() - interval '1 day' WHERE key = $1", hashlib.sha256(b"a").digest()
    )
    assert (await partitions.maintain(queue.connection, datetime.now(UTC))).forgotten_keys == 1
    assert await queue.connection.fetchval("SELECT count(*) FROM idempotency") == 1


async def test_a_key_that_is_taken_anew_while_expired_ones_are_forgotten_stays(queue: Queue, database) -> None:
    await partitions.maintain(queue.connection, datetime.now(UTC))  # so that the next round locks no table
    await events.insert(queue.connection, [event(queue.endpoint, key=b"a")])
    await queue.connection.execute("UPDATE idempotency SET expires_at = now() - interval '1 s'")
    receiver, owner = await database.connection("receiver"), await database.connection()
    again = event(queue.endpoint, key=b"a")
    async with receiver.transaction():
        await events.insert(receiver, [again])
        maintaining = asyncio.ensure_future(partitions.maintain(owner, datetime.now(UTC)))
        async with asyncio.timeout(60):
            while not await queue.connection.fetchval(
                "SELECT $1 = ANY (pg_blocking_pids($2))", receiver.get_server_pid(), owner.get_server_pid()
            ):
                await asyncio.sleep(0.01)
    assert (await maintaining).forgotten_keys == 0
    late = event(queue.endpoint, key=b"a")
    assert await events.insert(queue.connection, [late]) == [Duplicate(event_id=again.id)]
    await receiver.close()
    await owner.close()


async def test_finding_an_event_by_its_id_touches_one_partition(queue: Queue) -> None:
    now = datetime.now(UTC)
    await partitions.maintain(queue.connection, now)
    plan = await queue.connection.fetch(f"EXPLAIN SELECT body FROM events WHERE id = '{ids.first_at(now)}'")
    assert sum("Scan" in line[0] for line in plan) == 1


NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)
AGES = [timedelta(hours=hours) for hours in (-1, 0, 1, 23, 24, 25, 167, 168, 169, 400, 401, 500)]


# A delivery and an attempt of each event, with its id; the deliveries have these states in turns.
GONE_THROUGH = (
    """
    INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, state, attempts, expires_at, finished_at)
    SELECT id, id, endpoint_id, $1, state, 1, received_at, CASE WHEN state <> 'pending' THEN received_at END
    FROM (SELECT *, ($2::text[])[1 + row_number() OVER () % cardinality($2)] AS state FROM events) AS stored
    """,
    """
    INSERT INTO attempts (id, delivery_id, event_id, endpoint_id, destination_id, number, started_at, duration, outcome,
                          reason, url, payload_hash, response_status)
    SELECT id, id, id, endpoint_id, $1, 1, received_at, interval '3 ms', 'delivered', 'status_200', 'http://x/',
           body_hash, 200
    FROM events
    """,
)
PAGES = (  # and where their rows lie
    ("events", events.page),
    ("deliveries_final", deliveries.page),
    ("deliveries_final", partial(deliveries.page, states=[State.EXHAUSTED])),
    ("attempts", attempts.page),
)


@pytest.fixture
async def elsewhere(queue: Queue) -> EndpointRow:
    """A second endpoint, and partitions of a month."""
    for day in range(25):
        await partitions.maintain(queue.connection, NOW - timedelta(days=day))
    made = endpoint("elsewhere")
    desired = Configuration(endpoints=(queue.endpoint, made), destinations=(queue.destination,))
    await configuration.apply(queue.connection, queue.sealing, desired, actor="test")
    return made


async def go_through(queue: Queue, made: Mapping[UUID, EndpointRow], states: Sequence[State]) -> None:
    """Store events with these ids, a delivery and an attempt of each."""
    await events.insert(queue.connection, [event(of)._replace(id=one) for one, of in made.items()])
    deliver, attempt = GONE_THROUGH
    await queue.connection.execute(deliver, queue.destination.id, states)
    await queue.connection.execute(attempt, queue.destination.id)


@pytest.fixture
async def month(queue: Queue, elsewhere: EndpointRow) -> dict[UUID, EndpointRow]:
    """What was given up in a month, newest first, each second one from another endpoint."""
    made = {
        ids.first_at(NOW - age): of for age, of in zip(AGES, itertools.cycle((queue.endpoint, elsewhere)), strict=False)
    }
    await go_through(queue, made, [State.EXHAUSTED])
    return made


def listed(row: events.EventRow | deliveries.DeliveryRow | attempts.ListedAttempt) -> UUID:
    return row.attempt.id if isinstance(row, attempts.ListedAttempt) else row.id


@pytest.mark.parametrize("page", [page for _, page in PAGES])
async def test_a_page_is_the_newest_of_what_was_asked_for_however_far_back_it_lies(
    queue: Queue, month: dict[UUID, EndpointRow], page: Callable[..., Any]
) -> None:
    befores = [None, *month, ids.first_at(datetime(1970, 1, 2, tzinfo=UTC)), events.LAST_ID]
    sinces = [None, *(NOW - age for age in AGES[::3])]
    for before, since, of in itertools.product(befores, sinces, (None, queue.endpoint.id)):
        wanted = [
            one
            for one, endpoint in month.items()
            if (before is None or one < before)
            and (since is None or one >= ids.first_at(since))
            and of in (None, endpoint.id)
        ]
        for limit in (1, 3, 100):
            found = await page(queue.connection, now=NOW, limit=limit, before=before, since=since, endpoint_id=of)
            assert [listed(row) for row in found] == wanted[:limit], (before, since, of, limit)


@pytest.mark.parametrize("seed", range(3))
async def test_a_page_at_odd_times_is_what_one_statement_over_all_days_gives(
    queue: Queue, elsewhere: EndpointRow, seed: int
) -> None:
    random = Random(seed)

    def moment() -> datetime:
        around = random.choice((0, 24, 48, 7 * 24, 8 * 24, random.uniform(-96, 30 * 24)))
        return NOW - timedelta(hours=around, milliseconds=random.choice((-1, 0, 0, 1)))

    def odd() -> UUID:
        return UUID(int=ids.first_at(moment()).int + random.choice((-1, 0, 1, random.getrandbits(60))))

    stored = {odd(): random.choice((queue.endpoint, elsewhere)) for _ in range(80)}
    await go_through(queue, stored, random.choices((*FINAL, State.PENDING), k=20))
    for _ in range(150):
        before = random.choice((None, random.choice(list(stored)), odd(), UUID(int=5), events.LAST_ID))
        since = random.choice((None, None, moment()))
        of = random.choice((None, queue.endpoint.id, elsewhere.id))
        states = random.choice((None, *((state,) for state in State), (State.DELIVERED, State.PENDING), tuple(FINAL)))
        limit = random.choice((1, 5, 30, 200))
        asked = {"now": NOW, "limit": limit, "before": before, "since": since, "endpoint_id": of}
        bounds = before or events.LAST_ID, events.FIRST_ID if since is None else ids.first_at(since), limit
        for found, name, arguments in (
            (
                await events.page(queue.connection, **asked),
                "events.page" if of is None else "events.page_of_endpoint",
                () if of is None else (of,),
            ),
            (await deliveries.page(queue.connection, states=states, **asked), "deliveries.page", (states, of)),
            (await attempts.page(queue.connection, **asked), "attempts.page", (of,)),
        ):
            wanted = await queue.connection.fetch(statement(name), *bounds, *arguments)
            assert [listed(row) for row in found] == [row["id"] for row in wanted], (name, asked, states)


async def partitions_read(queue: Queue, tables: str) -> set[str]:
    """Return the partitions of days that the transaction has had to do with so far."""
    rows = await queue.connection.fetch(
        "SELECT DISTINCT relation::regclass::text AS name FROM pg_locks "
        "WHERE pid = pg_backend_pid() AND relation::regclass::text ~ $1",
        f"^({tables})_[0-9]+$",
    )
    return {row["name"] for row in rows}


@pytest.mark.parametrize("before", [None, timedelta(hours=167)])
@pytest.mark.parametrize(("table", "page"), PAGES)
async def test_a_page_that_ends_within_a_day_has_nothing_to_do_with_the_days_before(
    queue: Queue, month: dict[UUID, EndpointRow], table: str, page: Callable[..., Any], before: timedelta | None
) -> None:
    newest = NOW if before is None else NOW - before
    async with queue.connection.transaction():
        await page(queue.connection, now=NOW, limit=2 if before is None else 1, before=before and ids.first_at(newest))
        read = await partitions_read(queue, table)
    days = {f"{table}_{newest - timedelta(days=age):%Y%m%d}" for age in (0, 1)}
    ahead = {f"{table}_{NOW + timedelta(days=age):%Y%m%d}" for age in (1, 2, 3)} if before is None else set()
    assert read == days | ahead


@pytest.mark.parametrize("age", [AGES[1], AGES[-1]])
@pytest.mark.parametrize(
    ("tables", "page", "of"),
    [
        (("deliveries_final",), deliveries.page, "event_id"),
        (("deliveries_final", "attempts"), attempts.page, "event_id"),
        (("attempts",), attempts.page, "delivery_id"),
    ],
)
async def test_a_page_of_one_event_or_delivery_has_nothing_to_do_with_the_days_before_it(
    queue: Queue,
    month: dict[UUID, EndpointRow],
    tables: tuple[str, ...],
    page: Callable[..., Any],
    of: str,
    age: timedelta,
) -> None:
    one = ids.first_at(NOW - age)
    async with queue.connection.transaction():
        assert [listed(row) for row in await page(queue.connection, now=NOW, limit=9, **{of: one})] == [one]
        read = await partitions_read(queue, "|".join(tables))
    days = [NOW - age + timedelta(days=day) for day in range(-1, age.days + 5)]  # the clock of who makes it may be late
    wanted = {
        f"{table}_{day:%Y%m%d}" for table in tables for day in days if day.date() <= (NOW + partitions.AHEAD).date()
    }
    assert read == wanted


@pytest.mark.parametrize("unknown", [UUID(int=0), events.LAST_ID])
async def test_a_page_of_an_event_or_delivery_that_nobody_made_is_empty(queue: Queue, unknown: UUID) -> None:
    asked: dict[str, Any] = {"now": NOW, "limit": 9}
    assert await deliveries.page(queue.connection, event_id=unknown, **asked) == []
    assert await attempts.page(queue.connection, event_id=unknown, **asked) == []
    assert await attempts.page(queue.connection, delivery_id=unknown, **asked) == []


async def test_a_delivery_whose_event_is_gone_or_erased_ends_at_the_claim_without_an_attempt(queue: Queue) -> None:
    gone, erased, there = await queue.put(3)
    await queue.connection.execute("DELETE FROM events WHERE id = $1", gone.id)
    await queue.connection.execute("UPDATE events SET body = NULL, body_hash = NULL WHERE id = $1", erased.id)

    told: list[tuple[str, str]] = []
    wanted, tell = {queue.destination.id: 9}, lambda *ended: told.append(ended)
    _, claimed = await deliveries.claim(queue.connection, wanted, LEASE, tell)

    assert [row.event_id for row in claimed] == [there.id]
    where = f"{queue.endpoint.namespace}/{queue.endpoint.name}/{queue.destination.name}"
    assert sorted(told) == [(where, "event_erased"), (where, "event_gone")]
    for event, reason in ((gone, "event_gone"), (erased, "event_erased")):
        row = await deliveries.get(queue.connection, event.deliveries[0].id)
        assert row is not None
        assert (row.state, row.attempts, row.last_reason) == (State.EXHAUSTED, 0, reason)
    assert await queue.connection.fetchval("SELECT count(*) FROM attempts") == 0
    assert await queue.connection.fetchval("SELECT count(*) FROM unsequenced") == 0
