"""What the run beside the peers makes of what was measured."""

from typing import Any

from peers import cell, figures, summary


def run(**found: Any) -> dict[str, Any]:
    return {"accepted": 100, "refused": 0, "failed": 0, "other_cpu_share": 0.0, **found}


FULL = run(accepted_per_s=4000.0)
PACED = run(accept_ms={"p50": 1.5, "p99": 9.0})
THROUGH = run(delivered_per_s=1500.0, usage={"server": {"cpu_s": 0.03}, "postgres": {"cpu_s": 0.02}})
TRIES = run(delivery_ms={"p50": 3.0, "p99": 20.0})


def test_cpu_of_an_event_is_that_of_all_processes_of_the_system() -> None:
    assert round(figures(FULL, PACED, THROUGH, TRIES)["end to end, CPU an event, µs"]) == 500


def test_what_was_not_accepted_counts_in_whichever_part_it_happened() -> None:
    found = figures(FULL | {"refused": 2}, PACED, THROUGH, TRIES | {"failed": 3})
    assert found["webhooks not accepted"] == 5


def test_an_event_that_was_not_delivered_or_twice_is_told() -> None:
    found = figures(FULL, PACED, THROUGH | {"missing": 4}, TRIES | {"missing": 1, "duplicates": 7})
    assert found["events not delivered"] == 5
    assert found["deliveries beyond the first"] == 7


def test_a_system_that_does_not_hold_the_rate_shows_by_what_was_left_when_sending_ended() -> None:
    found = figures(FULL, PACED, THROUGH, TRIES | {"backlog_when_sending_ended": 900})
    assert found["not yet delivered when 300/s ended"] == 900


def test_of_other_programs_the_worst_part_of_a_round_is_told() -> None:
    found = figures(FULL, PACED | {"other_cpu_share": 0.25}, THROUGH | {"other_cpu_share": 0.1}, TRIES)
    assert found["CPU that other programs took, %"] == 25


def test_a_summary_gives_minimum_median_and_maximum_of_the_rounds() -> None:
    assert summary([{"a": 3.0}, {"a": 1.0}, {"a": 2.0}]) == {"a": (1.0, 2.0, 3.0)}


def test_small_figures_are_shown_with_a_decimal_and_large_ones_and_counts_without() -> None:
    assert cell((1.25, 2.0, 30.0)) == "1.2 / 2.0 / 30.0"
    assert cell((1234.5, 2000.4, 3000.6)) == "1,234 / 2,000 / 3,001"
    assert cell((0, 1, 2)) == "0 / 1 / 2"
