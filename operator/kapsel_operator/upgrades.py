"""Which version the pods of a Relay are to run: its own, or the operator's, one Relay after the other.

Pure. A new operator would otherwise replace the pods of all Relays at once; so those that follow its version take turns
by name, and one whose new pods do not come up keeps the others as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kapsel_operator.store import Declared
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.relay import Relay


@dataclass(frozen=True, slots=True)
class Turn:
    """A version, and the Relay that is to be done before this one gets the operator's."""

    version: str
    after: Identity | None = None


def turn(one: Declared, relays: Iterable[Declared], operator: str) -> Turn:
    """Return the version for a Relay; `relays` are all there are, this one too."""
    if isinstance(one.resource, Relay) and one.resource.spec.version is not None:
        return Turn(one.resource.spec.version)
    waiting = sorted(other.identity for other in relays if _waits(other, operator))
    if one.identity not in waiting or waiting[0] == one.identity:
        return Turn(operator)
    return Turn(str(one.status["version"]), after=waiting[0])


def _waits(one: Declared, operator: str) -> bool:
    """Return whether a Relay runs another version than it should.

    One that is stuck anyway keeps nobody waiting, nor does one whose database is away: that may be for good.
    """
    if not isinstance(one.resource, Relay) or one.paused or one.resource.spec.version is not None:
        return False
    said = {kind: condition.status for kind, condition in one.told.conditions.items()}
    if said.get("Stalled") == "True" or said.get("DatabaseReachable") == "False":
        return False
    return one.status.get("version") not in (None, operator)
