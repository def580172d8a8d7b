"""Partitions by time: made ahead, dropped when everything in them is past its retention.

Run by whoever owns the schema (kapsel up, the operator), at start and every hour. Events, attempts and final deliveries
are cut by the day their version 7 id was made on; a default partition takes what falls outside, so that a late
maintenance or a clock that jumps never refuses an event.
"""

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg

from kapsel_store import replays
from kapsel_store.database import Connection
from kapsel_store.ids import first_at
from kapsel_store.queries import statement

TABLES = ("events", "attempts", "deliveries_final")
AHEAD = timedelta(days=3)
FORGET_BATCH = 10_000

logger = logging.getLogger(__name__)

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintained:
    """What a round of maintenance did."""

    made: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    forgotten_keys: int = 0


async def maintain(connection: Connection, now: datetime) -> Maintained:
    """Make the partitions of today and the next days, drop the expired ones, forget expired idempotency keys."""
    async with connection.transaction():
        if not await connection.fetchval(statement("partitions.lock")):
            return Maintained()
        longest: timedelta = await connection.fetchval(statement("partitions.longest_life"))
        made: list[str] = []
        dropped: list[str] = []
        for table in TABLES:
            existing = {row["name"] for row in await connection.fetch(statement("partitions.existing"), table)}
            made += await _make(connection, table, existing, now)
            dropped += await _drop(connection, table, existing, now - longest - _DAY)
        status = await connection.execute(statement("partitions.forget_unsequenced"), first_at(now - longest))
        if status != "DELETE 0":
            logger.warning("%s attempts were dropped that no log had taken", status.rpartition(" ")[2])
    await connection.execute(statement("processes.forget"))
    await replays.forget(connection, now - longest - _DAY, FORGET_BATCH)
    forgotten = 0
    while True:
        status = await connection.execute(statement("partitions.forget_keys"), FORGET_BATCH)
        count = int(status.rpartition(" ")[2])
        forgotten += count
        if count < FORGET_BATCH:
            return Maintained(made=tuple(made), dropped=tuple(dropped), forgotten_keys=forgotten)


async def _make(connection: Connection, table: str, existing: set[str], now: datetime) -> list[str]:
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    made = []
    for number in range(AHEAD.days + 1):
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
            continue  # the default partition
        if datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) + _DAY <= before:
            await connection.execute(f"DROP TABLE {name}")
            dropped.append(name)
    return dropped
