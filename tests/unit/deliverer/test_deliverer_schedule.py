"""A RetryPolicy, whatever it declares, against what is made of it: every wait, and where each delivery ends."""

from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.outcome import Refused
from kapsel_deliverer.retry import backoff, decide
from kapsel_store.rows import Backoff, Policy
from kapsel_store.states import State

START = datetime(2026, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
WAITS = st.timedeltas(timedelta(milliseconds=1), timedelta(hours=168))
JITTERS = st.floats(0, 1)
EXPONENTIALS = st.tuples(WAITS, WAITS, st.floats(1, 10), JITTERS).map(
    lambda drawn: Backoff(initial=min(drawn[:2]), max=max(drawn[:2]), factor=drawn[2], jitter=drawn[3])
)
SCHEDULES = st.builds(
    lambda waits, jitter: Backoff(type="Schedule", schedule=tuple(waits), jitter=jitter),
    st.lists(WAITS, min_size=1, max_size=32),
    JITTERS,
)
NUMBERS = st.integers(1, 1000)
SEEDS = st.integers(0, 2**32)


def declared(policy: Backoff, number: int) -> timedelta:
    """Return the wait after try `number` as the documentation has it, step by step."""
    if policy.type == "Schedule":
        return policy.schedule[min(number, len(policy.schedule)) - 1]
    seconds, most = policy.initial.total_seconds(), policy.max.total_seconds()
    for _ in range(number - 1):
        seconds = min(most, seconds * policy.factor)
    return timedelta(seconds=seconds)


def near(one: timedelta, other: timedelta) -> bool:
    """Whether two spans are the same but for what arithmetic with floats loses."""
    return abs(one - other) <= MICROSECOND + max(one, other) * 1e-6


@given(st.one_of(EXPONENTIALS, SCHEDULES), NUMBERS, SEEDS)
def test_every_wait_is_the_declared_one_within_the_declared_jitter(policy: Backoff, number: int, seed: int) -> None:
    wait = backoff(policy, number, Random(seed))
    span = declared(policy, number)
    assert span * (1 - policy.jitter) - MICROSECOND - span * 1e-6 <= wait
    assert wait <= span * (1 + policy.jitter) + MICROSECOND + span * 1e-6


@given(st.one_of(EXPONENTIALS, SCHEDULES), NUMBERS, SEEDS)
def test_without_jitter_the_wait_is_exact(policy: Backoff, number: int, seed: int) -> None:
    exact = Backoff(
        type=policy.type,
        initial=policy.initial,
        factor=policy.factor,
        max=policy.max,
        schedule=policy.schedule,
        jitter=0,
    )
    assert near(backoff(exact, number, Random(seed)), declared(exact, number))


@given(st.floats(0.01, 1), SEEDS)
def test_the_jitter_uses_all_of_its_span(jitter: float, seed: int) -> None:
    policy = Backoff(type="Schedule", schedule=(timedelta(seconds=100),), jitter=jitter)
    rng = Random(seed)
    waits = [backoff(policy, 1, rng).total_seconds() for _ in range(300)]
    assert min(waits) < 100 * (1 - jitter * 0.8)
    assert max(waits) > 100 * (1 + jitter * 0.8)


POLICIES = st.builds(
    Policy,
    backoff=st.one_of(EXPONENTIALS, SCHEDULES),
    max_attempts=st.integers(1, 40),
    max_age=st.timedeltas(timedelta(seconds=1), timedelta(hours=720)),
    honour_retry_after=st.booleans(),
    retry_after_max=st.timedeltas(timedelta(seconds=1), timedelta(hours=168)),
)
ASKED = st.one_of(st.none(), st.timedeltas(timedelta(0), timedelta(days=3650)))


@given(POLICIES, st.lists(ASKED, min_size=40, max_size=40), st.timedeltas(timedelta(0), timedelta(minutes=1)), SEEDS)
def test_a_delivery_that_only_fails_ends_by_its_attempts_or_its_age_and_waits_as_declared_till_then(
    policy: Policy, asked: list[timedelta | None], takes: timedelta, seed: int
) -> None:
    rng = Random(seed)
    now, deadline = START, START + policy.max_age
    for number in range(1, policy.max_attempts + 1):
        now += takes
        retry_after = asked[number - 1]
        outcome = Refused(status=503, retry_after=retry_after)
        decision = decide(policy, number, deadline, outcome, now=now, rng=rng)
        span = declared(policy.backoff, number)
        most = span * (1 + policy.backoff.jitter)
        least = span * (1 - policy.backoff.jitter)
        if policy.honour_retry_after and retry_after is not None:
            ceiling = min(retry_after, policy.retry_after_max)
            most, least = max(most, ceiling), max(least, ceiling)
        slack = MICROSECOND + most * 1e-6
        if decision.state is State.EXHAUSTED:
            # Nothing ends it early: the tries are used up, or the next one would come too late.
            assert number == policy.max_attempts or now + most + slack >= deadline
            return
        assert decision.retry_in is not None
        assert least - slack <= decision.retry_in <= most + slack
        assert now + decision.retry_in < deadline
        now += decision.retry_in
    raise AssertionError("it did not end")


@given(POLICIES, st.timedeltas(timedelta(0), timedelta(days=3650)), SEEDS)
def test_a_retry_after_never_parks_a_delivery_beyond_its_ceiling_nor_shortens_a_wait(
    policy: Policy, asked: timedelta, seed: int
) -> None:
    far = START + timedelta(days=36500)
    with_it, without = (
        decide(policy, 1, far, Refused(status=503, retry_after=one), now=START, rng=Random(seed)).retry_in
        for one in (asked, None)
    )
    if policy.max_attempts == 1:
        assert with_it is without is None
        return
    assert with_it is not None
    assert without is not None
    expected = max(without, min(asked, policy.retry_after_max)) if policy.honour_retry_after else without
    assert with_it == expected


@given(POLICIES, NUMBERS, SEEDS)
def test_410_ends_it_and_stops_the_destination_whatever_the_policy_says(policy: Policy, number: int, seed: int) -> None:
    decision = decide(policy, number, START + policy.max_age, Refused(status=410), now=START, rng=Random(seed))
    assert (decision.state, decision.disable) == (State.EXHAUSTED, True)


@given(st.integers(300, 599), st.sets(st.sampled_from(["3xx", "4xx", "5xx", "404", "429", "503"])), SEEDS)
def test_a_status_is_tried_again_if_it_or_its_class_is_declared(status: int, codes: set[str], seed: int) -> None:
    policy = Policy(retry_status_codes=tuple(codes))
    decision = decide(policy, 1, START + policy.max_age, Refused(status=status), now=START, rng=Random(seed))
    wanted = status != 410 and (str(status) in codes or f"{status // 100}xx" in codes)
    assert (decision.state is State.PENDING) == wanted
