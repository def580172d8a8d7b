"""Hints by NOTIFY: there is something to look at. Who listens also polls, so a hint may be lost.

A hint that deliveries are due names their destinations where they are few, so that nobody looks for what it could not
claim; one that says nothing means all of them.
"""

from collections.abc import Collection
from typing import Final
from uuid import UUID

from kapsel_store.database import Connection
from kapsel_store.queries import statement

MOST: Final = 32  # destinations that a hint names: to look for so many costs little


def naming(destination_ids: Collection[UUID]) -> str:
    """Return what a hint says of these destinations."""
    return "" if len(destination_ids) > MOST else " ".join(sorted(map(str, destination_ids)))


def named(said: str) -> list[UUID]:
    """Return the destinations that a hint names; raise ValueError if it says something else."""
    return [UUID(word) for word in said.split()]


async def tell(connection: Connection, channel: str) -> None:
    """Have the listeners of a channel told when the transaction that this is called in commits."""
    await connection.execute(statement("hints.tell"), channel)


async def hint(connection: Connection, channel: str, said: str = "") -> None:
    """Tell the listeners of a channel now; call it outside a transaction."""
    await connection.execute(statement("hints.hint"), channel, said)
