"""When a Relay is due again, if nothing changes before."""

from datetime import UTC, datetime, timedelta
from typing import Any

from kapsel_operator.reconcile import again
from kapsel_operator.workqueue import Again

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OVERDUE = NOW - timedelta(hours=1)


def status(ready: str, *, stalled: bool = False) -> dict[str, Any]:
    more = [{"type": "Stalled", "status": "True"}] if stalled else []
    return {"conditions": [{"type": "Ready", "status": ready}, *more]}


def test_what_is_under_way_is_looked_at_soon_and_then_less_often() -> None:
    for ready in ("False", "Unknown"):
        assert again(status(ready), settled=True, until=None, now=NOW, interval=30) == Again(after=30, patient=True)
    assert again(status("True"), settled=False, until=None, now=NOW, interval=30) == Again(after=30, patient=True)


def test_a_key_that_is_due_before_brings_a_relay_back() -> None:
    soon = NOW + timedelta(seconds=7)
    assert again(status("True"), settled=True, until=soon, now=NOW, interval=30) == Again(after=7)


def test_a_plan_that_is_overdue_because_nobody_can_make_it_is_no_reason_to_hurry() -> None:
    # Postgres refuses the password for hours: the last plan is long over, and trying ten times a second helps nobody.
    found = again(status("False", stalled=True), settled=True, until=OVERDUE, now=NOW, interval=30)
    assert found == Again(after=30)
    assert again(status("True"), settled=True, until=OVERDUE, now=NOW, interval=30) == Again(after=30)
