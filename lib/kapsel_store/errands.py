"""Errands: what receivers, which call nobody, have deliverers fetch from outside.

A receiver asks and looks; a deliverer takes, goes and finishes. Nothing waits in a transaction.
"""

from dataclasses import dataclass
from typing import Final, Literal

from kapsel_store.database import Connection
from kapsel_store.queries import statement

Kind = Literal["certificate", "confirmation"]
MOST_OPEN: Final = 200  # certificates


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """Something to fetch."""

    url: str
    kind: Kind
    tries: int  # this one included


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What an errand brought: an answer, or why there is none."""

    answer: bytes | None
    failure: str | None


async def ask(connection: Connection, url: str, kind: Kind) -> None:
    """Have something fetched, unless it was asked for already; of certificates no more than so many at once."""
    await connection.execute(statement("errands.ask"), url, kind, MOST_OPEN)


async def find(connection: Connection, url: str) -> Ended | None:
    """Return what an errand brought, None if it has not ended or there is none."""
    row = await connection.fetchrow(statement("errands.find"), url)
    if row is None or (row["answer"] is None and row["failure"] is None):
        return None
    return Ended(answer=row["answer"], failure=row["failure"])


async def take(connection: Connection) -> Errand | None:
    """Take an errand that is due; nobody else has it for a while."""
    row = await connection.fetchrow(statement("errands.take"))
    return None if row is None else Errand(**row)


async def finish(connection: Connection, url: str, *, answer: bytes | None = None, failure: str | None = None) -> None:
    """Say what an errand brought."""
    await connection.execute(statement("errands.finish"), url, answer, None if failure is None else failure[:256])


async def prune(connection: Connection) -> None:
    """Forget what nobody needs any more."""
    await connection.execute(statement("errands.prune"))
