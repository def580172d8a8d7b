"""What the operator remembers of one Relay from one reconcile to the next. All of it can be lost at any time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from kapsel_operator.gather import Look
from kapsel_operator.planned import Planned
from kapsel_store.overview import Doing


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the statuses of a Relay's resources came to."""

    endpoints: int
    unhealthy: int
    settled: bool  # nothing of them is under way


@dataclass(frozen=True, slots=True)
class Shown:
    """From what the statuses were made that stand there now."""

    revision: int  # of all statuses, as the caches have them
    basis: tuple[Any, ...]
    told: Told


@dataclass(slots=True)
class Memory:
    """One Relay."""

    uid: str
    url: str | None = None  # of the database that the rest is about
    look: Look | None = None  # the last one that succeeded
    planned: Planned | None = None
    doing: Mapping[UUID, Doing] = field(default_factory=dict)
    doing_at: float | None = None  # when that was read, by the loop's clock
    away_since: float | None = None  # since when the database has not answered
    lacking_since: float | None = None  # since when no receiver or no deliverer has been at work
    maintained_at: float | None = None
    key_secrets: dict[tuple[str, str], tuple[bytes, float]] = field(default_factory=dict)  # digest, and when checked
    shown: Shown | None = None

    def about(self, url: str | None) -> None:
        """Forget everything about another database."""
        if self.url != url:
            self.url, self.look, self.planned, self.doing, self.doing_at, self.shown = url, None, None, {}, None, None
