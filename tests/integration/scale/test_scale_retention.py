"""Partitions and retention: made ahead though others read, bodies emptied per endpoint, strays dropped in the end."""

import asyncio
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import pytest

from kapsel_store import attempts, configuration, deliveries, events, ids, partitions
from kapsel_store.rows import (
    AttemptRow,
    Configuration,
    DestinationRow,
    EndpointRow,
    NewDelivery,
    NewEvent,
    Policy,
    RelayRow,
    Result,
    Verification,
)
from kapsel_store.states import State

DAY = timedelta(days=1)
NOW = datetime.now(UTC)


@dataclass
class Shop:
    """Two endpoints, one of which keeps bodies for an hour and the other for 30 days."""

    connection: asyncpg.Connection
    brief: EndpointRow
    patient: EndpointRow
    destinations: dict[UUID, DestinationRow]

    async def put(self, to: EndpointRow, age: timedelta, count: int = 1) -> list[NewEvent]:
        """Store events that came in so long ago, each with one delivery."""
        made = [self._event(to, age) for _ in range(count)]
        await events.insert(self.connection, made)
        return made

    def _event(self, to: EndpointRow, age: timedelta) -> NewEvent:
        generator = ids.Generator()
        moment = ids.milliseconds(NOW - age)
        body = os.urandom(8)
        return NewEvent(
            id=generator.new(moment),
            endpoint_id=to.id,
            received_at=NOW - age,
            content_type="application/json",
            headers='[["content-type", "application/json"]]',
            body=body,
            body_hash=hashlib.sha256(body).digest(),
            salt=os.urandom(32),
            idempotency_key=None,
            idempotency_window=None,
            correlation_id=None,
            deliveries=(
                NewDelivery(id=generator.new(), destination_id=self.destinations[to.id].id, max_age=timedelta(hours=1)),
            ),
        )

    async def deliver(self) -> list[AttemptRow]:
        """Deliver whatever waits; return the attempts."""
        rooms = {row.id: 10_000 for row in self.destinations.values()}
        lease, claimed = await deliveries.claim(self.connection, rooms, timedelta(minutes=5))
        results = [
            Result(
                attempt=AttemptRow(
                    id=ids.new(),
                    delivery_id=one.id,
                    event_id=one.event_id,
                    endpoint_id=one.endpoint_id,
                    destination_id=one.destination_id,
                    number=1,
                    started_at=NOW,
                    duration=timedelta(milliseconds=3),
                    outcome="delivered",
                    reason="status_200",
                    url="http://127.0.0.1:9/",
                    payload_hash=one.body_hash,
                    payload_commitment=None,
                    signature_digest=None,
                    response_status=200,
                    response_headers="[]",
                    response_body=b"thanks",
                    response_digest=hashlib.sha256(b"thanks").digest(),
                ),
                lease_id=lease,
                state=State.DELIVERED,
                retry_in=None,
            )
            for one in claimed
        ]
        await deliveries.record(self.connection, results)
        return [one.attempt for one in results]

    async def event(self, of: NewEvent) -> events.StoredEvent:
        found = await events.get(self.connection, of.id)
        assert found is not None
        return found

    async def attempt(self, of: AttemptRow) -> AttemptRow:
        found = await attempts.get(self.connection, of.id)
        assert found is not None
        return found.attempt


@pytest.fixture
async def shop(database) -> Shop:
    rows = [
        EndpointRow(
            id=uuid4(),
            namespace="shop",
            name=name,
            verification=Verification(scheme="none"),
            retention=timedelta(hours=hours),
        )
        for name, hours in (("brief", 1), ("patient", 720))
    ]
    to = {
        row.id: DestinationRow(
            id=uuid4(), endpoint_id=row.id, name="billing", url="http://127.0.0.1:9/", policy=Policy()
        )
        for row in rows
    }
    made = Shop(await (await database.pool()).acquire(), *rows, to)
    desired = Configuration(endpoints=tuple(rows), destinations=tuple(to.values()))
    await configuration.apply(made.connection, database.sealing, desired, actor="test")
    return made


async def maintain_all(connection: asyncpg.Connection, now: datetime = NOW) -> int:
    await partitions.maintain(connection, now)
    emptied = 0
    while True:
        done = await partitions.empty(connection, now)
        emptied += done.events
        if done.finished:
            return emptied


