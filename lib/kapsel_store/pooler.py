"""Connections through a pooler in transaction mode, such as PgBouncer: what `database.connect` opens to one.

Such a pooler lends a server's connection for one transaction: nothing that a statement leaves in a session, neither its
role nor where it finds its tables, can be relied on by the next. So everything happens in a transaction, which sets
the session anew as it begins. What needs a session that lasts, locks and hints, does not go this way.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import asyncpg

_Result = TypeVar("_Result")


def carrying(session: Mapping[str, str]) -> type[asyncpg.Connection]:
    """Return the class of connections that carry this session with them."""
    settings = "".join(f"; SET LOCAL {name} = {_literal(value)}" for name, value in session.items())

    class Carrying(asyncpg.Connection):
        async def _within(self, run: Callable[[], Awaitable[_Result]]) -> _Result:
            if self.is_in_transaction():
                return await run()
            async with self.transaction():
                return await run()

        async def execute(self, query: str, *arguments: Any, **options: Any) -> str:
            run = super().execute
            if not arguments and query.startswith("BEGIN"):
                # From asyncpg's Transaction: one round trip for both.
                return await run(query.rstrip(";") + settings, **options)
            return await self._within(lambda: run(query, *arguments, **options))

        async def fetch(self, query: str, *arguments: Any, **options: Any) -> Any:
            run = super().fetch
            return await self._within(lambda: run(query, *arguments, **options))

        async def fetchrow(self, query: str, *arguments: Any, **options: Any) -> Any:
            run = super().fetchrow
            return await self._within(lambda: run(query, *arguments, **options))

        async def fetchval(self, query: str, *arguments: Any, **options: Any) -> Any:
            run = super().fetchval
            return await self._within(lambda: run(query, *arguments, **options))

    return Carrying


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
