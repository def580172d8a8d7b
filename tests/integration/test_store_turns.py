"""Order by key on a real Postgres: places in line, whose turn it is, who passes it, and what blocks."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
import queued
from queued import result

from kapsel_store import configuration, deliveries, events, ids, turns
from kapsel_store.database import Connection
from kapsel_store.queries import statement
from kapsel_store.rows import (
    Claimed,
    Configuration,
    DestinationRow,
    EndpointRow,
    NewEvent,
    Ordering,
    Verification,
)
from kapsel_store.states import State

LEASE = timedelta(minutes=5)
ORDERS = EndpointRow(id=uuid4(), namespace="shop", name="orders", verification=Verification(scheme="none"))


def destination(name: str = "billing", on_exhausted: str | None = "Block") -> DestinationRow:
    ordering = None if on_exhausted is None else Ordering(key="event.body.customer", on_exhausted=on_exhausted)
    return DestinationRow(id=uuid4(), endpoint_id=ORDERS.id, name=name, url="http://127.0.0.1:9/", ordering=ordering)


def event(key: str | None, *to: DestinationRow, once: bytes | None = None, max_age: timedelta = LEASE) -> NewEvent:
    return queued.event(ORDERS.id, (queued.delivery(row, max_age, key) for row in to), once=once)


@dataclass
class Queue:
    """One configured endpoint and its destinations."""

    connection: asyncpg.Connection
    database: object
    configured: Configuration

    async def configure(self, *to: DestinationRow) -> None:
        self.configured = replace(self.configured, endpoints=(ORDERS,), destinations=to)
        await configuration.apply(self.connection, self.database.sealing, self.configured, actor="test")

    async def accept(self, *new: NewEvent) -> None:
        await events.insert(self.connection, new)

    async def claim(self, to: DestinationRow, most: int = 1000) -> tuple[UUID, list[Claimed]]:
        return await deliveries.claim(self.connection, {to.id: most}, LEASE)

    async def sent(self, to: DestinationRow, state: State = State.DELIVERED, most: int = 1000) -> list[UUID]:
        """Claim what may go, end it all in one state, pass the turns on, and return the events."""
        lease, claimed = await self.claim(to, most)
        retry_in = timedelta(0) if state is State.PENDING else None
        await deliveries.record(self.connection, [result(one, lease, state, retry_in) for one in claimed])
        await turns.pass_on(self.connection, {(one.destination_id, one.order_key) for one in claimed if one.order_key})
        return [one.event_id for one in claimed]


@pytest.fixture
async def queue(database):
    connection = await database.connection()
    yield Queue(connection=connection, database=database, configured=Configuration())
    await connection.close()


def ids_of(new: Sequence[NewEvent]) -> list[UUID]:
    return [one.id for one in new]


async def test_one_delivery_of_a_key_is_claimed_at_a_time_in_the_order_of_acceptance(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    new = [event("a", billing) for _ in range(5)]
    await queue.accept(*new[:3])
    await queue.accept(*new[3:])
    seen = [await queue.sent(billing) for _ in range(6)]
    assert seen == [[one.id] for one in new] + [[]]
    assert await queue.connection.fetchval("SELECT count(*) FROM turns") == 0
    assert await queue.connection.fetchval("SELECT count(*) FROM ended_turns") == 0


async def test_other_keys_destinations_and_deliveries_without_a_key_do_not_wait(queue: Queue) -> None:
    billing, audit = destination(), destination("audit", None)
    await queue.configure(billing, audit)
    a, b, plain, elsewhere = (
        [event("a", billing) for _ in range(3)],
        [event("b", billing) for _ in range(3)],
        [event(None, billing) for _ in range(3)],
        [event(None, audit) for _ in range(3)],
    )
    await queue.accept(*a, *b, *plain, *elsewhere)
    assert set(await queue.sent(billing)) == {a[0].id, b[0].id, *ids_of(plain)}
    assert set(await queue.sent(audit)) == set(ids_of(elsewhere))
    assert set(await queue.sent(billing)) == {a[1].id, b[1].id}


async def test_a_retry_holds_its_key_and_only_that(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second, other = event("a", billing), event("a", billing), event("b", billing)
    await queue.accept(first, second)
    assert await queue.sent(billing, State.PENDING) == [first.id]
    await queue.accept(other)
    assert await queue.sent(billing, most=1) == [first.id]
    assert set(await queue.sent(billing)) == {second.id, other.id}


async def test_a_crash_between_sending_and_recording_repeats_the_first_and_reorders_nothing(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    _, claimed = await queue.claim(billing)
    assert [one.event_id for one in claimed] == [first.id]
    await queue.connection.execute(
        "UPDATE deliveries_live SET lease_expires_at = now() - interval '1 s' WHERE NOT held"
    )
    assert (await queue.claim(billing))[1] == []
    assert await deliveries.rescue(queue.connection) == 1
    assert await queue.sent(billing) == [first.id]
    assert await queue.sent(billing) == [second.id]


async def test_a_crash_after_recording_and_before_passing_the_turn_is_made_good_by_the_sweep(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    lease, claimed = await queue.claim(billing)
    await deliveries.record(queue.connection, [result(claimed[0], lease, State.DELIVERED)])
    assert (await queue.claim(billing))[1] == []
    assert await turns.sweep(queue.connection) == 1
    assert await turns.sweep(queue.connection) == 0
    assert await queue.sent(billing) == [second.id]


async def test_what_is_released_untried_keeps_its_place(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    lease, claimed = await queue.claim(billing)
    await deliveries.release(queue.connection, {claimed[0].id: lease})
    assert await queue.sent(billing) == [first.id]
    assert await queue.sent(billing) == [second.id]


async def test_a_duplicate_takes_no_place(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, again, second = (
        event("a", billing, once=b"1"),
        event("a", billing, once=b"1"),
        event("a", billing, once=b"2"),
    )
    await queue.accept(first, again)
    await queue.accept(again._replace(id=ids.new()))
    await queue.accept(second)
    assert [await queue.sent(billing) for _ in range(3)] == [[first.id], [second.id], []]


async def test_exhaustion_skips_where_the_destination_says_skip(queue: Queue) -> None:
    billing = destination(on_exhausted="Skip")
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    assert await queue.sent(billing, State.EXHAUSTED) == [first.id]
    assert await queue.sent(billing) == [second.id]


async def test_exhaustion_blocks_the_key_alone_and_says_so_until_it_is_unblocked(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second, other = event("a", billing), event("a", billing), event("b", billing)
    await queue.accept(first, second)
    assert await queue.sent(billing, State.EXHAUSTED) == [first.id]
    late = event("a", billing)
    await queue.accept(other, late)
    assert await queue.sent(billing) == [other.id]
    assert await turns.sweep(queue.connection) == 0
    (blocked,) = await turns.blocked(queue.connection, limit=10)
    assert (blocked.endpoint, blocked.destination, blocked.shown) == ("orders", "billing", "a")
    assert (blocked.event_id, blocked.last_reason, blocked.waiting) == (first.id, "status_500", 2)
    place = await turns.place(queue.connection, late.deliveries[0].id)
    assert place is not None
    assert (place.held, place.ahead, place.head) == (True, 1, second.deliveries[0].id)
    assert place.blocked_by == first.deliveries[0].id
    assert await turns.count_blocked(queue.connection) == 1
    assert await turns.unblock(queue.connection, billing.id, uuid4()) == []
    opened = await turns.unblock(queue.connection, billing.id, first.deliveries[0].id)
    assert opened == [(billing.id, turns.digest(billing.id, "a"))]
    assert await turns.count_blocked(queue.connection) == 0
    assert await turns.pass_on(queue.connection, opened) == 1
    assert [await queue.sent(billing) for _ in range(2)] == [[second.id], [late.id]]


async def test_a_retry_of_what_blocks_goes_first_and_the_others_follow(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    await queue.sent(billing, State.EXHAUSTED)
    assert isinstance(await deliveries.retry(queue.connection, first.deliveries[0].id), UUID)
    assert await turns.count_blocked(queue.connection) == 0
    assert [await queue.sent(billing) for _ in range(3)] == [[first.id], [second.id], []]


async def test_a_retry_of_what_is_about_to_block_goes_first_and_nothing_blocks(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    lease, claimed = await queue.claim(billing)
    await deliveries.record(queue.connection, [result(claimed[0], lease, State.EXHAUSTED)])
    # Who recorded it has crashed, or is a moment late: the turn is passed only now.
    assert isinstance(await deliveries.retry(queue.connection, first.deliveries[0].id), UUID)
    await turns.sweep(queue.connection)
    assert await turns.count_blocked(queue.connection) == 0
    assert [await queue.sent(billing) for _ in range(3)] == [[first.id], [second.id], []]


async def test_a_retry_that_is_given_up_once_more_blocks_once_more(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    await queue.sent(billing, State.EXHAUSTED)
    again = await deliveries.retry(queue.connection, first.deliveries[0].id)
    assert await queue.sent(billing, State.EXHAUSTED) == [first.id]
    assert await queue.sent(billing) == []
    (blocked,) = await turns.blocked(queue.connection, limit=10)
    assert blocked.blocked_by == again


async def test_a_retry_of_an_older_delivery_goes_last(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    old, first, second = event("a", billing), event("a", billing), event("a", billing)
    await queue.accept(old)
    assert await queue.sent(billing) == [old.id]
    await queue.accept(first, second)
    await deliveries.retry(queue.connection, old.deliveries[0].id)
    assert [await queue.sent(billing) for _ in range(4)] == [[first.id], [second.id], [old.id], []]


async def test_a_replay_goes_last_in_the_order_of_the_events(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    old = [event("a", billing) for _ in range(3)]
    await queue.accept(*old)
    assert [await queue.sent(billing) for _ in old] == [[one.id] for one in old]
    waiting = event("a", billing)
    await queue.accept(waiting)
    await replay(queue.connection, billing, *old[::-1])
    assert [await queue.sent(billing) for _ in range(5)] == [[one.id] for one in (waiting, *old)] + [[]]


async def replay(connection: Connection, to: DestinationRow, *old: NewEvent, anyway: bool = False) -> int:
    """Replay these events, all of key a, as a deliverer does it; return how many new deliveries that made."""
    replay_id = uuid4()
    await connection.execute(
        "INSERT INTO replays (id, namespace, name, endpoint_id, received_from, received_to, states, dry_run, rate, "
        "suspend) VALUES ($1, 'shop', $3, $2, now() - interval '1 d', now(), '{delivered}', false, 9, false)",
        replay_id,
        ORDERS.id,
        str(replay_id),
    )
    made = await connection.fetch(
        statement("replays.enqueue"),
        replay_id,
        ORDERS.id,
        [ids.new() for _ in old],
        [one.deliveries[0].id for one in old],
        [one.id for one in old],
        [to.id] * len(old),
        [turns.digest(to.id, "a")] * len(old),
        False,
        anyway,
    )
    return len(made)


@pytest.mark.parametrize("anyway", [False, True])
@pytest.mark.parametrize("retried_first", [False, True])
async def test_a_retry_and_a_replay_of_one_delivery_wait_in_no_circle(
    queue: Queue, database, retried_first: bool, anyway: bool
) -> None:
    billing = destination()
    await queue.configure(billing)
    old, waiting = event("a", billing), event("a", billing)
    await queue.accept(old)
    await queue.sent(billing)
    await queue.accept(waiting)
    retrying, replaying, holding = [await database.connection() for _ in range(3)]
    both = {
        "retry": lambda: deliveries.retry(retrying, old.deliveries[0].id),
        "replay": lambda: replay(replaying, billing, old, anyway=anyway),
    }
    done = {}
    async with holding.transaction():
        await holding.execute("SELECT FROM turns FOR UPDATE")
        for count, name in enumerate(sorted(both, reverse=retried_first), 1):
            done[name] = asyncio.ensure_future(both[name]())
            await waits_for_a_lock(database, count)
    assert isinstance(await done["retry"], UUID)
    made = await done["replay"]
    assert made == (anyway or not retried_first)
    again = [[old.id]] * (1 + made)
    assert [await queue.sent(billing) for _ in range(3 + made)] == [[waiting.id], *again, []]
    for connection in (retrying, replaying, holding):
        await connection.close()


@pytest.mark.parametrize("waits", [False, True])
async def test_cancelling_passes_the_turn_on(queue: Queue, waits: bool) -> None:
    billing = destination()
    await queue.configure(billing)
    new = [event("a", billing) for _ in range(3)]
    await queue.accept(*new)
    assert await deliveries.cancel(queue.connection, new[1 if waits else 0].deliveries[0].id)
    await turns.sweep(queue.connection)
    left = [new[0], new[2]] if waits else new[1:]
    assert [await queue.sent(billing) for _ in range(3)] == [[left[0].id], [left[1].id], []]


async def test_age_ends_those_that_wait_and_blocks_only_by_the_first(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second, third = event("a", billing), event("a", billing, max_age=-LEASE), event("a", billing)
    await queue.accept(first, second, third)
    assert await deliveries.expire(queue.connection) == 1
    await turns.sweep(queue.connection)
    assert await turns.count_blocked(queue.connection) == 0
    assert [await queue.sent(billing) for _ in range(2)] == [[first.id], [third.id]]
    old, fourth = event("a", billing, max_age=-LEASE), event("a", billing)
    await queue.accept(old, fourth)
    assert await deliveries.expire(queue.connection) == 1
    await turns.sweep(queue.connection)
    assert await queue.sent(billing) == []
    (blocked,) = await turns.blocked(queue.connection, limit=10)
    assert blocked.event_id == old.id


async def test_erasing_an_event_passes_the_turn_on(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    await queue.connection.fetch("SELECT * FROM erase_event($1)", first.id)
    await turns.sweep(queue.connection)
    assert await queue.sent(billing) == [second.id]


async def test_an_event_that_is_gone_blocks_nobody(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    await queue.connection.execute("DELETE FROM events WHERE id = $1", first.id)
    assert await queue.sent(billing) == []
    await turns.sweep(queue.connection)
    assert await queue.sent(billing) == [second.id]


async def test_a_destination_that_is_removed_leaves_no_line_behind(queue: Queue) -> None:
    billing, audit = destination(), destination("audit")
    await queue.configure(billing, audit)
    await queue.accept(*[event("a", billing) for _ in range(3)], *[event("b", billing) for _ in range(3)])
    lease, claimed = await queue.claim(billing)
    await deliveries.record(queue.connection, [result(claimed[0], lease, State.EXHAUSTED)])
    await turns.sweep(queue.connection)
    assert await turns.count_blocked(queue.connection) == 1
    await queue.configure(audit)
    await deliveries.record(queue.connection, [result(claimed[1], lease, State.PENDING, timedelta(0))])
    await deliveries.cancel_orphans(queue.connection)
    await turns.sweep(queue.connection)
    assert await queue.connection.fetchval("SELECT count(*) FROM deliveries_live") == 0
    assert await queue.connection.fetchval("SELECT count(*) FROM turns") == 0
    assert await queue.connection.fetchval("SELECT count(*) FROM ended_turns") == 0


@pytest.mark.parametrize("ordering", [None, Ordering(key="event.body.customer", on_exhausted="Skip")])
async def test_a_manifest_that_asks_for_no_blocking_unblocks(queue: Queue, ordering: Ordering | None) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    await queue.sent(billing, State.EXHAUSTED)
    await queue.configure(replace(billing, ordering=ordering))
    assert await turns.sweep(queue.connection) == 1
    assert await queue.sent(billing) == [second.id]


async def test_the_database_refuses_to_send_what_waits_for_its_turn(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first, second)
    await queue.connection.execute("UPDATE deliveries_live SET due_at = now()")
    assert [one.event_id for one in (await queue.claim(billing))[1]] == [first.id]
    with pytest.raises(asyncpg.CheckViolationError):
        await queue.connection.execute(
            "UPDATE deliveries_live SET state = 'sending', lease_id = $2, lease_expires_at = now() WHERE id = $1",
            second.deliveries[0].id,
            uuid4(),
        )


async def test_each_component_may_do_its_part_and_no_more(queue: Queue, database) -> None:
    billing = destination()
    await queue.configure(billing)
    receiver, deliverer, console = [await database.connection(role) for role in ("receiver", "deliverer", "console")]
    first, second, third = event("a", billing), event("a", billing), event("a", billing)
    await events.insert(receiver, [first, second])
    await events.insert(receiver, [third])
    lease, claimed = await deliveries.claim(deliverer, {billing.id: 9}, LEASE)
    await deliveries.record(deliverer, [result(claimed[0], lease, State.EXHAUSTED)])
    await turns.sweep(deliverer)
    assert [one.event_id for one in await turns.blocked(console, limit=2)] == [first.id]
    await deliveries.retry(console, first.deliveries[0].id)
    assert await deliveries.cancel(console, second.deliveries[0].id)
    await turns.sweep(deliverer)
    lease, claimed = await deliveries.claim(deliverer, {billing.id: 9}, LEASE)
    await deliveries.record(deliverer, [result(claimed[0], lease, State.EXHAUSTED)])
    await turns.sweep(deliverer)
    assert await turns.pass_on(console, await turns.unblock(console, billing.id)) == 1
    assert [one.event_id for one in (await deliveries.claim(deliverer, {billing.id: 9}, LEASE))[1]] == [third.id]
    for refused in (
        "SELECT shown FROM turns",
        "SELECT * FROM ended_turns",
        "SELECT pass_turns('{}', '{}')",
        "UPDATE turns SET head = 1",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await receiver.execute(refused)
    for connection in (receiver, deliverer, console):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM turns")
        await connection.close()


async def test_places_are_in_the_order_of_the_commits_whatever_the_ids_say(queue: Queue, database) -> None:
    billing = destination()
    await queue.configure(billing)
    early, late = event("a", billing), event("a", billing)
    other = await database.connection("receiver")
    async with other.transaction():
        await events.insert(other, [late])
        waiting = asyncio.ensure_future(queue.accept(early))
        await waits_for_a_lock(database)
    await waiting
    await other.close()
    assert [await queue.sent(billing) for _ in range(2)] == [[late.id], [early.id]]


async def test_a_turn_is_not_lost_when_somebody_gets_in_line_while_it_is_passed(queue: Queue, database) -> None:
    billing = destination()
    await queue.configure(billing)
    first, second = event("a", billing), event("a", billing)
    await queue.accept(first)
    lease, claimed = await queue.claim(billing)
    other = await database.connection("receiver")
    async with other.transaction():
        await events.insert(other, [second])
        await deliveries.record(queue.connection, [result(claimed[0], lease, State.DELIVERED)])
        passing = asyncio.ensure_future(turns.sweep(queue.connection))
        await waits_for_a_lock(database)
    assert await passing == 1
    await other.close()
    assert await queue.sent(billing) == [second.id]


async def test_a_line_that_ends_and_begins_anew_while_its_turn_is_passed_leaves_nobody_behind(
    queue: Queue, database
) -> None:
    billing = destination()
    await queue.configure(billing)
    anew, slow = sorted(("a", "b"), key=lambda key: turns.digest(billing.id, key))  # in the order of the locks
    line = billing.id, turns.digest(billing.id, anew)
    ending, passer, holding, other = [await database.connection() for _ in range(4)]

    async def end_first() -> None:
        """End who may go, and leave the turn to others."""
        lease, claimed = await queue.claim(billing)
        done = [result(one, lease, State.DELIVERED) for one in claimed if one.order_key == line[1]]
        await deliveries.record(queue.connection, done)

    await queue.accept(event(anew, billing), event(slow, billing))
    await end_first()
    async with other.transaction():
        async with holding.transaction():
            await holding.execute("SELECT FROM turns WHERE key <> $1 FOR UPDATE", line[1])
            async with ending.transaction():
                await turns.pass_on(ending, [line])  # nobody is left, and the line with them
                both = [line, (billing.id, turns.digest(billing.id, slow))]
                passing = asyncio.ensure_future(turns.pass_on(passer, both))
                await waits_for(queue.connection, passer, ending)
            await waits_for(queue.connection, passer, holding)
            await queue.accept(event(anew, billing))
            await end_first()
            last = event(anew, billing)
            await events.insert(other, [last])
        await waits_for(queue.connection, passer, other, or_done=passing)
    await passing
    await turns.sweep(queue.connection)
    assert await queue.sent(billing) == [last.id]
    for connection in (ending, passer, holding, other):
        await connection.close()


async def test_a_sweep_ends_while_others_go_on_ending_deliveries(queue: Queue) -> None:
    billing = destination()
    await queue.configure(billing)
    await queue.accept(event("a", billing), event("a", billing))
    lease, claimed = await queue.claim(billing)
    # Whenever a note is taken out there is another one, as there is where hundreds end in a second.
    await queue.connection.execute(
        "CREATE FUNCTION ends_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO ended_turns "
        "SELECT gone.destination_id, sha256(gone.key), 1, gone.delivery_id, false FROM gone; RETURN NULL; END $$; "
        "CREATE TRIGGER ends_more AFTER DELETE ON ended_turns REFERENCING OLD TABLE AS gone "
        "FOR EACH STATEMENT EXECUTE FUNCTION ends_more()"
    )
    await deliveries.record(queue.connection, [result(claimed[0], lease, State.DELIVERED)])
    async with asyncio.timeout(60):
        assert await turns.sweep(queue.connection) == 1


async def waits_for(
    look: Connection, one: asyncpg.Connection, whom: asyncpg.Connection, or_done: "asyncio.Future[int] | None" = None
) -> None:
    """Return once a session waits for a lock of another one, or has what it asked."""
    pids = one.get_server_pid(), whom.get_server_pid()
    async with asyncio.timeout(60):
        while not (or_done is not None and or_done.done()):
            if await look.fetchval("SELECT $2 = ANY (pg_blocking_pids($1))", *pids):
                return
            await asyncio.sleep(0.01)


async def waits_for_a_lock(database, count: int = 1) -> None:
    """Return once so many sessions of this test wait for others."""
    connection = await database.connection()
    async with asyncio.timeout(60):
        while count > await connection.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ):
            await asyncio.sleep(0.01)
    await connection.close()


async def test_a_claim_reads_nothing_of_what_waits_for_its_turn(queue: Queue) -> None:
    """A line of ten thousand costs a claim, and the one who passes the turn, no more than a line of ten."""
    billing = destination()
    await queue.configure(billing)

    short = [event("a", billing) for _ in range(10)]
    await queue.accept(*short)
    await queue.connection.execute("VACUUM ANALYZE deliveries_live")
    few = await touched(queue.connection, billing)
    for _ in range(20):
        await queue.accept(*[event("b", billing) for _ in range(500)])
    many = await touched(queue.connection, billing)
    assert many <= few + 10


async def touched(connection: Connection, to: DestinationRow) -> int:
    """Return how many rows a claim and a pass fetch from the queue."""
    async with connection.transaction():
        before = await _fetched(connection)
        await deliveries.claim(connection, {to.id: 1000}, LEASE)
        await turns.pass_on(connection, [(to.id, turns.digest(to.id, "a")), (to.id, turns.digest(to.id, "b"))])
        after = await _fetched(connection)
    return after - before


async def _fetched(connection: Connection) -> int:
    return await connection.fetchval(
        "SELECT coalesce(sum(seq_tup_read + idx_tup_fetch), 0) FROM pg_stat_xact_user_tables "
        "WHERE relname = 'deliveries_live' AND schemaname = current_schema()"
    )
