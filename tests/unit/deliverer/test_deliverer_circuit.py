"""The circuit of a destination, as a pure function and as a walk of many steps."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.circuit import (
    Observed,
    counts_as_failure,
    disable,
    observe,
    recovered,
    take_probes,
)
from kapsel_deliverer.outcome import Delivered, Denied, Outcome, Refused, TimedOut, Unacknowledged, Unreachable, Unsent
from kapsel_store.circuits import CircuitRow
from kapsel_store.rows import CircuitBreaker, RateLimit
from kapsel_store.schedule import next_step, recovery

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
    assert observe(CLOSED, BREAKER, Observed(failures=9), at(1)) == replace(
        CLOSED, attempts=9, failures=9, failing_since=at(1)
    )


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
    assert observe(OPEN, BREAKER, Observed(failures=100), at(20)) == replace(OPEN, failing_since=at(20))


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
    assert closed == replace(CLOSED, window_started_at=at(4), recovering_since=at(4))
    assert observe(half_open, replace(BREAKER, recovery=timedelta(0)), Observed(probe_successes=1), at(4)) == replace(
        CLOSED, window_started_at=at(4)
    )


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
        assert row.recovering_since is None or row.state == "closed"
        assert row.warned_at is None or row.failing_since is not None
        assert (row.disabled_at is None) == (row.disabled_reason is None)


# Recovery


RECOVERING = replace(CLOSED, recovering_since=NOW)


def rate(breaker: CircuitBreaker, seconds: float) -> float | None:
    found = recovery(RECOVERING, breaker, at(seconds))
    return None if found is None else found.requests_per_second


def test_traffic_comes_back_in_steps_each_twice_as_fast_and_then_all_of_it() -> None:
    breaker = replace(BREAKER, recovery=timedelta(seconds=10), probes=3)
    assert [rate(breaker, seconds) for seconds in (0, 1.9, 2, 4, 6, 8, 9.9)] == [3, 3, 6, 12, 24, 48, 48]
    assert rate(breaker, 10) is None
    assert recovery(RECOVERING, breaker, at(0)) == RateLimit(requests_per_second=3, burst=3)
    assert recovery(CLOSED, breaker, at(0)) is None


def test_a_process_whose_clock_is_behind_is_at_the_first_step_and_at_none_if_there_are_none() -> None:
    assert rate(replace(BREAKER, recovery=timedelta(seconds=10), probes=3), -1) == 3
    assert rate(replace(BREAKER, recovery=timedelta(0), probes=3), -1) is None


def test_a_drain_bounds_the_steps_and_holds_until_what_waited_is_sent() -> None:
    breaker = replace(BREAKER, recovery=timedelta(seconds=10), probes=3, drain=10.0)
    assert [rate(breaker, seconds) for seconds in (0, 2, 4, 9, 10, 1000)] == [3, 6, 10, 10, 10, 10]
    assert recovered(RECOVERING, breaker, at(1000), drained=False) == RECOVERING
    assert recovered(RECOVERING, breaker, at(9), drained=True) == RECOVERING
    assert recovered(RECOVERING, breaker, at(10), drained=True) == CLOSED


def test_without_a_drain_a_recovery_is_over_with_its_time() -> None:
    assert recovered(RECOVERING, BREAKER, at(29), drained=True) == RECOVERING
    assert recovered(RECOVERING, BREAKER, at(30), drained=False) == CLOSED


def test_who_fails_again_while_it_recovers_is_let_down_by_few_tries() -> None:
    assert observe(RECOVERING, BREAKER, Observed(failures=2), at(5)).state == "closed"
    again = observe(RECOVERING, BREAKER, Observed(failures=3), at(5))
    assert (again.state, again.recovering_since) == ("open", None)


@given(st.floats(0.001, 1000), st.integers(1, 100), st.one_of(st.none(), st.floats(0.1, 100)), st.floats(0, 1000))
def test_the_next_step_is_when_the_rate_changes_and_no_rate_is_ever_taken_back(
    seconds: float, probes: int, drain: float | None, passed: float
) -> None:
    breaker = replace(BREAKER, recovery=timedelta(seconds=seconds), probes=probes, drain=drain)
    now = at(passed)
    step = next_step(RECOVERING, breaker, now)
    if step is None:
        assert recovery(RECOVERING, breaker, now) == recovery(RECOVERING, breaker, now + timedelta(days=1))
        return
    before, after = recovery(RECOVERING, breaker, now), recovery(RECOVERING, breaker, step + timedelta(microseconds=1))
    assert step > now
    assert before is not None
    assert after is None or after.requests_per_second >= before.requests_per_second


# Disabled with a warning first


PATIENT = replace(BREAKER, disable_after=timedelta(hours=100), warn_at=0.75)


def hours(count: float) -> datetime:
    return NOW + timedelta(hours=count)


@pytest.mark.parametrize("row", [CLOSED, OPEN, HALF_OPEN])
@pytest.mark.parametrize("failed", [Observed(failures=1), Observed(probe_failures=1)])
def test_who_only_fails_is_warned_of_once_and_then_disabled_in_any_state(row: CircuitRow, failed: Observed) -> None:
    first = observe(row, PATIENT, failed, NOW)
    assert (first.failing_since, first.warned_at, first.disabled_at) == (NOW, None, None)
    assert observe(first, PATIENT, failed, hours(74.9)).warned_at is None
    warned = observe(first, PATIENT, failed, hours(75))
    assert (warned.warned_at, warned.disabled_at) == (hours(75), None)
    later = observe(warned, PATIENT, failed, hours(99))
    assert (later.warned_at, later.disabled_at) == (hours(75), None)
    ended = observe(later, PATIENT, failed, hours(100))
    assert (ended.disabled_at, ended.disabled_reason) == (hours(100), "failing")


@pytest.mark.parametrize("well", [Observed(successes=1, failures=50), Observed(probe_successes=1)])
def test_one_success_ends_the_count(well: Observed) -> None:
    warned = replace(CLOSED, failing_since=NOW, warned_at=hours(75))
    after = observe(warned, PATIENT, well, hours(99))
    assert (after.failing_since, after.warned_at, after.disabled_at) == (None, None, None)


def test_time_alone_disables_nobody_and_without_a_bound_neither_do_failures() -> None:
    failing = replace(CLOSED, failing_since=NOW)
    assert observe(failing, PATIENT, Observed(), hours(1000)).disabled_at is None
    assert observe(failing, BREAKER, Observed(failures=1), hours(100_000)).disabled_at is None


def test_the_warning_comes_first_and_leaves_time_however_late_it_is() -> None:
    late = observe(replace(CLOSED, failing_since=NOW), PATIENT, Observed(failures=1), hours(200))
    assert (late.warned_at, late.disabled_at) == (hours(200), None)
    assert observe(late, PATIENT, Observed(failures=1), hours(200)).disabled_at is None
    assert observe(late, PATIENT, Observed(failures=1), hours(225)).disabled_at == hours(225)
