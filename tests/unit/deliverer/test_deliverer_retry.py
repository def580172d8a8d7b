"""When the next try is, and when there is none."""

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.outcome import Delivered, Denied, Outcome, Refused, TimedOut, Unacknowledged, Unreachable, Unsent
from kapsel_deliverer.retry import Decision, backoff, decide, retry_after
from kapsel_store.rows import Backoff, Policy
from kapsel_store.states import State

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FAR = NOW + timedelta(days=3)
STEADY = Policy(backoff=Backoff(jitter=0))
GIVE_UP = Decision(state=State.EXHAUSTED)


def after(outcome: Outcome, *, number: int = 1, policy: Policy = STEADY, deadline: datetime = FAR) -> Decision:
    return decide(policy, number, deadline, outcome, now=NOW, rng=Random(1))


def retried(seconds: float) -> Decision:
    return Decision(state=State.PENDING, retry_in=timedelta(seconds=seconds))


def test_2xx_is_delivered() -> None:
    assert after(Delivered(status=204)) == Decision(state=State.DELIVERED)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503, 599])
def test_statuses_of_the_policy_are_retried(status: int) -> None:
    assert after(Refused(status=status)) == retried(5)


@pytest.mark.parametrize("status", [101, 301, 400, 404, 499, 600])
def test_other_statuses_are_not(status: int) -> None:
    assert after(Refused(status=status)) == GIVE_UP


def test_410_stops_the_destination_even_if_the_policy_would_retry_it() -> None:
    policy = Policy(retry_status_codes=("410", "4xx"))
    assert after(Refused(status=410), policy=policy) == Decision(state=State.EXHAUSTED, disable=True)


@pytest.mark.parametrize("outcome", [Unreachable(reason="dns"), TimedOut(phase="connect"), TimedOut(phase="response")])
def test_connection_errors_are_retried_if_the_policy_says_so(outcome: Outcome) -> None:
    assert after(outcome) == retried(5)
    assert after(outcome, policy=Policy(retry_connection_errors=False)) == GIVE_UP


@pytest.mark.parametrize("outcome", [Denied(reason="address_denied", detail=""), Unsent(reason="no_signing_key")])
def test_what_a_configuration_prevents_is_retried_whatever_the_policy_says_of_destinations(outcome: Outcome) -> None:
    policy = Policy(backoff=Backoff(jitter=0), retry_connection_errors=False, retry_status_codes=())
    assert after(outcome, policy=policy) == retried(5)


def test_a_success_without_the_signature_that_is_required_is_retried_whatever_statuses_are() -> None:
    unsigned = Unacknowledged(status=200, reason="acknowledgement_missing")
    policy = Policy(backoff=Backoff(jitter=0), retry_status_codes=(), retry_connection_errors=False, max_attempts=3)
    assert after(unsigned, policy=policy) == retried(5)
    assert after(unsigned, number=3, policy=policy) == GIVE_UP


def test_attempts_are_bounded() -> None:
    policy = Policy(max_attempts=3)
    assert after(Refused(status=500), number=2, policy=policy).state is State.PENDING
    assert after(Refused(status=500), number=3, policy=policy) == GIVE_UP


def test_age_is_bounded_at_the_time_of_the_next_try() -> None:
    assert after(Refused(status=500), deadline=NOW + timedelta(seconds=5)) == GIVE_UP
    assert after(Refused(status=500), deadline=NOW + timedelta(seconds=5.1)) == retried(5)


def test_exponential_doubles_up_to_its_ceiling() -> None:
    policy = Backoff(initial=timedelta(seconds=5), factor=2, max=timedelta(seconds=30), jitter=0)
    waits = [backoff(policy, number, Random(1)).total_seconds() for number in range(1, 6)]
    assert waits == [5, 10, 20, 30, 30]


def test_the_last_wait_of_a_schedule_repeats() -> None:
    policy = Backoff(type="Schedule", schedule=(timedelta(seconds=1), timedelta(seconds=60)), jitter=0)
    assert [backoff(policy, number, Random(1)).total_seconds() for number in range(1, 5)] == [1, 60, 60, 60]


@given(
    initial=st.floats(0.001, 3600),
    factor=st.floats(1, 100),
    ceiling=st.floats(0.001, 86400),
    jitter=st.floats(0, 1),
    number=st.integers(1, 100_000),
    seed=st.integers(),
)
def test_a_wait_lies_in_its_declared_span(
    initial: float, factor: float, ceiling: float, jitter: float, number: int, seed: int
) -> None:
    policy = Backoff(initial=timedelta(seconds=initial), factor=factor, max=timedelta(seconds=ceiling), jitter=jitter)
    wait = backoff(policy, number, Random(seed)).total_seconds()
    try:
        declared = min(policy.initial.total_seconds() * factor ** (number - 1), policy.max.total_seconds())
    except OverflowError:
        declared = policy.max.total_seconds()
    assert declared * (1 - jitter) - 1e-6 <= wait <= declared * (1 + jitter) + 1e-6


def test_retry_after_is_honoured_up_to_the_policys_ceiling_and_never_shortens_the_backoff() -> None:
    policy = Policy(backoff=Backoff(jitter=0), retry_after_max=timedelta(seconds=60))
    assert after(Refused(status=503, retry_after=timedelta(seconds=20)), policy=policy) == retried(20)
    assert after(Refused(status=503, retry_after=timedelta(hours=20)), policy=policy) == retried(60)
    assert after(Refused(status=503, retry_after=timedelta(seconds=1)), policy=policy) == retried(5)


def test_retry_after_is_ignored_if_the_policy_says_so() -> None:
    policy = Policy(backoff=Backoff(jitter=0), honour_retry_after=False)
    assert after(Refused(status=503, retry_after=timedelta(seconds=20)), policy=policy) == retried(5)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0),
        ("120", 120),
        (" 7 ", 7),
        ("007", 7),
        ("9" * 5000, timedelta(days=3650).total_seconds()),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30),
        ("Thursday, 01-Jan-26 00:00:30 GMT", 30),
        ("Thu Jan  1 00:00:30 2026", 30),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("Thu, 99 Jan 2026 00:00:30 GMT", None),
        ("Thu, 01 Jan 2026 00:00:30 +0100", None),
        ("١٢", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_nothing_else(value: str | None, seconds: float | None) -> None:
    assert retry_after(value, NOW) == (None if seconds is None else timedelta(seconds=seconds))


@given(st.text())
def test_no_retry_after_breaks_the_parser(value: str) -> None:
    wait = retry_after(value, NOW)
    assert wait is None or wait >= timedelta(0)
