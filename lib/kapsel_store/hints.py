"""Hints by NOTIFY: there is something to look at. Who listens also polls, so a hint may be lost."""

from kapsel_store.database import Connection
from kapsel_store.queries import statement


async def tell(connection: Connection, channel: str) -> None:
    """Have the listeners of a channel told when the transaction that this is called in commits."""
    await connection.execute(statement("hints.tell"), channel)


async def hint(connection: Connection, channel: str) -> None:
    """Tell the listeners of a channel now; call it outside a transaction."""
    await connection.execute(statement("hints.hint"), channel)
