"""What the operator remembers of one Relay from one reconcile to the next. All of it can be lost at any time."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from kapsel_operator.gather import Look
from kapsel_operator.planned import Planned
from kapsel_resources.kinds.model import Identity
from kapsel_store.overview import Doing

CHECKED_EVERY: Final = 600.0  # seconds between two looks at a Secret of a generated key
CHECKS_A_SECOND: Final = 5  # of such Secrets, however many there are
TAKEN_EVERY: Final = 60.0  # seconds between two looks at one that is somebody else's: that may have been mended
NOT_OURS: Final = b""  # in place of its digest
REFUSED: Final = b"refused"  # in place of it, too: the API server does not take the Secret


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
    # Of the resource that a generated key belongs to: the digest of its Secret, empty if somebody else has one of that
    # name, and when it was looked at.
    key_secrets: dict[Identity, tuple[bytes, float]] = field(default_factory=dict)
    refusals: dict[Identity, str] = field(default_factory=dict)  # why the API server does not take a Secret of those
    shown: Shown | None = None

    def nameless(self) -> frozenset[Identity]:
        """Return the resources whose key is in no Secret, because somebody else has one of that name."""
        return frozenset(identity for identity, (found, _) in self.key_secrets.items() if found == NOT_OURS)

    def is_key_due(self, now: float) -> bool:
        """Return whether the Secret of a generated key has not been looked at for a while."""
        return any(self.is_key_to_check(identity, found, now) for identity, (found, _) in self.key_secrets.items())

    def is_key_to_check(self, identity: Identity, wanted: bytes, now: float) -> bool:
        """Return whether the Secret of a generated key is to be looked at, which should have the digest `wanted`."""
        found, checked = self.key_secrets.get(identity, (NOT_OURS, float("-inf")))
        if found in (NOT_OURS, REFUSED):
            return now - checked > TAKEN_EVERY
        return found != wanted or now - checked > max(CHECKED_EVERY, len(self.key_secrets) / CHECKS_A_SECOND)

    def forget_keys_but(self, living: Container[Identity]) -> None:
        """Forget the keys of resources that are gone, which nobody will ever look at again."""
        self.key_secrets = {identity: known for identity, known in self.key_secrets.items() if identity in living}
        self.refusals = {identity: why for identity, why in self.refusals.items() if identity in living}

    def about(self, url: str | None) -> None:
        """Forget everything about another database."""
        if self.url != url:
            self.url, self.look, self.planned, self.doing, self.doing_at, self.shown = url, None, None, {}, None, None
