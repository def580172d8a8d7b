"""Whether the other side answers: as the destination says that is worst off."""

from datetime import timedelta
from uuid import UUID

import pytest

from kapsel_operator.planned import DestinationView
from kapsel_operator.statuses import delivering, state
from kapsel_store.overview import Doing

WORKS = Doing(attempts=5, delivered=4)


def destination(name: str = "billing", *, suspend: bool = False) -> DestinationView:
    return DestinationView(id=UUID(int=1), name=name, suspend=suspend)


@pytest.mark.parametrize(
    ("doing", "expected"),
    [
        (Doing(), "Idle"),
        (WORKS, "Delivering"),
        (Doing(pending=3, oldest=timedelta(seconds=4)), "Delivering"),
        (Doing(attempts=1), "Failing"),
        (Doing(attempts=40, circuit_open=True), "CircuitOpen"),
        (Doing(attempts=40, circuit_open=True, warned=True), "DisableWarning"),
        (Doing(warned=True), "DisableWarning"),
        (Doing(attempts=1, circuit_open=True, disabled="gone"), "Disabled"),
        (Doing(attempts=1, warned=True, disabled="failing"), "Disabled"),
    ],
)
def test_a_destination_does_as_its_recent_tries_say(doing: Doing, expected: str) -> None:
    assert state(destination(), doing) == expected


def test_what_its_manifest_suspends_is_not_blamed_for_failing() -> None:
    assert state(destination(suspend=True), Doing(attempts=3)) == "Suspended"


def test_an_endpoint_whose_every_try_failed_is_not_delivering_although_its_circuit_is_closed() -> None:
    verdict = delivering([(destination("mailer"), WORKS), (destination("ledger"), Doing(attempts=2))])
    assert (verdict.status, verdict.reason) == ("False", "Failing")
    assert verdict.message == "every recent try failed: ledger"


def test_a_circuit_that_is_open_says_more_than_tries_that_failed() -> None:
    verdict = delivering([(destination("a"), Doing(attempts=2)), (destination("b"), Doing(circuit_open=True))])
    assert (verdict.reason, "b" in verdict.message) == ("CircuitOpen", True)


def test_a_destination_that_will_be_disabled_is_named_before_one_whose_circuit_is_open() -> None:
    verdict = delivering([(destination("a"), Doing(circuit_open=True)), (destination("b"), Doing(warned=True))])
    assert (verdict.status, verdict.reason) == ("False", "DisableWarning")
    assert verdict.message == "only fails, and is disabled soon if it goes on like this: b"
