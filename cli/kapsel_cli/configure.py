"""Manifests into configuration rows: read, planned and applied, again and again.

Called by `up` at start, when a file changes, and every minute because keys rotate with time. What is wrong is said, the
rest is applied, and what ran before keeps running.
"""

import secrets
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from kapsel_cli import manifests
from kapsel_cli.manifests import Manifests
from kapsel_resources.plan import plan
from kapsel_store import configuration
from kapsel_store.database import Connection
from kapsel_store.rows import Configuration
from kapsel_store.sealing import SealingKeys

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What came of one round."""

    configuration: Configuration
    generation: int
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Desired:
    """Which manifests make which Relay, and who applies them."""

    directory: Path
    sealing: SealingKeys
    relay: tuple[str, str] | None
    actor: str

    async def apply(self, connection: Connection, now: datetime) -> Applied:
        """Bring the configuration to what the manifests say."""
        before = await configuration.load(connection, self.sealing)
        read = manifests.read(self.directory)
        vanished = self._vanished(read, before)
        planned = plan(
            read.resources,
            existing=before,
            now=now,
            entropy=secrets.token_bytes,
            relay=self.relay,
            broken=read.broken,
            complete=read.complete and not vanished,
        )
        generation = await configuration.apply(connection, self.sealing, planned.configuration, actor=self.actor)
        return Applied(
            configuration=planned.configuration,
            generation=generation,
            problems=(*vanished, *read.problems, *(read.locate(problem) for problem in planned.problems)),
            notes=read.notes,
            changes=tuple(changes(before, planned.configuration)),
        )

    def _vanished(self, read: Manifests, before: Configuration) -> tuple[str, ...]:
        # A checkout in progress, or a volume that is not mounted, looks like a directory that declares nothing.
        # Endpoints that were removed would come back under other URLs: nothing is removed before something is declared.
        if read.resources or not read.complete or not before.endpoints:
            return ()
        return (f"{self.directory}: declares nothing any more; what ran before keeps running",)


def changes(before: Configuration, after: Configuration) -> list[str]:
    """Return what differs, one line each, in the words of the manifests."""
    names = {endpoint.id: f"{endpoint.namespace}/{endpoint.name}" for endpoint in (*before.endpoints, *after.endpoints)}
    lines = _compared(
        "endpoint",
        {names[endpoint.id]: endpoint for endpoint in before.endpoints},
        {names[endpoint.id]: endpoint for endpoint in after.endpoints},
    )
    lines += _compared(
        "destination",
        {f"{names[row.endpoint_id]} → {row.name}": row for row in before.destinations},
        {f"{names[row.endpoint_id]} → {row.name}": row for row in after.destinations},
    )
    lines += _compared(
        "key",
        {f"{row.namespace}/{row.name} version {row.version}": row for row in before.keys},
        {f"{row.namespace}/{row.name} version {row.version}": row for row in after.keys},
    )
    if before.relay != after.relay:
        lines.append(f"relay {after.relay.namespace}/{after.relay.name} changed")
    if before.log != after.log:
        lines.append(f"log {after.log.origin} changed" if after.log else "the log is gone")
    return lines


def _compared(what: str, before: Mapping[str, V], after: Mapping[str, V]) -> list[str]:
    return [
        *_named(what, after.keys() - before.keys(), "added"),
        *_named(what, before.keys() - after.keys(), "removed"),
        *_named(what, (name for name in before.keys() & after.keys() if before[name] != after[name]), "changed"),
    ]


def _named(what: str, names: Iterable[str], happened: str) -> list[str]:
    return [f"{what} {name} {happened}" for name in sorted(names)]
