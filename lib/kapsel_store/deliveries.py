"""Deliveries: the queue. Deliverers claim, record, rescue and expire; the console lists, retries and cancels.

Every change of state is one statement that names the state it starts from, and a sending delivery moves only for who
holds its lease. Times of the queue are the database's: processes need not agree on a clock.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import asyncpg

from kapsel_store import ids, specs
from kapsel_store.database import Connection, again
from kapsel_store.events import FIRST_ID, LAST_ID
from kapsel_store.queries import newest, one, statement
from kapsel_store.rows import Claimed, Result
from kapsel_store.states import FINAL, State

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRow:
    """One delivery as people see it."""

    id: UUID
    event_id: UUID
    endpoint_id: UUID
    namespace: str
    name: str
    destination_id: UUID
    destination: str
    state: State
    attempts: int
    created_at: datetime
    due_at: datetime
    expires_at: datetime
    finished_at: datetime | None
    last_reason: str | None
    acknowledgement: str | None  # of the last attempt: AttemptRow.acknowledgement
    replay_of: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How much waits."""

    pending: int
    sending: int
    oldest_pending_age: timedelta
    oldest_due_age: timedelta  # of those that one more deliverer could take now
    dead_tuples: int
    strays: int  # about how many rows lie outside the partitions of days


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRetried:
    """Why no new delivery was made."""

    reason: str  # unknown, not_final, destination_removed or event_gone


async def claim(
    connection: Connection,
    wanted: Mapping[UUID, int],
    lease: timedelta,
    given_up: Callable[[str, str], None] | None = None,
) -> tuple[UUID, list[Claimed]]:
    """Lease due deliveries, at most `wanted[destination]` of each; return the lease id and what was claimed.

    Those whose event is gone with its retention, or erased, end here instead, and `given_up` is told the destination
    and the reason of each. Losing a claim in a crash only ends the lease early, so the connection may have
    synchronous_commit off.
    """
    lease_id = uuid4()
    rows = await again(
        lambda: connection.fetch(
            statement("deliveries.claim"), list(wanted.keys()), list(wanted.values()), lease_id, lease
        )
    )
    claimed = [Claimed._make(row) for row in rows if row["body"] is not None]
    if len(claimed) < len(rows):
        gone = [row["id"] for row in rows if row["body"] is None]
        # A crash before this commit leaves them leased; they are rescued, claimed again, and end then.
        ended = await connection.fetch(statement("deliveries.end_gone"), gone, lease_id)
        _tell(given_up, ended)
        logger.warning("%d deliveries ended: the retention of their events is over, or they were erased", len(gone))
    return lease_id, claimed


async def record(connection: Connection, results: Sequence[Result]) -> set[UUID]:
    """Record tries and move their deliveries in ONE durable commit; return the attempts whose lease still held.

    Who lost a lease and claimed the delivery anew may bring both tries at once. Recording the same attempts again is
    harmless: that is what to do when a commit's answer was lost.
    """
    if not results:
        return set()
    attempts, leases, states, waits, *_ = zip(*results, strict=True)
    rows = await connection.fetch(statement("deliveries.record"), *zip(*attempts, strict=True), leases, states, waits)
    return {row["id"] for row in rows}


async def release(connection: Connection, leases: Mapping[UUID, UUID]) -> None:
    """Give back deliveries that were claimed and not tried: delivery id -> lease id."""
    await connection.execute(statement("deliveries.release"), list(leases.keys()), list(leases.values()))


async def skip(connection: Connection, leases: Mapping[UUID, UUID]) -> None:
    """End deliveries that were claimed and that their destinations' filters do not want: delivery id -> lease id."""
    await connection.execute(statement("deliveries.skip"), list(leases.keys()), list(leases.values()))


async def renew(connection: Connection, leases: Mapping[UUID, UUID], lease: timedelta) -> None:
    """Hold deliveries that are being tried for another `lease` from now: delivery id -> lease id."""
    arguments = list(leases.keys()), list(leases.values()), lease
    await again(lambda: connection.execute(statement("deliveries.renew"), *arguments))


async def rescue(connection: Connection, limit: int = 1000) -> int:
    """Put deliveries whose lease ran out back to pending; return how many."""
    return _count(await again(lambda: connection.execute(statement("deliveries.rescue"), limit)))


