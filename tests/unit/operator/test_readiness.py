"""Ready is what running processes say, and nothing else."""

from datetime import UTC, datetime
from typing import Any

import pytest

from kapsel_operator.conditions import Verdict
from kapsel_operator.readiness import Plane, plane, ready
from kapsel_operator.store import Declared, declared
from kapsel_store.processes import ProcessRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def endpoint(said: str | None = None, *, observed: int = 3) -> Declared:
    status: dict[str, Any] = {}
    if said is not None:
        condition = {"type": "Ready", "status": said, "reason": "Accepted", "message": "", "lastTransitionTime": ""}
        status = {"observedGeneration": observed, "conditions": [condition]}
    metadata = {"name": "orders", "namespace": "shop", "uid": "u", "resourceVersion": "1", "generation": 3}
    spec = {"verification": {"none": {}}, "destinations": []}
    kind = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "WebhookEndpoint"}
    return declared({**kind, "metadata": metadata, "spec": spec, "status": status})


def running(*processes: tuple[str, int]) -> Plane:
    return plane(
        ProcessRow(
            component=component,  # type: ignore[arg-type]
            instance=str(number),
            address="",
            generation=generation,
            started_at=NOW,
            seen_at=NOW,
        )
        for number, (component, generation) in enumerate(processes)
    )


AWAY = Verdict("Ready", "False", "DatabaseUnreachable", "gone")


@pytest.mark.parametrize(
    ("processes", "status", "reason"),
    [
        ([("receiver", 5), ("deliverer", 5)], "True", "Accepted"),
        ([("receiver", 6), ("deliverer", 5)], "True", "Accepted"),
        ([("receiver", 5), ("deliverer", 4)], "Unknown", "Loading"),
        ([("receiver", 5), ("receiver", 4), ("deliverer", 5)], "Unknown", "Loading"),
        ([("deliverer", 5)], "Unknown", "NoReceiver"),
        ([("receiver", 5), ("attestor", 5), ("console", 5)], "Unknown", "NoDeliverer"),
        # One that has loaded nothing yet is on its way up: it takes no webhook, and says nothing about the others.
        ([("receiver", 5), ("receiver", 0), ("deliverer", 5)], "True", "Accepted"),
    ],
)
def test_ready_needs_every_process_of_both_kinds(processes: list[tuple[str, int]], status: str, reason: str) -> None:
    verdict = ready(endpoint(), 5, running(*processes))
    assert (verdict.status, verdict.reason) == (status, reason)


def test_what_was_ready_is_not_when_nobody_works() -> None:
    assert ready(endpoint("True"), 5, running(("receiver", 5))).status == "False"


def test_a_database_that_is_away_is_no_reason_to_say_otherwise_for_a_while() -> None:
    before = Plane(generations={}, away=AWAY, keep=True)
    assert ready(endpoint("True"), 5, before).status == "True"
    assert ready(endpoint("True"), 5, Plane(generations={}, away=AWAY)).reason == "DatabaseUnreachable"


def test_what_was_declared_since_cannot_be_ready_while_the_database_is_away() -> None:
    before = Plane(generations={}, away=AWAY, keep=True)
    assert ready(endpoint("True", observed=2), 5, before).status == "False"
    assert ready(endpoint(), None, before).status == "Unknown"
