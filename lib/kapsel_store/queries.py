"""Finds the named statements of sql/queries/*.sql: `statement("events.insert")` is the text after `-- name: insert`."""

from functools import cache
from importlib.resources import files

import asyncpg

from kapsel_store.database import Connection


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


@cache
def _file(name: str) -> dict[str, str]:
    text = (files("kapsel_store") / "sql" / "queries" / f"{name}.sql").read_text(encoding="utf-8")
    found: dict[str, str] = {}
    for block in text.split("-- name: ")[1:]:
        title, _, body = block.partition("\n")
        found[title.strip()] = body.strip()
    return found
