"""How all endpoints of a Relay are doing, at a cost that depends on what goes on and not on how many there are.

The operator asks for it every half minute and writes it into statuses. The console shows single endpoints: `endpoints`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from kapsel_store.database import Connection
from kapsel_store.ids import first_at
from kapsel_store.queries import statement

MOST_COUNTED: Final = 10_000  # pending deliveries of one destination
RECENT: Final = timedelta(minutes=10)
MOST_RECENT: Final = 20_000  # attempts of all destinations


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """One destination that has something to tell."""

    pending: int = 0  # MOST_COUNTED means that or more
    oldest: timedelta | None = None  # how long the oldest of them has waited
    attempts: int = 0  # recent ones
    delivered: int = 0
    last_reason: str | None = None  # of the newest recent try that failed
    circuit_open: bool = False
    disabled: str | None = None  # why, if it is
    warned: bool = False  # it will be disabled if it goes on failing


@dataclass(frozen=True, slots=True, kw_only=True)
class Generations:
    """Which generation of the configuration holds the newest row of each endpoint and of each key."""

    endpoints: Mapping[UUID, int]
    keys: Mapping[tuple[str, str], int]  # by namespace and name


async def has_keys(connection: Connection) -> bool:
    """Return whether anything is stored that only the sealing key can open."""
    return bool(await connection.fetchval(statement("overview.has_keys")))


async def generations(connection: Connection) -> Generations:
    """Return since when the rows are what they are."""
    endpoints = await connection.fetch(statement("overview.generations"))
    keys = await connection.fetch(statement("overview.key_generations"))
    return Generations(
        endpoints={row["id"]: row["generation"] for row in endpoints},
        keys={(row["namespace"], row["name"]): row["generation"] for row in keys},
    )


async def doing(connection: Connection, now: datetime) -> dict[UUID, Doing]:
    """Return the destinations that wait, were tried lately, or are left alone; all others idle."""
    found: dict[UUID, dict[str, object]] = {}
    for row in await connection.fetch(statement("overview.waiting"), MOST_COUNTED):
        found[row["destination_id"]] = {"pending": row["pending"], "oldest": row["oldest"]}
    for row in await connection.fetch(statement("overview.recent"), first_at(now - RECENT), MOST_RECENT):
        tried = {name: row[name] for name in ("attempts", "delivered", "last_reason")}
        found.setdefault(row["destination_id"], {}).update(tried)
    for row in await connection.fetch(statement("overview.troubled")):
        one = found.setdefault(row["destination_id"], {})
        one.update(circuit_open=row["open"], disabled=row["disabled_reason"], warned=row["warned"])
        if row["disabled_reason"]:
            one["last_reason"] = row["disabled_reason"]
    return {destination: Doing(**fields) for destination, fields in found.items()}  # type: ignore[arg-type]
