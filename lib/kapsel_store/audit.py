"""The audit table: who changed what. Append-only, and each row carries the hash of the one before it.

The hash of a row is SHA-256 over its previous hash and the canonical JSON of its other fields; the first row's previous
hash is 32 zero bytes.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kapsel_store.database import Connection
from kapsel_store.ids import milliseconds
from kapsel_store.queries import statement

_GENESIS = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One entry of the audit table."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: str  # JSON
    previous: bytes
    hash: bytes


async def write(
    connection: Connection, *, actor: str, action: str, subject: str, detail: Mapping[str, Any] | None = None
) -> None:
    """Append one entry; call it inside the transaction of the change it tells of."""
    await connection.execute(statement("audit.lock"))
    previous = await connection.fetchval(statement("audit.last")) or _GENESIS
    now = datetime.now(UTC)
    text = _canonical(detail or {})
    digest = entry_hash(previous, at=now, actor=actor, action=action, subject=subject, detail=text)
    await connection.execute(statement("audit.write"), now, actor, action, subject, text, previous, digest)


async def page(connection: Connection, *, before: int | None, limit: int) -> list[AuditRow]:
    """Return the newest entries first, those with an id below `before`."""
    rows = await connection.fetch(statement("audit.list"), before if before is not None else 2**62, limit)
    return [AuditRow(**dict(row)) for row in rows]


def entry_hash(previous: bytes, *, at: datetime, actor: str, action: str, subject: str, detail: str) -> bytes:
    """Return the hash an entry must carry."""
    fields = {
        "at": milliseconds(at),
        "actor": actor,
        "action": action,
        "subject": subject,
        "detail": json.loads(detail),
    }
    return hashlib.sha256(previous + _canonical(fields).encode()).digest()


def _canonical(value: Mapping[str, Any]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
