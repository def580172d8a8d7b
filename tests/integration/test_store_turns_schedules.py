"""Order by key under random schedules: receivers, deliverers and people in any order, and an oracle that watches.

Each schedule is a seed. What is accepted, claimed, recorded, lost in a crash, passed on or forgotten to be, retried,
cancelled, expired and unblocked is drawn; the oracle knows of each key in which order its events were accepted, and
looks at every claim. At the end everything has ended, and no line is left.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest
import queued

from kapsel_store import configuration, deliveries, events, turns
from kapsel_store.rows import (
    Claimed,
    Configuration,
    DestinationRow,
    EndpointRow,
    NewEvent,
    Ordering,
    Result,
    Verification,
)
from kapsel_store.states import FINAL, State

HOUR = timedelta(hours=1)
STEPS = 120
# What was given up as the first of its line, and whose turn nobody has passed.
ABOUT_TO_BLOCK = """
SELECT delivery_id FROM ended_turns e JOIN turns t USING (destination_id, key) WHERE e.blocks AND e.number = t.head
"""
ORDERS = EndpointRow(id=uuid4(), namespace="shop", name="orders", verification=Verification(scheme="none"))
BLOCKS, SKIPS = (
    DestinationRow(
        id=uuid4(),
        endpoint_id=ORDERS.id,
        name=name.lower(),
        url="http://127.0.0.1:9/",
        ordering=Ordering(key="event.body.key", on_exhausted=name),
    )
    for name in ("Block", "Skip")
)


def event(key: str | None) -> NewEvent:
    return queued.event(ORDERS.id, (queued.delivery(row, HOUR, key) for row in (BLOCKS, SKIPS)))


def ended(claimed: Claimed, lease: UUID, state: State) -> Result:
    return queued.result(claimed, lease, state, timedelta(0) if state is State.PENDING else None)


@dataclass
class Oracle:
    """Knows the order of acceptance, and holds every claim against it."""

    lines: dict[tuple[UUID, bytes], list[UUID]] = field(default_factory=lambda: defaultdict(list))
    states: dict[UUID, State] = field(default_factory=dict)

    def accepted(self, new: NewEvent) -> None:
        for delivery in new.deliveries:
            self.states[delivery.id] = State.PENDING
            if delivery.order_key is not None:
                self.lines[delivery.destination_id, delivery.order_key].append(delivery.id)

    def again(self, old: UUID, made: UUID, *, first: bool) -> None:
        """A person has retried one: it goes last, or first if the key waits for it."""
        self.states[made] = State.PENDING
        for line in self.lines.values():
            if old in line:
                line.insert(line.index(old) + 1 if first else len(line), made)

    def claimed(self, one: Claimed) -> None:
        assert self.states[one.id] is State.PENDING, "claimed twice, or after its end"
        self.states[one.id] = State.SENDING
        if one.order_key is None:
            return
        line = self.lines[one.destination_id, one.order_key]
        before = [self.states[other] for other in line[: line.index(one.id)]]
        assert all(state in FINAL for state in before), "sent before one that was accepted earlier has ended"
        assert [self.states[other] for other in line].count(State.SENDING) == 1, "two of one key at once"

    def ended(self, delivery_id: UUID, state: State) -> None:
        self.states[delivery_id] = state


@dataclass
class Schedule:
    """One random history."""

    rng: random.Random
    connection: asyncpg.Connection
    oracle: Oracle = field(default_factory=Oracle)
    held: list[tuple[Claimed, UUID]] = field(default_factory=list)  # claimed by somebody, and not recorded

    async def step(self) -> None:
        rare = (self.crash, self.cancel, self.expire, self.unblock, self.retry)
        often = (self.accept, self.claim, self.record)
        (does,) = self.rng.choices((*rare, self.sweep, *often), (*[1] * len(rare), 2, *[6] * len(often)))
        await does()

    async def accept(self) -> None:
        new = [event(self.rng.choice(("a", "a", "b", "c", None))) for _ in range(self.rng.randint(1, 5))]
        await events.insert(self.connection, new)
        for one in new:
            self.oracle.accepted(one)

    async def claim(self) -> None:
        wanted = {row.id: self.rng.randint(1, 6) for row in (BLOCKS, SKIPS)}
        lease, claimed = await deliveries.claim(self.connection, wanted, HOUR)
        for one in claimed:
            self.oracle.claimed(one)
            self.held.append((one, lease))

    async def record(self) -> None:
        taken = [self.held.pop(self.rng.randrange(len(self.held))) for _ in range(min(3, len(self.held)))]
        states = (State.DELIVERED, State.DELIVERED, State.PENDING, State.EXHAUSTED)
        results = [ended(one, lease, self.rng.choice(states)) for one, lease in taken]
        if not results:
            return
        moved = await deliveries.record(self.connection, results)
        for each in results:
            if each.attempt.id in moved:
                self.oracle.ended(each.attempt.delivery_id, each.state)
        if self.rng.random() < 0.7:  # else it died before it could
            lines = {(each.attempt.destination_id, each.order_key) for each in results if each.order_key is not None}
            await turns.pass_on(self.connection, lines)

    async def crash(self) -> None:
        """A deliverer dies: its leases end, and what it sent is not known."""
        if not self.held:
            return
        lost = self.held.pop(self.rng.randrange(len(self.held)))[0].id
        past = datetime.now(UTC) - HOUR
        await self.connection.execute("UPDATE deliveries_live SET lease_expires_at = $2 WHERE id = $1", lost, past)
        await deliveries.rescue(self.connection)
        self.oracle.ended(lost, State.PENDING)

    async def cancel(self) -> None:
        waiting = [one for one, state in self.oracle.states.items() if state is State.PENDING]
        if waiting and await deliveries.cancel(self.connection, one := self.rng.choice(waiting)):
            self.oracle.ended(one, State.CANCELLED)

    async def expire(self) -> None:
        waiting = [one for one, state in self.oracle.states.items() if state is State.PENDING]
        if not waiting:
            return
        one, past = self.rng.choice(waiting), datetime.now(UTC) - HOUR
        await self.connection.execute("UPDATE deliveries_live SET expires_at = $2 WHERE id = $1", one, past)
        assert await deliveries.expire(self.connection) == 1
        self.oracle.ended(one, State.EXHAUSTED)

    async def sweep(self) -> None:
        await turns.sweep(self.connection)

    async def unblock(self) -> None:
        for row in (BLOCKS, SKIPS):
            await turns.pass_on(self.connection, await turns.unblock(self.connection, row.id))

    async def retry(self) -> None:
        ended = [one for one, state in self.oracle.states.items() if state in FINAL]
        if not ended:
            return
        blocking = {one.blocked_by for one in await turns.blocked(self.connection, limit=100)}
        blocking |= {row["delivery_id"] for row in await self.connection.fetch(ABOUT_TO_BLOCK)}
        old = self.rng.choice([*ended, *blocking])
        made = await deliveries.retry(self.connection, old)
        assert isinstance(made, UUID)
        self.oracle.again(old, made, first=old in blocking)

    async def drain(self) -> None:
        """Deliver everything: deliverers work, and a person unblocks."""
        while State.PENDING in self.oracle.states.values() or self.held:
            await self.sweep()
            await self.unblock()
            await self.claim()
            assert self.held, "something waits, and nobody gets it"
            await self.record()


@pytest.fixture
async def connection(database) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database in which both destinations are configured."""
    made = await database.connection()
    desired = Configuration(endpoints=(ORDERS,), destinations=(BLOCKS, SKIPS))
    await configuration.apply(made, database.sealing, desired, actor="test")
    yield made
    await made.close()


