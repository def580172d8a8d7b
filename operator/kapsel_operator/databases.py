"""The databases of all Relays: a few connections to each, kept from one reconcile to the next, and what is wrong with
one that cannot be used, in the words of a condition.

Only `gather` and `reconcile` talk to them. Every connection and statement has a deadline, so that a database that hangs
holds up its own Relay for seconds, and no other.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs, urlsplit

import asyncpg

from kapsel_resources.reasons import Reason
from kapsel_store import database
from kapsel_store.database import Connection, Pool
from kapsel_store.errors import DatabaseURLError, EditedMigrationError, NewerSchemaError, OldServerError, SealingError

SCHEMA: Final = "kapsel"
CONNECTIONS: Final = 2
ACQUIRE_TIMEOUT: Final = 8.0  # seconds, connecting included

_REFUSED: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,  # the password is wrong, or there is no such user
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
_INVALID: Final = (DatabaseURLError, asyncpg.exceptions._base.ClientConfigurationError)  # noqa: SLF001 - not exported


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why the database of a Relay cannot be used."""

    reason: Reason
    message: str
    stalled: bool = False  # only a person can help


INVALID_URL: Final = Trouble(
    reason="DatabaseUrlInvalid",
    message="what the Secret holds is no URL of a Postgres database; allowed: postgresql://user:password@host:5432/name",
    stalled=True,
)


def trouble(error: Exception, url: str) -> Trouble | None:
    """Return what an error says about the database at a URL; None if it is a bug and none of the database's doing."""
    if isinstance(error, _INVALID):
        return INVALID_URL
    if isinstance(error, _REFUSED):
        return Trouble(reason="DatabaseRefused", message=f"Postgres answers: {error}", stalled=True)
    if isinstance(error, NewerSchemaError):
        return Trouble(reason="SchemaNewer", message=str(error), stalled=True)
    if isinstance(error, EditedMigrationError):
        return Trouble(reason="SchemaDiffers", message=str(error), stalled=True)
    if isinstance(error, OldServerError):
        return Trouble(reason="PostgresTooOld", message=str(error), stalled=True)
    if isinstance(error, SealingError):
        return Trouble(reason="SealingKeyWrong", message=str(error), stalled=True)
    if database.is_away(error):
        return Trouble(reason="DatabaseUnreachable", message=f"{place(url)}: {_why(error)}")
    return None


def place(text: str) -> str:
    """Return host and port of a URL, which may be shown: what else is in it may not."""
    parts = urlsplit(text)
    host = parts.hostname or (parse_qs(parts.query).get("host") or ["the database"])[0]
    return f"{host}:{port(text)}"


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or "no answer in time"


def is_url(text: str) -> bool:
    """Return whether a text could be the URL of a Postgres database; asyncpg would fill in what is missing."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or parse_qs(parts.query).get("host")
        return parts.scheme in ("postgresql", "postgres") and bool(host) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def port(text: str) -> int:
    """Return the port that a URL names."""
    return urlsplit(text).port or 5432


class Databases:
    """Pools by the uid of their Relay."""

    def __init__(self) -> None:
        self._pools: dict[str, tuple[str, Pool]] = {}

    @asynccontextmanager
    async def connection(self, uid: str, url: str) -> AsyncIterator[Connection]:
        """Lend a connection to the database of a Relay; another URL than last time means another pool."""
        pool = await self._pool(uid, url)
        async with pool.acquire(timeout=ACQUIRE_TIMEOUT) as connection:
            yield connection

    async def forget(self, uid: str) -> None:
        """Close the connections of a Relay."""
        known = self._pools.pop(uid, None)
        if known is not None:
            known[1].terminate()

    async def close(self) -> None:
        """Close all connections."""
        for uid in list(self._pools):
            await self.forget(uid)

    async def _pool(self, uid: str, url: str) -> Pool:
        known = self._pools.get(uid)
        if known is not None and known[0] == url:
            return known[1]
        await self.forget(uid)
        pool = database.connect(url, role=None, schema=SCHEMA, size=CONNECTIONS, component="operator")
        await pool
        self._pools[uid] = (url, pool)
        return pool
