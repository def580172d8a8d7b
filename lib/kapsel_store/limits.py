"""Limits that all processes keep together: slots for tries under way, tokens for rates.

Deliverers and receivers ask here for a part of a limit; what they get is theirs for a short while by the database's
clock, so what a dead process had comes back by itself. `allot` and `draw` decide and are pure; each row is replaced by
compare and swap, and who loses the race decides again on what it lost to.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import asyncpg

from kapsel_store.database import Connection
from kapsel_store.queries import statement
from kapsel_store.rows import RateLimit

RACES: Final = 5  # lost races after which a row is left for the next time


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one process has of a destination's slots."""

    count: int
    wanted: int
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a process asks of a destination's slots: all that it could use, and what it uses already."""

    limit: int
    wanted: int
    held: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Allotted:
    """How many tries a process may have under way, and whether these are fewer than it asked for."""

    slots: int
    short: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The tokens of one limit: those that nobody has, and those that a process holds for later."""

    tokens: float
    filled_at: datetime
    outstanding: Mapping[str, tuple[int, datetime]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What a process asks of a bucket."""

    limit: RateLimit
    need: int  # used at once
    least: int = 1  # fewer of them are of no use
    extra: int = 0  # held for what may come, if there are more than enough
    unused: int = 0  # given back of what was held


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What it got, what is left for others, and how many seconds until there is another one, or what is of use."""

    tokens: int
    left: float
    wait: float


def shares(demands: Mapping[str, int], limit: int) -> dict[str, int]:
    """Divide a limit: nobody gets more than it asks, and what one leaves goes to the others evenly."""
    found: dict[str, int] = {}
    left = limit
    # Who asks least first; the name decides where nothing else does, so that all processes come to the same result.
    for position, (holder, wanted) in enumerate(sorted(demands.items(), key=lambda item: (item[1], item[0]))):
        waiting = len(demands) - position
        found[holder] = min(wanted, -(-left // waiting))
        left -= found[holder]
    return found


def allot(
    grants: Mapping[str, Grant], holder: str, demand: Demand, now: datetime, lease: timedelta
) -> tuple[dict[str, Grant], Allotted]:
    """Return the grants of a destination after `holder` has asked, and what it may use.

    The sum of what is granted never exceeds the limit: who comes late waits until the others, who then learn of it,
    have let go.
    """
    others = {name: grant for name, grant in grants.items() if name != holder and grant.until > now}
    if not demand.wanted and not demand.held:
        return others, Allotted(slots=0, short=False)
    free = max(0, demand.limit - sum(grant.count for grant in others.values()))
    wants = {name: grant.wanted for name, grant in others.items()} | {holder: demand.wanted}
    slots = min(free, shares(wants, demand.limit)[holder])
    # What is under way cannot be taken back, so it stays counted until it has ended.
    count = min(free, max(slots, demand.held))
    return (
        {**others, holder: Grant(count=count, wanted=demand.wanted, until=now + lease)},
        Allotted(slots=slots, short=slots < demand.wanted),
    )


def available(bucket: Bucket | None, limit: RateLimit, now: datetime) -> float:
    """Return how many tokens nobody has."""
    if bucket is None:
        return float(limit.burst)
    held = sum(count for count, _ in bucket.outstanding.values())
    passed = max(0.0, (now - bucket.filled_at).total_seconds())
    return min(max(0.0, float(limit.burst) - held), bucket.tokens + passed * limit.requests_per_second)


def draw(bucket: Bucket | None, holder: str, ask: Draw, now: datetime, lease: timedelta) -> tuple[Bucket, Drawn]:
    """Return a bucket after `holder` has drawn, and what it got.

    What is in the bucket and what processes hold for later are never more than the burst together, so whatever they
    do with it, no span of time sees more than the burst and what the rate lets in.
    """
    rate, burst = ask.limit.requests_per_second, float(ask.limit.burst)
    if bucket is None:
        bucket = Bucket(tokens=burst, filled_at=now, outstanding={})
    tokens = available(bucket, ask.limit, now)
    others = {name: held for name, held in bucket.outstanding.items() if name != holder and held[1] > now}
    own, _ = bucket.outstanding.get(holder, (0, now))
    tokens = min(max(0.0, burst - sum(count for count, _ in others.values())), tokens + min(ask.unused, own))
    need = min(ask.need, int(tokens)) if tokens >= ask.least else 0
    extra = min(ask.extra, int(tokens) - need)
    tokens -= need + extra
    after = {**others, holder: (extra, now + lease)} if extra else others
    wait = max(0.0, ask.least - tokens) / rate
    return (
        Bucket(tokens=tokens, filled_at=now, outstanding=after),
        Drawn(tokens=need + extra, left=tokens, wait=wait),
    )


async def ask(
    connection: Connection, holder: str, demands: Mapping[UUID, Demand], lease: timedelta
) -> dict[UUID, Allotted]:
    """Ask for slots of many destinations; what is missing in the answer was lost to others too often, for now."""
    answers: dict[UUID, Allotted] = {}
    left = dict(demands)
    for _ in range(RACES):
        if not left:
            break
        rows = await connection.fetch(statement("limits.read_slots"), list(left))
        decided = {
            row["destination_id"]: (
                row["version"] or 0,
                *allot(_grants(row["grants"]), holder, left[row["destination_id"]], row["read_at"], lease),
            )
            for row in rows
        }
        # A crash after this leaves grants that nobody uses: they end with their lease.
        swapped = await connection.fetch(
            statement("limits.swap_slots"),
            list(decided),
            [version for version, _, _ in decided.values()],
            [_written(grants) for _, grants, _ in decided.values()],
        )
        for row in swapped:
            answers[row[0]] = decided[row[0]][2]
            del left[row[0]]
    return answers


async def take(connection: Connection, holder: str, asks: Mapping[UUID, Draw], lease: timedelta) -> dict[UUID, Drawn]:
    """Draw tokens from many buckets; what is missing in the answer was lost to others too often, for now."""
    answers: dict[UUID, Drawn] = {}
    left = dict(asks)
    for _ in range(RACES):
        if not left:
            break
        rows = await connection.fetch(statement("limits.read_buckets"), list(left))
        decided = {}
        for row in rows:
            after, drawn = draw(_bucket(row), holder, left[row["id"]], row["read_at"], lease)
            decided[row["id"]] = (row["version"] or 0, after, drawn)
        # A crash after this loses tokens, and never makes any.
        swapped = await connection.fetch(
            statement("limits.swap_buckets"),
            list(decided),
            [version for version, _, _ in decided.values()],
            [bucket.tokens for _, bucket, _ in decided.values()],
            [bucket.filled_at for _, bucket, _ in decided.values()],
            [
                json.dumps({name: [count, until.isoformat()] for name, (count, until) in bucket.outstanding.items()})
                for _, bucket, _ in decided.values()
            ],
        )
        for row in swapped:
            answers[row[0]] = decided[row[0]][2]
            del left[row[0]]
    return answers


async def slots_of(connection: Connection, destination_ids: Sequence[UUID]) -> dict[UUID, dict[str, Grant]]:
    """Return who has slots of these destinations, those whose lease is over included."""
    rows = await connection.fetch(statement("limits.read_slots"), list(destination_ids))
    return {row["destination_id"]: _grants(row["grants"]) for row in rows}


async def buckets_of(connection: Connection, destination_ids: Sequence[UUID]) -> dict[UUID, Bucket | None]:
    """Return the buckets of these destinations, None while nobody has drawn from one."""
    rows = await connection.fetch(statement("limits.read_buckets"), list(destination_ids))
    return {row["id"]: _bucket(row) for row in rows}


def _bucket(row: asyncpg.Record) -> Bucket | None:
    if row["version"] is None:
        return None
    return Bucket(tokens=row["tokens"], filled_at=row["filled_at"], outstanding=_outstanding(row["outstanding"]))


def _grants(text: str | None) -> dict[str, Grant]:
    return {
        name: Grant(count=count, wanted=wanted, until=datetime.fromisoformat(until))
        for name, (count, wanted, until) in json.loads(text or "{}").items()
    }


def _written(grants: Mapping[str, Grant]) -> str:
    return json.dumps({name: [grant.count, grant.wanted, grant.until.isoformat()] for name, grant in grants.items()})


def _outstanding(text: str) -> dict[str, tuple[int, datetime]]:
    return {name: (count, datetime.fromisoformat(until)) for name, (count, until) in json.loads(text).items()}
