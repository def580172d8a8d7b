"""A resource as its status shows it, read leniently: a newer operator may write what this program does not know yet."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of a resource."""

    type: str
    status: str  # True, False or Unknown
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One resource."""

    kind: str
    namespace: str
    name: str
    generation: int
    observed: int  # the generation that the status is about; 0: none
    created: datetime
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    conditions: Mapping[str, Condition]  # by type

    @property
    def place(self) -> str:
        """Return namespace/name."""
        return f"{self.namespace}/{self.name}"

    def is_true(self, condition: str) -> bool:
        """Whether a condition is there and True."""
        return condition in self.conditions and self.conditions[condition].status == "True"


def view(kind: str, value: Mapping[str, Any]) -> View:
    """Return a resource as the API server gave it."""
    metadata, status = value["metadata"], value.get("status") or {}
    conditions = [_condition(one) for one in status.get("conditions") or ()]
    return View(
        kind=kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        generation=metadata.get("generation", 0),
        observed=status.get("observedGeneration", 0),
        created=moment(metadata.get("creationTimestamp")) or _BEGINNING,
        spec=value.get("spec") or {},
        status=status,
        conditions={one.type: one for one in conditions},
    )


def moment(text: object) -> datetime | None:
    """Return an RFC 3339 time, None for anything else."""
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _condition(value: Mapping[str, Any]) -> Condition:
    return Condition(
        type=str(value.get("type")),
        status=str(value.get("status")),
        reason=str(value.get("reason") or ""),
        message=str(value.get("message") or "").rstrip("."),
    )
