"""Finds the named statements of sql/queries/*.sql: `statement("events.insert")` is the text after `-- name: insert`."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import cache
from importlib.resources import files
from typing import Final
from uuid import UUID

import asyncpg

from kapsel_store.database import Connection
from kapsel_store.ids import EPOCH, first_at, timestamp

STEPS: Final = (timedelta(days=1), timedelta(days=7))  # that a page looks back before it looks at all days


@cache
def statement(name: str) -> str:
    """Return the SQL of `file.name`; raise KeyError if there is none."""
    file, _, query = name.partition(".")
    return _file(file)[query]


async def one(connection: Connection, name: str, *arguments: object) -> asyncpg.Record:
    """Run a statement that always gives a row, and return the first."""
    row = await connection.fetchrow(statement(name), *arguments)
    if row is None:
        raise LookupError(f"{name} gave no row")
    return row


async def newest(
    connection: Connection, name: str, below: UUID, lowest: UUID, limit: int, *arguments: object, now: datetime
) -> list[asyncpg.Record]:
    """Run a statement that gives the newest first over the newest days, and over those before while there is room.

    Its first arguments are the id below which it looks, the lowest one, and how many rows it gives. To plan it over the
    partitions of all days takes longer than to read a page of them, and most pages end within the newest. One that does
    not, because its filter matches rarely, reads no row twice all the same, and two more statements over few partitions
    cost it less than they save where it matches often.
    """
    found: list[asyncpg.Record] = []
    for bound in _bounds(below, lowest, now):
        found += await connection.fetch(statement(name), below, bound, limit - len(found), *arguments)
        if len(found) == limit:
            break
        below = bound
    return found


def _bounds(below: UUID, lowest: UUID, now: datetime) -> Iterator[UUID]:
    """Yield the ids down to which is looked, one after the other."""
    latest = now if below > first_at(now) else timestamp(below)
    for step in STEPS:
        if lowest < (bound := first_at(max(latest, EPOCH + step) - step)) < below:
            yield bound
    yield lowest


@cache
def _file(name: str) -> dict[str, str]:
    text = (files("kapsel_store") / "sql" / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for block in text.split("-- name: ")[1:]:
        title, _, body = block.partition("\n")
        found[title.strip()] = body.strip()
    return found
