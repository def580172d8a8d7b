"""The circuit of a destination, as a pure function and as a walk of many steps."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.circuit import Observed, counts_as_failure, disable, observe, take_probes
from kapsel_deliverer.outcome import Delivered, Denied, Outcome, Refused, TimedOut, Unacknowledged, Unreachable, Unsent
from kapsel_store.circuits import CircuitRow
from kapsel_store.rows import CircuitBreaker

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BREAKER = CircuitBreaker(
    failure_ratio=0.5, min_attempts=10, window=timedelta(minutes=1), open_for=timedelta(seconds=30), probes=3
)
CLOSED = CircuitRow(destination_id=UUID(int=1), window_started_at=NOW)
OPEN = replace(CLOSED, state="open", open_until=NOW + timedelta(seconds=30))
HALF_OPEN = replace(CLOSED, state="half_open", open_until=NOW + timedelta(seconds=30), probes_left=1)


def at(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def test_it_stays_closed_below_the_least_number_of_attempts() -> None:
    assert observe(CLOSED, BREAKER, Observed(failures=9), at(1)) == replace(CLOSED, attempts=9, failures=9)


def test_it_opens_at_the_ratio() -> None:
    assert observe(CLOSED, BREAKER, Observed(successes=6, failures=5), at(1)).state == "closed"
    opened = observe(CLOSED, BREAKER, Observed(successes=5, failures=5), at(1))
    assert (opened.state, opened.open_until) == ("open", at(31))


def test_failures_add_up_within_the_window_and_not_beyond() -> None:
    some = observe(CLOSED, BREAKER, Observed(failures=9), at(1))
    assert observe(some, BREAKER, Observed(failures=1), at(59)).state == "open"
    anew = observe(some, BREAKER, Observed(failures=1), at(60))
    assert (anew.state, anew.attempts, anew.window_started_at) == ("closed", 1, at(60))


def test_results_of_tries_that_were_under_way_do_not_prolong_an_open_circuit() -> None:
    assert observe(OPEN, BREAKER, Observed(failures=100), at(20)) == OPEN


def test_an_open_circuit_gives_no_probes_before_its_time() -> None:
    assert take_probes(OPEN, BREAKER, at(29)) == (OPEN, 0)


def test_then_it_gives_as_many_as_the_policy_says_and_no_more() -> None:
    half_open, taken = take_probes(OPEN, BREAKER, at(30))
    assert (half_open.state, taken) == ("half_open", 3)
    assert take_probes(half_open, BREAKER, at(31))[1] == 0


def test_probes_whose_taker_died_are_given_out_again() -> None:
    half_open, _ = take_probes(OPEN, BREAKER, at(30))
    assert take_probes(half_open, BREAKER, at(59))[1] == 0
    assert take_probes(half_open, BREAKER, at(60))[1] == 3


def test_a_failed_probe_opens_it_again() -> None:
    opened = observe(HALF_OPEN, BREAKER, Observed(probe_successes=2, probe_failures=1), at(3))
    assert (opened.state, opened.open_until) == ("open", at(33))


def test_enough_good_probes_close_it() -> None:
    half_open = observe(HALF_OPEN, BREAKER, Observed(probe_successes=2), at(3))
    assert (half_open.state, half_open.probe_successes) == ("half_open", 2)
    closed = observe(half_open, BREAKER, Observed(probe_successes=1), at(4))
    assert closed == replace(CLOSED, window_started_at=at(4))


def test_only_probes_decide_a_half_open_circuit() -> None:
    assert observe(HALF_OPEN, BREAKER, Observed(successes=100, failures=100), at(3)) == HALF_OPEN


def test_a_disabled_destination_gets_no_probes_and_keeps_its_first_reason() -> None:
    disabled = disable(OPEN, at(1), "gone")
    assert (disabled.disabled_at, disabled.disabled_reason) == (at(1), "gone")
    assert disable(disabled, at(2), "other") == disabled
    assert take_probes(disabled, BREAKER, at(60)) == (disabled, 0)


@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        (Delivered(status=200), False),
        (Refused(status=500), True),
        (Refused(status=401), True),
        (Unreachable(reason="reset"), True),
        (Unacknowledged(status=200, reason="acknowledgement_invalid"), True),
        (TimedOut(phase="response"), True),
        (Denied(reason="address_denied", detail=""), None),
        (Unsent(reason="internal"), None),
    ],
)
def test_only_what_the_destination_did_counts(outcome: Outcome, counts: bool | None) -> None:
    assert counts_as_failure(outcome) is counts


STEPS = st.lists(
    st.tuples(
        st.floats(0, 100),
        st.one_of(
            st.none(),
            st.builds(
                Observed,
                successes=st.integers(0, 20),
                failures=st.integers(0, 20),
                probe_successes=st.integers(0, 3),
                probe_failures=st.integers(0, 3),
            ),
        ),
    ),
    max_size=30,
)


@given(STEPS)
def test_whatever_happens_the_row_satisfies_the_databases_checks(
    steps: list[tuple[float, Observed | None]],
) -> None:
    row, now = CLOSED, NOW
    taken = 0
    for seconds, observed in steps:
        now += timedelta(seconds=seconds)
        if observed is None:
            row, taken = take_probes(row, BREAKER, now)
        else:
            row = observe(row, BREAKER, observed, now)
        assert (row.state == "closed") == (row.open_until is None)
        assert 0 <= row.failures <= row.attempts
        assert row.probes_left >= 0
        assert 0 <= row.probe_successes < BREAKER.probes
        assert taken <= BREAKER.probes
