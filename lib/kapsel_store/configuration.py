"""Configuration rows: the plan applies them, every process loads and follows them.

`apply` is for kapsel up and the operator, `load` and `Source` for the data plane, which therefore never needs to know
where the configuration came from.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

import asyncpg

from kapsel_runtime.waiting import until
from kapsel_store import audit, hints, specs
from kapsel_store.database import CONFIGURATION_CHANNEL, DELIVERIES_CHANNEL, Connection, Listener, Pool, is_away
from kapsel_store.errors import SealingError, StaleConfigurationError
from kapsel_store.queries import statement
from kapsel_store.rows import (
    CircuitBreaker,
    Configuration,
    DestinationRow,
    KeyRow,
    Policy,
    RelayRow,
)
from kapsel_store.sealing import SealingKeys

logger = logging.getLogger(__name__)

# Newer fields of a destination: absent from its JSON while they are empty, so that an upgrade changes no row.
_LATER: Final = ("filter", "transform", "ordering", "sources", "secret_headers", "tls", "oauth2", "batch")
_BREAKER: Final = CircuitBreaker()
_BREAKER_LATER: Final = ("recovery", "drain", "disable_after", "warn_at")


async def generation(connection: Connection) -> int:
    """Return the generation of the configuration; 0 if none was ever applied."""
    return int(await connection.fetchval(statement("configuration.generation")))


async def load(connection: Connection, sealing: SealingKeys) -> Configuration:
    """Return the whole configuration of one moment; raise SealingError if a key cannot be opened."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        current = await connection.fetchrow(statement("configuration.current"))
        if current is None:
            return Configuration()
        endpoints = await connection.fetch(statement("configuration.endpoints"))
        destinations = await connection.fetch(statement("configuration.destinations"))
        keys = await connection.fetch(statement("configuration.keys"))
    return Configuration(
        generation=current["generation"],
        relay=specs.RELAY.validate_json(current["relay"]),
        log=None if current["log"] is None else specs.LOG.validate_json(current["log"]),
        endpoints=tuple(specs.ENDPOINT.validate_json(row["spec"]) for row in endpoints),
        destinations=tuple(specs.destination(row["spec"], row["policy"]) for row in destinations),
        keys=tuple(_key(row, sealing) for row in keys),
    )


def _key(row: asyncpg.Record, sealing: SealingKeys) -> KeyRow:
    fields = dict(row)
    backend = fields.pop("backend")
    return KeyRow(
        secret=sealing.open(fields.pop("sealed")),
        backend=None if backend is None else specs.BACKEND.validate_json(backend),
        **fields,
    )


def _backend(key: KeyRow) -> str | None:
    return None if key.backend is None else specs.BACKEND.dump_json(key.backend).decode()


async def apply(
    connection: Connection, sealing: SealingKeys, desired: Configuration, *, actor: str, expected: int | None = None
) -> int:
    """Make the rows equal to `desired` in one transaction and return the generation; no change, no write.

    `expected` is the generation that was planned on: raise StaleConfigurationError if it runs no more, for keys that
    another writer has made since would be lost.
    """
    digest = _digest(desired, sealing)
    async with connection.transaction():
        await connection.execute(statement("configuration.lock"))
        current = await connection.fetchrow(statement("configuration.current"))
        if current is not None and current["digest"] == digest:
            return int(current["generation"])
        running = 0 if current is None else current["generation"]
        if expected is not None and expected != running:
            raise StaleConfigurationError(expected, running)
        new = running + 1
        changed = await _write(connection, sealing, desired, new)
        await connection.execute(
            statement("configuration.put_configuration"),
            new,
            digest,
            specs.RELAY.dump_json(desired.relay, exclude=_without(desired.relay)).decode(),
            None if desired.log is None else specs.LOG.dump_json(desired.log).decode(),
        )
        await audit.write(
            connection, actor=actor, action="configuration.apply", subject=f"generation {new}", detail=changed
        )
        await hints.tell(connection, CONFIGURATION_CHANNEL)
        await hints.tell(connection, DELIVERIES_CHANNEL)
    # A crash before the commit leaves the old generation whole; after it, every process finds the new one by polling.
    return new


async def _write(connection: Connection, sealing: SealingKeys, desired: Configuration, new: int) -> dict[str, Any]:
    removed = await connection.fetch(
        statement("configuration.remove_destinations"), [row.id for row in desired.destinations], new
    )
    gone = await connection.fetch(
        statement("configuration.remove_endpoints"), [row.id for row in desired.endpoints], new
    )
    endpoints = desired.endpoints
    written = await connection.fetch(
        statement("configuration.put_endpoints"),
        [row.id for row in endpoints],
        [row.namespace for row in endpoints],
        [row.name for row in endpoints],
        [row.retention for row in endpoints],
        [specs.ENDPOINT.dump_json(row).decode() for row in endpoints],
        new,
    )
    policies = {_policy_id(row.policy): _policy(row.policy).decode() for row in desired.destinations}
    await connection.execute(statement("configuration.put_policies"), list(policies), list(policies.values()), new)
    destinations = desired.destinations
    changed = await connection.fetch(
        statement("configuration.put_destinations"),
        [row.id for row in destinations],
        [row.endpoint_id for row in destinations],
        [row.name for row in destinations],
        [_policy_id(row.policy) for row in destinations],
        [specs.DESTINATION.dump_json(row, exclude={"policy", *_unset(row)}).decode() for row in destinations],
        new,
    )
    await connection.execute(statement("configuration.remove_policies"))
    await connection.execute(statement("configuration.resume_changed"), [row["id"] for row in changed])
    await connection.execute(statement("configuration.cancel_removed"), [row["id"] for row in removed])
    await connection.execute(statement("configuration.forget_limits"), [row["id"] for row in (*removed, *gone)])
    await _write_keys(connection, sealing, desired.keys, new)
    return {"endpoints": [row[0] for row in written], "removed": [row[0] for row in gone]}