async def test_bodies_and_answers_go_when_the_retention_of_their_own_endpoint_is_over(shop: Shop) -> None:
    [over] = await shop.put(shop.brief, timedelta(hours=2))
    [young] = await shop.put(shop.brief, timedelta(minutes=30))
    [other] = await shop.put(shop.patient, timedelta(hours=2))
    tried = {one.event_id: one for one in await shop.deliver()}

    assert await maintain_all(shop.connection) == 1

    assert (await shop.event(over)).body is None
    assert (await shop.event(over)).headers is None
    assert (await shop.attempt(tried[over.id])).response_body is None
    assert (await shop.attempt(tried[over.id])).response_headers is None
    for kept in (young, other):
        assert (await shop.event(kept)).body == kept.body
        assert (await shop.attempt(tried[kept.id])).response_body == b"thanks"


async def test_what_a_proof_needs_outlives_the_body(shop: Shop) -> None:
    [over] = await shop.put(shop.brief, timedelta(hours=2))
    [tried] = await shop.deliver()
    before = await shop.attempt(tried)

    await maintain_all(shop.connection)

    assert await shop.attempt(tried) == before._replace(response_headers=None, response_body=None)
    assert (await shop.event(over)).body_hash == over.body_hash
    assert await shop.connection.fetchval("SELECT salt FROM events WHERE id = $1", over.id) == over.salt
    assert await shop.connection.fetchval("SELECT count(*) FROM unsequenced") == 1


async def test_an_event_that_is_still_to_be_delivered_keeps_its_body(shop: Shop) -> None:
    [delivered] = await shop.put(shop.brief, timedelta(hours=4))
    await shop.deliver()
    [waiting] = await shop.put(shop.brief, timedelta(hours=3))

    assert await maintain_all(shop.connection) == 1
    assert (await shop.event(delivered)).body is None
    assert (await shop.event(waiting)).body == waiting.body

    assert [one.event_id for one in await shop.deliver()] == [waiting.id]
    assert await maintain_all(shop.connection) == 1
    assert (await shop.event(waiting)).body is None


async def test_what_is_over_is_emptied_in_rounds_and_looked_at_once(shop: Shop, monkeypatch) -> None:
    monkeypatch.setattr(partitions, "EMPTY_BATCH", 3)
    monkeypatch.setattr(partitions, "EMPTY_BATCHES", 2)
    await shop.put(shop.brief, timedelta(hours=2), count=10)
    await shop.deliver()

    rounds = [await partitions.empty(shop.connection, NOW) for _ in range(3)]

    assert [(one.events, one.finished) for one in rounds] == [(6, False), (4, True), (0, True)]
    assert await shop.connection.fetchval("SELECT count(*) FROM events WHERE body IS NOT NULL") == 0


async def test_the_body_of_an_endpoint_that_was_removed_goes_too(shop: Shop, database) -> None:
    [over] = await shop.put(shop.brief, timedelta(hours=2))
    await shop.deliver()
    kept = Configuration(endpoints=(shop.patient,), destinations=(shop.destinations[shop.patient.id],))
    await configuration.apply(shop.connection, database.sealing, kept, actor="test")

    await maintain_all(shop.connection)

    assert (await shop.event(over)).body is None


async def test_a_delivery_whose_body_is_over_is_not_sent_again(shop: Shop) -> None:
    await shop.put(shop.brief, timedelta(hours=2))
    [tried] = await shop.deliver()
    await maintain_all(shop.connection)
    assert await deliveries.retry(shop.connection, tried.delivery_id) == deliveries.NotRetried(reason="event_gone")


async def test_a_claim_that_finds_the_body_over_says_so_and_not_that_it_was_erased(shop: Shop) -> None:
    [over] = await shop.put(shop.brief, timedelta(hours=2))
    await shop.connection.execute("UPDATE events SET body = NULL, headers = NULL WHERE id = $1", over.id)
    assert await shop.deliver() == []
    row = await deliveries.get(shop.connection, over.deliveries[0].id)
    assert row is not None
    assert (row.state, row.last_reason) == (State.EXHAUSTED, "event_gone")


@pytest.mark.parametrize("column", ["response_digest", "payload_hash", "acknowledgement_base"])
async def test_emptying_an_endpoint_lets_nothing_else_of_an_attempt_change(shop: Shop, column: str) -> None:
    await shop.put(shop.brief, timedelta(hours=2))
    await shop.deliver()
    async with shop.connection.transaction():
        await shop.connection.execute("SELECT set_config('kapsel.emptying', $1, true)", str(shop.brief.id))
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            async with shop.connection.transaction():
                await shop.connection.execute(f"UPDATE attempts SET {column} = $1", bytes(32))
        await shop.connection.execute("UPDATE attempts SET response_body = NULL, response_headers = NULL")


async def test_no_component_may_empty_anything(database) -> None:
    for role in ("receiver", "deliverer", "attestor", "console"):
        connection = await database.connection(role)
        try:
            for change in ("UPDATE events SET body = NULL", "UPDATE attempts SET response_body = NULL"):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(change)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("SELECT FROM emptied")
        finally:
            await connection.close()


