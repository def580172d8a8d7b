"""Partitions by time: made ahead, dropped when everything in them is past its retention, emptied of bodies before that.

Run by whoever owns the schema (kapsel up, the operator), at start and every hour. Events, attempts and final deliveries
are cut by the day their version 7 id was made on; a default partition takes what falls outside, so that a late
maintenance or a clock that jumps never refuses an event. A day is dropped when the longest retention is over; an
endpoint whose own is shorter loses bodies and answers at its own time, row by row, and keeps what proofs need (ADR 8).
"""

import asyncio
import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg

from kapsel_store import replays
from kapsel_store.database import Connection
from kapsel_store.ids import first_at, timestamp
from kapsel_store.queries import statement

TABLES = ("events", "attempts", "deliveries_final")
AHEAD = timedelta(days=3)
FORGET_BATCH = 10_000
EMPTY_BATCH = 1_000
EMPTY_BATCHES = 50  # a round, so that whoever runs it comes back to what else it does
LOCK_TRIES = 60

logger = logging.getLogger(__name__)

_DAY = timedelta(days=1)
_LOCK_PAUSE = 0.5  # seconds for those who waited behind us
_SKEW = timedelta(hours=1)  # more than the clocks of two processes differ
_FIRST_ID = UUID(int=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintained:
    """What a round of maintenance did."""

    made: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    forgotten_keys: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Emptied:
    """What a round of emptying did."""

    events: int
    finished: bool  # nothing is left that another round should go on with at once


async def maintain(connection: Connection, now: datetime) -> Maintained:
    """Make the partitions of the days around now, drop the expired ones, forget expired idempotency keys."""
    longest: timedelta = await connection.fetchval(statement("partitions.longest_life"))
    partitions = await _partition(connection, now, longest)
    if partitions is None:
        return Maintained()
    await connection.execute(statement("processes.forget"))
    await replays.forget(connection, now - longest - _DAY, FORGET_BATCH)
    forgotten = await _forget_keys(connection)
    return Maintained(made=tuple(partitions.made), dropped=tuple(partitions.dropped), forgotten_keys=forgotten)


async def empty(connection: Connection, now: datetime) -> Emptied:
    """Take the bodies of events that are over before the days they lie in; as many as fit into a round."""
    longest: timedelta = await connection.fetchval(statement("partitions.longest_life"))
    events, batches = 0, 0
    # What is over a day or two before its partition is dropped is dropped with it.
    for row in await connection.fetch(statement("partitions.shorter_lives"), longest - 2 * _DAY):
        after, before = row["up_to"] or _FIRST_ID, first_at(now - row["retention"])
        if row["needed"] is not None:
            before = min(before, row["needed"])
        while over := await connection.fetch(statement("partitions.over"), row["id"], after, before, EMPTY_BATCH):
            if batches == EMPTY_BATCHES:
                return Emptied(events=events, finished=False)
            await _empty_batch(connection, row["id"], [one["id"] for one in over])
            # A crash here leaves the mark behind what is empty already, and finds it so; never before it.
            after, events, batches = over[-1]["id"], events + len(over), batches + 1
    return Emptied(events=events, finished=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partitions:
    made: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)


async def _partition(connection: Connection, now: datetime, longest: timedelta) -> _Partitions | None:
    """Make and drop partitions; None if somebody else does so at this moment.

    The tables are asked for again and again, for half a second at a time: a backup may read them for hours, and every
    webhook would wait behind us.
    """
    for number in range(1, LOCK_TRIES + 1):
        done = _Partitions()
        try:
            async with connection.transaction():
                if not await connection.fetchval(statement("partitions.lock")):
                    return None
                await connection.execute(statement("partitions.patience"))
                for table in TABLES:
                    existing = {row["name"] for row in await connection.fetch(statement("partitions.existing"), table)}
                    done.made.extend(await _make(connection, table, existing, now))
                    done.dropped.extend(await _drop(connection, table, existing, now - longest - _DAY))
                status = await connection.execute(statement("partitions.forget_unsequenced"), first_at(now - longest))
            break
        except asyncpg.LockNotAvailableError:
            if number == LOCK_TRIES:
                logger.warning("the partitions are left to the next round: somebody reads the tables for long")
                return _Partitions()
            await asyncio.sleep(_LOCK_PAUSE)
    if status != "DELETE 0":
        logger.warning("%s attempts were dropped that no log had taken", status.rpartition(" ")[2])
    return done


async def _forget_keys(connection: Connection) -> int:
    forgotten = 0
    while True:
        status = await connection.execute(statement("partitions.forget_keys"), FORGET_BATCH)
        count = int(status.rpartition(" ")[2])
        forgotten += count
        if count < FORGET_BATCH:
            return forgotten


async def _empty_batch(connection: Connection, endpoint_id: UUID, events: list[UUID]) -> None:
    async with connection.transaction():
        await connection.execute(statement("partitions.let_empty"), str(endpoint_id))
        await connection.execute(statement("partitions.empty_events"), events, events[0], events[-1])
        youngest = first_at(timestamp(events[0]) - _SKEW)
        await connection.execute(statement("partitions.empty_attempts"), events, youngest)
        await connection.execute(statement("partitions.emptied"), endpoint_id, events[-1])


async def _make(connection: Connection, table: str, existing: set[str], now: datetime) -> list[str]:
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    made = []
    for number in range(-1, AHEAD.days + 1):  # from yesterday on, for clocks that are late
        day = today + number * _DAY
        name = f"{table}_{day:%Y%m%d}"
        if name in existing:
            continue
        try:
            async with connection.transaction():
                await connection.execute(
                    f"CREATE TABLE {name} PARTITION OF {table} "
                    f"FOR VALUES FROM ('{first_at(day)}') TO ('{first_at(day + _DAY)}')"
                )
        except asyncpg.CheckViolationError:
            # Rows of that day went to the default partition while none was there; they stay, and so does the day.
            logger.warning("partition %s was not made: the default partition holds rows of that day", name)
            continue
        made.append(name)
    return made


async def _drop(connection: Connection, table: str, existing: set[str], before: datetime) -> list[str]:
    dropped = []
    for name in sorted(existing):
        day = name.removeprefix(f"{table}_")
        if not day.isdigit():
            dropped += await _renew_default(connection, table, name, before)
        elif datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + _DAY <= before:
            await connection.execute(f"DROP TABLE {name}")
            dropped.append(name)
    return dropped


async def _renew_default(connection: Connection, table: str, name: str, before: datetime) -> list[str]:
    """Drop what went astray once all of it is over: as a whole, for rows of attempts are never deleted."""
    youngest = f"SELECT id FROM {name} ORDER BY id DESC LIMIT 1"  # noqa: S608 - a name of ours
    if (found := await connection.fetchval(youngest)) is None or found >= first_at(before):
        return []
    # Something may go astray at this moment: it is looked for once more where nothing can.
    await connection.execute(f"LOCK TABLE ONLY {table}, ONLY {name} IN ACCESS EXCLUSIVE MODE")
    if await connection.fetchval(youngest) >= first_at(before):
        return []
    await connection.execute(f"DROP TABLE {name}")
    await connection.execute(f"CREATE TABLE {name} PARTITION OF {table} DEFAULT")
    return [name]
