"""The pure rules of the console: readiness, a fresh circuit, problem codes, what may not be shown."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import uuid4

import pytest

from kapsel_console.actions import fresh
from kapsel_console.codes import PROBLEMS, Code
from kapsel_console.documents import readiness
from kapsel_console.settings import ConsoleSettings
from kapsel_store.circuits import CircuitRow
from kapsel_store.processes import ProcessRow

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def process(component: str, generation: int) -> ProcessRow:
    return ProcessRow(
        component=component, instance=str(uuid4()), address="", generation=generation, started_at=NOW, seen_at=NOW
    )


@pytest.mark.parametrize(
    ("alive", "expected"),
    [
        ([], (False, "NoReceiver")),
        ([process("deliverer", 3)], (False, "NoReceiver")),
        ([process("receiver", 3)], (False, "NoDeliverer")),
        ([process("receiver", 3), process("deliverer", 3)], (True, "Loaded")),
        ([process("receiver", 4), process("deliverer", 3), process("attestor", 1)], (True, "Loaded")),
        ([process("receiver", 3), process("receiver", 2), process("deliverer", 3)], (False, "Loading")),
        ([process("receiver", 3), process("deliverer", 2)], (False, "Loading")),
    ],
)
def test_ready_means_that_all_who_matter_have_loaded_it(alive: list[ProcessRow], expected: tuple[bool, str]) -> None:
    assert readiness(3, alive) == expected


def test_resuming_closes_the_circuit_and_leaves_a_fresh_one_alone() -> None:
    closed = CircuitRow(destination_id=uuid4(), window_started_at=NOW, attempts=3, failures=1)
    later = NOW + timedelta(minutes=1)
    assert fresh(closed, later) is closed
    for stopped in (
        replace(closed, state="open", open_until=later),
        replace(closed, state="half_open", open_until=later, probes_left=1),
        replace(closed, disabled_at=NOW, disabled_reason="gone"),
    ):
        resumed = CircuitRow(destination_id=closed.destination_id, window_started_at=later, recovering_since=later)
        assert fresh(stopped, later) == resumed


def test_every_code_has_a_status_and_a_title() -> None:
    assert set(PROBLEMS) == set(get_args(Code))
    assert all(400 <= status < 600 and title for status, title in PROBLEMS.values())


def test_nobody_exposes_the_api_by_accident() -> None:
    field = ConsoleSettings.model_fields["console_host"]
    assert field.default == "127.0.0.1"
    assert "set `KAPSEL_CONSOLE_TOKEN_FILE`" in (field.description or "")