async def expire(connection: Connection, limit: int = 1000, given_up: Callable[[str, str], None] | None = None) -> int:
    """End pending deliveries that are past their age, tell destination and reason of each; return how many."""
    ended = await again(lambda: connection.fetch(statement("deliveries.expire"), limit))
    _tell(given_up, ended)
    return len(ended)


async def cancel_orphans(connection: Connection, limit: int = 1000) -> int:
    """Cancel pending deliveries whose destination was removed; return how many."""
    return _count(await again(lambda: connection.execute(statement("deliveries.cancel_orphans"), limit)))


async def cancel(connection: Connection, delivery_id: UUID) -> bool:
    """Cancel a pending delivery; False if it is not pending, or is being claimed at this moment."""
    return await connection.fetchval(statement("deliveries.cancel"), delivery_id) is not None


async def retry(connection: Connection, delivery_id: UUID) -> UUID | NotRetried:
    """Make a new delivery of a final one and return its id."""
    found = await connection.fetchrow(statement("deliveries.max_age_of"), delivery_id)
    if found is None:
        return NotRetried(reason="unknown")
    if State(found["state"]) not in FINAL:
        return NotRetried(reason="not_final")
    if found["removed"]:
        return NotRetried(reason="destination_removed")
    max_age = specs.POLICY.validate_json(found["policy"]).max_age
    made = await connection.fetchval(statement("deliveries.retry"), delivery_id, ids.new(), max_age)
    # The destination was there a moment ago, so what is missing is the event: its retention is over, or it was erased.
    return NotRetried(reason="event_gone") if made is None else made


async def waiting(connection: Connection) -> list[UUID]:
    """Return the destinations that have pending deliveries, due or not."""
    return [row["destination_id"] for row in await connection.fetch(statement("deliveries.waiting"))]


async def next_due(connection: Connection, destination_ids: Sequence[UUID]) -> timedelta | None:
    """Return how long until the first pending delivery of these destinations is due (negative: it is), or None."""
    wait: timedelta | None = await connection.fetchval(statement("deliveries.next_due"), list(destination_ids))
    return wait


async def depth(connection: Connection) -> Depth:
    """Return how much waits, how long, and how many dead rows the queue's table holds."""
    return Depth(**dict(await one(connection, "deliveries.depth")))


async def get(connection: Connection, delivery_id: UUID) -> DeliveryRow | None:
    """Return one delivery, or None."""
    row = await connection.fetchrow(statement("deliveries.get"), delivery_id)
    return None if row is None else _row(row)


async def page(
    connection: Connection,
    *,
    now: datetime,
    limit: int,
    before: UUID | None = None,
    since: datetime | None = None,
    states: Sequence[State] | None = None,
    endpoint_id: UUID | None = None,
    event_id: UUID | None = None,
) -> list[DeliveryRow]:
    """Return the newest deliveries first: those with an id below `before`, made since `since`, in one of `states`.

    What is still live is in one table, and what is of one event is few and not older: both are looked for in one go.
    """
    below, lowest = before or LAST_ID, FIRST_ID if since is None else ids.first_at(since)
    more = None if states is None else list(states), endpoint_id
    if event_id is not None:
        lowest = max(lowest, ids.followers_from(event_id))
        rows = await connection.fetch(statement("deliveries.page_of_event"), below, lowest, limit, *more, event_id)
    elif states is None or State.DELIVERED in states:
        rows = await newest(connection, "deliveries.page", below, lowest, limit, *more, now=now)
    elif FINAL.intersection(states):
        rows = await newest(connection, "deliveries.page_not_delivered", below, lowest, limit, *more, now=now)
    else:
        rows = await connection.fetch(statement("deliveries.page_live"), below, lowest, limit, *more)
    return [_row(row) for row in rows]


def _row(row: asyncpg.Record) -> DeliveryRow:
    fields = dict(row)
    return DeliveryRow(state=State(fields.pop("state")), **fields)


def _tell(given_up: Callable[[str, str], None] | None, ended: Sequence[asyncpg.Record]) -> None:
    if given_up is not None:
        for row in ended:
            given_up(row["destination"], row["last_reason"])


def _count(status: str) -> int:
    """Return the number of rows in a command tag such as `UPDATE 12`."""
    return int(status.rpartition(" ")[2])