async def _write_keys(connection: Connection, sealing: SealingKeys, keys: tuple[KeyRow, ...], new: int) -> None:
    await connection.execute(statement("configuration.remove_keys"), [key.id for key in keys])
    await connection.execute(
        statement("configuration.put_keys"),
        [key.id for key in keys],
        [key.namespace for key in keys],
        [key.name for key in keys],
        [key.version for key in keys],
        [key.algorithm for key in keys],
        [sealing.seal(key.secret) for key in keys],
        [key.public for key in keys],
        [key.not_before for key in keys],
        [key.not_after for key in keys],
        new,
        [_backend(key) for key in keys],
    )


def _unset(row: DestinationRow) -> set[str]:
    return {name for name in _LATER if not getattr(row, name)}


def _without(relay: RelayRow) -> dict[str, bool | set[str]]:
    if relay.proxy is None:
        return {"proxy": True}
    return {"proxy": {"ca_name"}} if relay.proxy.ca_name is None else {}


def _policy_id(policy: Policy) -> UUID:
    """Policies with the same content are one row."""
    return UUID(bytes=hashlib.sha256(_policy(policy)).digest()[:16])


def _policy(policy: Policy) -> bytes:
    return specs.POLICY.dump_json(policy, exclude=_unset_of(policy))


def _unset_of(policy: Policy) -> dict[str, set[str]]:
    breaker = policy.circuit_breaker
    if breaker is None:
        return {}
    return {"circuit_breaker": {name for name in _BREAKER_LATER if getattr(breaker, name) == getattr(_BREAKER, name)}}


def _digest(desired: Configuration, sealing: SealingKeys) -> bytes:
    """Return what tells two configurations apart; keyed, because it covers secrets and is stored beside them."""
    content = {
        "relay": specs.RELAY.dump_python(desired.relay, mode="json", exclude=_without(desired.relay)),
        "log": None if desired.log is None else specs.LOG.dump_python(desired.log, mode="json"),
        "endpoints": [specs.ENDPOINT.dump_python(row, mode="json") for row in desired.endpoints],
        "destinations": [
            specs.DESTINATION.dump_python(
                row, mode="json", exclude={**dict.fromkeys(_unset(row), True), "policy": _unset_of(row.policy)}
            )
            for row in desired.destinations
        ],
        "keys": [
            [str(key.id), key.namespace, key.name, key.version, key.algorithm, key.secret.hex()]
            + [None if value is None else str(value) for value in (key.not_before, key.not_after, key.public)]
            + [_backend(key)]
            for key in desired.keys
        ],
    }
    return sealing.digest(json.dumps(content, sort_keys=True).encode())


class Source:
    """Follows the configuration and keeps the last one that could be loaded."""

    def __init__(self, pool: Pool, sealing: SealingKeys, listener: Listener) -> None:
        self._pool = pool
        self._sealing = sealing
        self._changed = listener.event(CONFIGURATION_CHANNEL)
        self._subscribers: list[Callable[[Configuration], None]] = []
        self.current = Configuration()
        self.loaded = False
        self.reachable = False
        self.problem: str | None = None  # why the newest configuration could not be loaded

    def subscribe(self, callback: Callable[[Configuration], None]) -> None:
        """Call back with each configuration that is loaded from now on."""
        self._subscribers.append(callback)

    async def follow(self, stopping: asyncio.Event) -> None:
        """Load on each hint, and every second if the generation has moved, until `stopping`."""
        while not stopping.is_set():
            self._changed.clear()
            try:
                await self._refresh()
                self.reachable, self.problem = True, None
            except SealingError as error:
                if self.problem is None:
                    logger.exception("a key cannot be opened; keeping generation %d", self.current.generation)
                self.problem = str(error)
            except Exception as error:
                if not is_away(error):
                    raise
                if self.reachable or not self.loaded:
                    logger.warning("the database is away: %s", str(error) or type(error).__name__)
                self.reachable = False
            await until(self._changed, timeout=1.0)

    async def _refresh(self) -> None:
        async with self._pool.acquire(timeout=5) as connection:
            if self.loaded and await generation(connection) == self.current.generation:
                return
            self.current = await load(connection, self._sealing)
        self.loaded = True
        for callback in self._subscribers:
            callback(self.current)
