"""Conditions: what is said of a resource, and since when."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from kapsel_operator.store import Told
from kapsel_resources.kinds.status import Condition, Status

_LONGEST = 4096  # characters of a message: what is longer, nobody reads

Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One condition as it should be, without its times."""

    type: str
    status: Truth
    reason: str
    message: str = ""


def conditions(verdicts: Iterable[Verdict], before: Told, generation: int, now: datetime) -> tuple[Condition, ...]:
    """Return the conditions by type; the time of one moves only when its status does."""
    return tuple(
        Condition(
            type=one.type,
            status=one.status,
            reason=one.reason,
            message=one.message[:_LONGEST],
            last_transition_time=_since(one, before, now),
            observed_generation=generation,
        )
        for one in sorted(verdicts, key=lambda one: one.type)
    )


def _since(one: Verdict, before: Told, now: datetime) -> datetime:
    said = before.conditions.get(one.type)
    if said is not None and said.status == one.status:
        return datetime.fromisoformat(said.since)
    return now.replace(microsecond=0)


def stalled(reason: str, message: str) -> tuple[Verdict, Verdict]:
    """Return what is said of a resource that only a person can help: not Ready, and not about to be."""
    return Verdict("Ready", "False", reason, message), Verdict("Stalled", "True", reason, message)


def document(status: Status) -> dict[str, Any]:
    """Return what goes into the status of an object: what is empty is left out, as the API server would show it."""
    return {name: value for name, value in status.document().items() if value not in ([], {})}