@pytest.mark.parametrize("seed", range(6))
async def test_no_schedule_reorders_a_key_or_leaves_one_behind(connection: asyncpg.Connection, seed: int) -> None:
    schedule = Schedule(rng=random.Random(seed), connection=connection)
    for _ in range(STEPS):
        await schedule.step()
    await schedule.drain()
    await schedule.sweep()
    await schedule.unblock()
    for table in ("deliveries_live", "turns", "ended_turns"):
        assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 0, table
    states = await connection.fetch("SELECT id, state FROM deliveries")
    assert {row["id"]: State(row["state"]) for row in states} == schedule.oracle.states


async def test_receivers_and_deliverers_that_work_at_once_lose_no_turn_and_wait_in_no_circle(
    database, connection: asyncpg.Connection
) -> None:
    """Real concurrency: batches of the same keys in other orders, recorded and passed on by three deliverers."""
    keys = [f"k{number}" for number in range(8)]
    sent: dict[tuple[UUID, bytes], list[UUID]] = defaultdict(list)
    accepted: dict[tuple[int, UUID, bytes], list[UUID]] = defaultdict(list)  # by receiver, in its order
    under_way = 2 * 30 * len(keys) * 2

    async def receive(number: int) -> None:
        receiver, rng = await database.connection("receiver"), random.Random(number)
        for _ in range(30):
            batch = [event(key) for key in rng.sample(keys, len(keys))]
            await events.insert(receiver, batch)
            for one in batch:
                for delivery in one.deliveries:
                    accepted[number, delivery.destination_id, delivery.order_key].append(delivery.id)
        await receiver.close()

    async def deliver(number: int) -> None:
        nonlocal under_way
        deliverer = await database.connection("deliverer")
        while under_way:
            lease, claimed = await deliveries.claim(deliverer, {BLOCKS.id: 5, SKIPS.id: 5}, HOUR)
            for one in claimed:
                sent[one.destination_id, one.order_key].append(one.id)
            if claimed:
                await deliveries.record(deliverer, [ended(one, lease, State.DELIVERED) for one in claimed])
                await turns.pass_on(deliverer, {(one.destination_id, one.order_key) for one in claimed})
                under_way -= len(claimed)
            else:
                await asyncio.sleep(0.001)
        await deliverer.close()

    async with asyncio.timeout(300), asyncio.TaskGroup() as tasks:
        for number in range(2):
            tasks.create_task(receive(number))
        for number in range(3):
            tasks.create_task(deliver(number))
    for (_, destination_id, key), own in accepted.items():
        line = sent[destination_id, key]
        assert [one for one in line if one in set(own)] == own
    assert sum(map(len, sent.values())) == 2 * 30 * len(keys) * 2
    assert await connection.fetchval("SELECT count(*) FROM turns") == 0
