"""The keys that a console publishes: of every log, all that ever signed it or will, each with the time it does so.

For the console, which serves them as keys.json and as a JSON Web Key Set. What counts is what the attestor has noted
(kapsel_store.log_keys); the configuration adds when a key that still signs is planned to end.
"""

from datetime import datetime

from kapsel_store import log_keys, tlog
from kapsel_store.database import Connection
from kapsel_store.ids import milliseconds
from kapsel_store.log_keys import LogKey
from kapsel_store.rows import Configuration, KeyRow
from kapsel_verifier.keys import TrustedKey


async def key_set(connection: Connection, configuration: Configuration) -> list[TrustedKey]:
    """Return the keys of all logs, the oldest log and its oldest key first."""
    found: list[TrustedKey] = []
    for log in await tlog.states(connection):
        planned = _planned(configuration, log.origin)
        for one in await log_keys.history(connection, log.id):
            leaf = await _announcement(connection, log.id, one)
            found.append(_published(log.origin, one, planned, leaf))
    declared = configuration.log
    if declared is not None and all(key.name != declared.origin for key in found):
        # Nothing was signed yet: what will be the first key is the oldest that is live.
        found += [_declared(declared.origin, row) for row in _versions(configuration, declared.origin)[:1]]
    return found


def _published(origin: str, key: LogKey, planned: dict[bytes, int], leaf: bytes | None) -> TrustedKey:
    not_after = key.not_after_ms
    if not_after is None and key.public_key in planned:
        not_after = max(planned[key.public_key], key.not_before_ms)
    return TrustedKey(key.public_key, origin, key.not_before_ms, not_after, leaf)


async def _announcement(connection: Connection, log_id: int, key: LogKey) -> bytes | None:
    if key.announced_in is None:
        return None
    (row,) = await tlog.leaves(connection, log_id, key.announced_in, 1)
    return row.leaf


def _planned(configuration: Configuration, origin: str) -> dict[bytes, int]:
    return {
        row.public: _milliseconds(row.not_after)
        for row in _versions(configuration, origin)
        if row.public is not None and row.not_after is not None
    }


def _versions(configuration: Configuration, origin: str) -> list[KeyRow]:
    log = configuration.log
    if log is None or log.origin != origin:
        return []
    return [row for row in log.versions(configuration.keys) if row.public is not None]


def _declared(origin: str, row: KeyRow) -> TrustedKey:
    not_after = None if row.not_after is None else _milliseconds(row.not_after)
    return TrustedKey(row.public or b"", origin, _milliseconds(row.not_before), not_after)


def _milliseconds(moment: datetime) -> int:
    return max(milliseconds(moment), 0)
