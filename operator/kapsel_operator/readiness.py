"""When a resource is Ready: when running receivers and deliverers have loaded the configuration that holds it.

Pure. A row that was written is not enough, and neither is a pod that runs: each process reports which generation of the
configuration it works with, and only that is believed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from kapsel_operator.conditions import Truth, Verdict
from kapsel_operator.store import Declared, Said
from kapsel_store.processes import ProcessRow
from kapsel_store.rows import Component

# For so long nobody is alarmed: a database that fails over, or pods that are replaced, are back by then.
GRACE: Final = timedelta(seconds=60)
_NEEDED: Final[tuple[Component, ...]] = ("receiver", "deliverer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """The processes of one Relay that are alive, and what to say if that cannot be known."""

    generations: dict[Component, tuple[int, ...]]  # of those that have loaded any: others have not started yet
    away: Verdict | None = None  # the database is
    keep: bool = False  # it is too early to say anything else than what was said last

    def lacking(self, needed: Iterable[Component] = _NEEDED) -> Component | None:
        """Return a component of which no process works."""
        return next((one for one in needed if not self.generations.get(one)), None)

    def behind(self, generation: int, needed: Iterable[Component] = _NEEDED) -> int:
        """Return how many processes have not loaded a generation yet."""
        return sum(loaded < generation for one in needed for loaded in self.generations.get(one, ()))


def plane(rows: Iterable[ProcessRow], *, away: Verdict | None = None, keep: bool = False) -> Plane:
    """Return what the heartbeats say."""
    found: dict[Component, tuple[int, ...]] = {}
    for row in rows:
        if row.generation > 0:
            found[row.component] = (*found.get(row.component, ()), row.generation)
    return Plane(generations=found, away=away, keep=keep)


def ready(one: Declared, generation: int | None, plane: Plane, *, needed: tuple[Component, ...] = _NEEDED) -> Verdict:
    """Return whether a resource is Ready whose rows are in the configuration since `generation`."""
    said = one.told.conditions.get("Ready")
    if plane.keep and said is not None and said.status == "True" and one.told.observed == one.generation:
        return Verdict("Ready", "True", said.reason)
    if plane.away is not None:
        return Verdict("Ready", _worse(said), plane.away.reason, plane.away.message)
    if generation is None:
        return Verdict("Ready", "Unknown", "Loading", "it is about to be written into the configuration")
    lacking = plane.lacking(needed)
    if lacking is not None:
        message = f"no {lacking} of the Relay is at work; see the conditions of the Relay"
        return Verdict("Ready", _worse(said), f"No{lacking.capitalize()}", message)
    behind = plane.behind(generation, needed)
    if behind:
        count = sum(len(plane.generations.get(component, ())) for component in needed)
        message = f"{behind} of {count} processes have not loaded generation {generation} of the configuration yet"
        return Verdict("Ready", "Unknown", "Loading", message)
    return Verdict("Ready", "True", "Accepted")


def _worse(said: Said | None) -> Truth:
    """Return what to say of a resource that is not in force: what never was is not broken, but on its way."""
    return "Unknown" if said is None or said.status == "Unknown" else "False"