async def test_hashes_stay_as_long_as_the_relay_says(shop: Shop, database) -> None:
    desired = Configuration(
        relay=RelayRow(hash_retention=100 * DAY),
        endpoints=(shop.brief, shop.patient),
        destinations=tuple(shop.destinations.values()),
    )
    await configuration.apply(shop.connection, database.sealing, desired, actor="test")
    await maintain_all(shop.connection)
    [event] = await shop.put(shop.patient, timedelta())
    await shop.deliver()

    # Its own retention of 30 days is over: the body goes, the rest stays.
    await maintain_all(shop.connection, NOW + 31 * DAY)
    assert (await shop.event(event)).body is None
    assert (await shop.event(event)).body_hash == event.body_hash
    await maintain_all(shop.connection, NOW + 102 * DAY)
    assert await events.get(shop.connection, event.id) is None


async def test_who_declares_one_retention_for_all_pays_nothing_for_emptying(shop: Shop) -> None:
    await maintain_all(shop.connection)
    await shop.put(shop.patient, timedelta())
    await shop.deliver()
    assert await maintain_all(shop.connection, NOW + 31 * DAY) == 0
    late = await partitions.maintain(shop.connection, NOW + 32 * DAY)
    assert f"events_{NOW:%Y%m%d}" in late.dropped


async def test_partitions_are_there_for_clocks_that_are_a_day_late_or_three_ahead(shop: Shop) -> None:
    await maintain_all(shop.connection)
    for age in (DAY, timedelta(), -3 * DAY):
        await shop.put(shop.patient, age)
    assert await shop.connection.fetchval("SELECT count(*) FROM events_default") == 0


async def test_a_reader_that_takes_long_holds_up_the_partitions_and_no_webhook(shop: Shop, database) -> None:
    reader = await database.connection()
    reading = reader.transaction()
    await reading.start()
    await reader.execute("LOCK TABLE events IN ACCESS SHARE MODE")  # as pg_dump does
    owner = await database.connection()
    try:
        maintaining = asyncio.create_task(partitions.maintain(owner, NOW))
        # Whoever asks for a table while maintenance does gets it: it gives up within the half second, and tries again.
        for _ in range(3):
            await shop.put(shop.patient, timedelta())
        assert not maintaining.done()
        await reading.rollback()
        assert f"attempts_{NOW:%Y%m%d}" in (await maintaining).made
    finally:
        await reader.close()
        await owner.close()


async def test_what_went_astray_is_dropped_once_all_of_it_is_over(shop: Shop) -> None:
    strays = await shop.put(shop.patient, timedelta(), count=3)  # no partition was made yet
    await shop.deliver()
    assert await shop.connection.fetchval("SELECT count(*) FROM attempts_default") == 3

    early = await partitions.maintain(shop.connection, NOW + 10 * DAY)
    assert not [name for name in early.dropped if name.endswith("_default")]
    late = await partitions.maintain(shop.connection, NOW + 32 * DAY)

    assert {name for name in late.dropped if name.endswith("_default")} == {
        "events_default",
        "attempts_default",
        "deliveries_final_default",
    }
    assert await events.get(shop.connection, strays[0].id) is None
    # It takes again what falls outside.
    await shop.put(shop.patient, timedelta())
    assert await shop.connection.fetchval("SELECT count(*) FROM events_default") == 1


async def test_what_goes_astray_while_the_old_strays_are_dropped_is_kept(shop: Shop, database) -> None:
    await shop.put(shop.patient, timedelta())  # no partition was made yet
    over = NOW + 31 * DAY
    await partitions.maintain(shop.connection, over - timedelta(minutes=1))  # so that the next round makes none
    receiver, owner = await database.connection(), await database.connection()
    late = shop._event(shop.patient, -45 * DAY)
    async with receiver.transaction():
        await events.insert(receiver, [late])
        maintaining = asyncio.create_task(partitions.maintain(owner, over + timedelta(minutes=1)))
        async with asyncio.timeout(60):
            while not await shop.connection.fetchval(
                "SELECT $1 = ANY (pg_blocking_pids($2))", receiver.get_server_pid(), owner.get_server_pid()
            ):
                await asyncio.sleep(0.01)
    assert "events_default" not in (await maintaining).dropped
    assert await events.get(shop.connection, late.id) is not None
    await receiver.close()
    await owner.close()


async def test_rows_outside_the_partitions_are_counted(shop: Shop) -> None:
    await shop.put(shop.patient, timedelta(), count=5)
    await shop.connection.execute("SELECT pg_stat_force_next_flush()")
    await shop.connection.execute("SELECT pg_stat_clear_snapshot()")
    assert (await deliveries.depth(shop.connection)).strays == 5
