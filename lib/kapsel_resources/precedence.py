"""Which limits and retries hold for a destination, and who said so: destination, RetryPolicy, Relay, kapsel itself.

Called by `endpoints` for each destination; the result is the row, its sources included, so that whoever reads the row
can say where a value comes from. A member is taken whole from the nearest level that writes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from kapsel_resources.kinds.limits import Defaults
from kapsel_resources.kinds.model import Model
from kapsel_resources.kinds.retry_policy import RetryPolicy, RetryPolicySpec
from kapsel_resources.kinds.webhook_endpoint import Destination
from kapsel_store import rows

DESTINATION: Final = "destination"
RELAY: Final = "Relay"
_LIMITS: Final = ("timeout", "max_in_flight", "rate_limit")
_KAPSEL: Final = rows.DestinationRow(id=UUID(int=0), endpoint_id=UUID(int=0), name="", url="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """What holds for a destination."""

    policy: rows.Policy
    timeout: timedelta
    max_in_flight: int
    rate_limit: rows.RateLimit | None
    # (member by its name in a manifest, "destination" | "RetryPolicy NAME" | "Relay"); others have kapsel's default
    sources: tuple[tuple[str, str], ...]


def resolve(destination: Destination, policy: RetryPolicy | None, relay: Defaults) -> Effective:
    """Return what holds for a destination: its own word before its RetryPolicy's, and that before the Relay's."""
    retry = _nearest(
        (DESTINATION, _written(destination.retry)),
        (
            "" if policy is None else f"RetryPolicy {policy.metadata.name}",
            _written(None if policy is None else policy.spec),
        ),
        (RELAY, _written(relay.retry)),
    )
    own, common = _written(destination), _written(relay)
    limits = _nearest((DESTINATION, _only(own, _LIMITS)), (RELAY, _only(common, _LIMITS)))
    rate_limit = limits.get("rate_limit")
    aliases = {
        name: field.alias or name for kind in (RetryPolicySpec, Defaults) for name, field in kind.model_fields.items()
    }
    return Effective(
        policy=RetryPolicySpec().model_copy(update={name: value for name, (_, value) in retry.items()}).policy(),
        timeout=limits["timeout"][1] if "timeout" in limits else _KAPSEL.timeout,
        max_in_flight=limits["max_in_flight"][1] if "max_in_flight" in limits else _at_once(destination),
        rate_limit=rate_limit[1].row() if rate_limit else None,
        sources=tuple(sorted((aliases[name], source) for name, (source, _) in (retry | limits).items())),
    )


def _at_once(destination: Destination) -> int:
    """Return how many may be under way where nobody says: a full batch at least."""
    return max(_KAPSEL.max_in_flight, destination.batch.max_events if destination.batch else 0)


def _written(model: Model | None) -> Mapping[str, Any]:
    """Return the fields that a manifest writes, whatever their defaults."""
    return {} if model is None else {name: getattr(model, name) for name in model.model_fields_set}


def _only(values: Mapping[str, Any], names: tuple[str, ...]) -> Mapping[str, Any]:
    return {name: value for name, value in values.items() if name in names}


def _nearest(*levels: tuple[str, Mapping[str, Any]]) -> dict[str, tuple[str, Any]]:
    """Return each member with the first level that writes it."""
    found: dict[str, tuple[str, Any]] = {}
    for source, values in levels:
        for name, value in values.items():
            found.setdefault(name, (source, value))
    return found
