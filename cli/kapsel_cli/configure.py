"""Manifests into configuration rows: read, planned and applied, again and again.

Called by `up` at start, when a file changes, and every minute because keys rotate with time. What is wrong is said, the
rest is applied, and what ran before keeps running.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from kapsel_cli import manifests
from kapsel_cli.manifests import Manifests
from kapsel_resources.plan import plan
from kapsel_store import configuration, replays
from kapsel_store.database import Connection
from kapsel_store.rows import Configuration
from kapsel_store.sealing import SealingKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What came of one round."""

    configuration: Configuration
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    changes: tuple["Change", ...]


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
        # A crash here leaves new replays undeclared until the next round, which finds them still missing.
        await replays.apply(
            connection,
            planned.replays.rows,
            kept=planned.replays.kept,
            complete=planned.replays.complete,
            actor=self.actor,
        )
        after = replace(planned.configuration, generation=generation)
        return Applied(
            configuration=after,
            problems=(*vanished, *read.problems, *(read.locate(problem) for problem in planned.problems)),
            notes=read.notes,
            changes=tuple(changes(before, after)),
        )

    def _vanished(self, read: Manifests, before: Configuration) -> tuple[str, ...]:
        # A checkout in progress, or a volume that is not mounted, looks like a directory that declares nothing.
        # Endpoints that were removed would come back under other URLs: nothing is removed before something is declared.
        if read.resources or not read.complete or not before.endpoints:
            return ()
        return (f"{self.directory}: declares nothing any more; what ran before keeps running",)


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two configurations, in the words of the manifests."""

    what: str  # endpoint, destination, key, relay, log
    name: str
    happened: str  # added, changed, removed

    def __str__(self) -> str:
        return f"{self.what} {self.name} {self.happened}"


def changes(before: Configuration, after: Configuration) -> list[Change]:
    """Return what differs between two configurations."""
    found: list[Change] = []
    for what, old, new in zip(_KINDS, _named(before), _named(after), strict=True):
        found += [Change(what, name, "added") for name in sorted(new.keys() - old.keys())]
        found += [Change(what, name, "changed") for name in sorted(new.keys() & old.keys()) if new[name] != old[name]]
        found += [Change(what, name, "removed") for name in sorted(old.keys() - new.keys())]
    return found


_KINDS: Final = ("relay", "log", "endpoint", "destination", "key")


def _named(of: Configuration) -> tuple[Mapping[str, object], ...]:
    """Return the parts of a configuration by the names that people gave them, in the order of _KINDS."""
    names = {endpoint.id: f"{endpoint.namespace}/{endpoint.name}" for endpoint in of.endpoints}
    return (
        {f"{of.relay.namespace}/{of.relay.name}": of.relay} if of.generation else {},
        {of.log.origin: of.log} if of.log else {},
        {names[endpoint.id]: endpoint for endpoint in of.endpoints},
        {f"{names[row.endpoint_id]} → {row.name}": row for row in of.destinations},
        {f"{row.namespace}/{row.name} version {row.version}": row for row in of.keys},
    )
