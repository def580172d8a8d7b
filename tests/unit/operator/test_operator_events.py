"""Which turns of a condition are worth an Event, and which of them a warning."""

import pytest

from kapsel_operator.events import note, turned
from kapsel_operator.store import Said


def told(before: Said | None, status: str, reason: str, kind: str = "Ready") -> list[str]:
    condition = {"type": kind, "status": status, "reason": reason}
    return [type_ for type_, _ in turned({} if before is None else {kind: before}, [condition])]


def said(status: str, reason: str) -> Said:
    return Said(status=status, reason=reason, since="2026-03-01T12:00:00Z")


@pytest.mark.parametrize(
    ("before", "status", "reason", "expected"),
    [
        (None, "False", "SecretNotFound", ["Warning"]),
        (said("True", "Available"), "False", "DatabaseUnreachable", ["Warning"]),
        (said("False", "SecretNotFound"), "False", "SecretNotFound", []),
        (said("False", "SecretNotFound"), "False", "Migrating", ["Normal"]),
        (None, "False", "PodsNotReady", ["Normal"]),
        (said("True", "Available"), "False", "PodsNotReady", ["Warning"]),
        (said("False", "PodsNotReady"), "True", "Available", ["Normal"]),
        (said("Unknown", "Loading"), "True", "Accepted", []),
        (said("True", "Accepted"), "True", "Available", []),
        (said("True", "Available"), "Unknown", "RollingOut", []),
    ],
)
def test_a_turn_for_the_worse_is_a_warning_unless_it_is_on_the_way_up(
    before: Said | None, status: str, reason: str, expected: list[str]
) -> None:
    assert told(before, status, reason) == expected


def test_conditions_besides_ready_and_delivering_are_not_told() -> None:
    assert told(None, "False", "PodsNotReady", kind="ReceiverAvailable") == []
    assert told(said("True", "Delivering"), "False", "CircuitOpen", kind="Delivering") == ["Warning"]


def test_an_event_takes_so_many_bytes_and_no_half_characters() -> None:
    assert note("short") == "short"
    assert note("e" * 1025) == "e" * 1024
    assert note("\u00e9" * 1000) == "\u00e9" * 512
    assert note("x" + "\u00e9" * 1000) == "x" + "\u00e9" * 511
