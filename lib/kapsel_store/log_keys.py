"""The keys of a log over time: which ones signed it, from when until when, and where each was announced.

The attestor writes, the console publishes. Configuration knows only the keys that are live or will be; what was signed
with those that are gone is judged by what stands here, so nothing is ever taken out.
"""

from dataclasses import dataclass
from uuid import UUID

from kapsel_store.database import Connection
from kapsel_store.queries import statement


@dataclass(frozen=True, slots=True, kw_only=True)
class LogKey:
    """One key of a log."""

    number: int  # in the order in which the log had them, from 1
    public_key: bytes  # 32 bytes
    not_before_ms: int  # the date of the first head that it signed, or from when it was announced to sign
    not_after_ms: int | None = None  # the date of its last head, or of the log's closing; None as long as it signs
    announced_in: int | None = None  # the index of the leaf that announced it; None for a log's first key
    key_id: UUID | None = None  # the KeyRow that it was; None for keys of before this was noted


async def history(connection: Connection, log_id: int) -> list[LogKey]:
    """Return all keys of a log, the oldest first."""
    return [LogKey(**dict(row)) for row in await connection.fetch(statement("log_keys.history"), log_id)]


async def begin(connection: Connection, log_id: int, public_key: bytes, key_id: UUID, timestamp_ms: int) -> None:
    """Note that a key has signed a head of this date; one that is known stays as it is."""
    await connection.execute(statement("log_keys.begin"), log_id, public_key, timestamp_ms, key_id)


async def announce(
    connection: Connection, log_id: int, public_key: bytes, key_id: UUID, *, not_before_ms: int, leaf_index: int
) -> None:
    """Note that a key was announced in a leaf, in the transaction that appends it."""
    await connection.execute(statement("log_keys.announce"), log_id, public_key, not_before_ms, leaf_index, key_id)


async def end(connection: Connection, log_id: int, public_key: bytes, last_ms: int) -> None:
    """Note that a key signs no head any more that is later than this date."""
    await connection.execute(statement("log_keys.end"), log_id, public_key, last_ms)
