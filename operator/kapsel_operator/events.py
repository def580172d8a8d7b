"""Kubernetes Events: one when a condition turns, never one for each reconcile or delivery."""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, Literal

from kapsel_operator.apis import DECLARED_BY_KIND, EVENT
from kapsel_operator.cluster import Cluster
from kapsel_operator.errors import ApiError
from kapsel_operator.store import Declared, Said

CONTROLLER: Final = "kapsel.dev/operator"
_LONGEST_NOTE: Final = 1024  # bytes: what the API server takes
_TOLD: Final = ("Ready", "Delivering")
# What a Relay says on its way up. None of it is a warning unless it was Ready before.
_UNDER_WAY: Final = frozenset(
    {"Loading", "NotCreated", "SchemaOutdated", "Migrating", "PodsNotReady", "RollingOut", "LoadBalancerPending"}
)

logger = logging.getLogger(__name__)


class Recorder:
    """Posts Events."""

    def __init__(self, cluster: Cluster, instance: str) -> None:
        self._cluster = cluster
        self._instance = instance

    async def transitions(self, one: Declared, status: Mapping[str, Any]) -> None:
        """Post an Event for each condition that has turned for the worse, or back; one that is lost is lost."""
        for kind, condition in turned(one.told.conditions, status.get("conditions", ())):
            try:
                await self._cluster.create(EVENT, one.identity.namespace, self._event(one, kind, condition))
            except ApiError as error:
                if error.status != 409:  # it was posted before a crash
                    logger.warning("an Event was not posted: %s", error)

    def _event(self, one: Declared, kind: Literal["Normal", "Warning"], condition: Mapping[str, Any]) -> dict[str, Any]:
        identity = one.identity
        what = f"{one.uid} {condition['type']} {condition['reason']} {condition['lastTransitionTime']}"
        name = f"{identity.name[:230].rstrip('-.')}.{hashlib.sha256(what.encode()).hexdigest()[:16]}"
        return {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {"name": name, "namespace": identity.namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "action": condition["type"],
            "reason": condition["reason"],
            "regarding": {
                "apiVersion": DECLARED_BY_KIND[identity.kind].api_version,
                "kind": identity.kind,
                "name": identity.name,
                "namespace": identity.namespace,
                "uid": one.uid,
            },
            "note": note(condition["message"] or f"{condition['type']} is {condition['status']}"),
            "type": kind,
        }


def note(message: str) -> str:
    """Return as much of a message as an Event takes, which counts bytes."""
    return message.encode()[:_LONGEST_NOTE].decode(errors="ignore")


def turned(
    before: Mapping[str, Said], now: tuple[Mapping[str, Any], ...] | list[Mapping[str, Any]]
) -> Iterator[tuple[Literal["Normal", "Warning"], Mapping[str, Any]]]:
    """Yield the conditions that an Event should tell of: trouble that is new, and its end."""
    for condition in now:
        if condition["type"] not in _TOLD:
            continue
        was = before.get(condition["type"])
        if condition["status"] == "False" and (
            was is None or (was.status, was.reason) != ("False", condition["reason"])
        ):
            harmless = condition["reason"] in _UNDER_WAY and (was is None or was.status != "True")
            yield "Normal" if harmless else "Warning", condition
        elif condition["status"] == "True" and was is not None and was.status == "False":
            yield "Normal", condition
