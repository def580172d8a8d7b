"""Limits that all processes keep together, over arbitrary histories: demand, deaths, stalls and lost answers."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kapsel_store.limits import Bucket, Demand, Draw, Grant, allot, draw, shares
from kapsel_store.rows import RateLimit

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=10)
HOLDERS = ("a", "b", "c", "d")


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 100))
def test_shares_give_all_that_is_wanted_or_all_there_is_and_favour_nobody(demands: dict[str, int], limit: int) -> None:
    found = shares(demands, limit)
    assert sum(found.values()) == min(limit, sum(demands.values()))
    for name, wanted in demands.items():
        assert 0 <= found[name] <= wanted
        # Who got less than it wanted got no less than anybody else, but for what cannot be divided.
        if found[name] < wanted:
            assert all(found[name] >= other - 1 for other in found.values())


@dataclass
class Deliverer:
    """One that uses slots as a lane does: only those it was told of, only for a while, and it may die or hang."""

    name: str
    skew: float  # what its own clock is off by: it never matters
    slots: int = 0
    until: float = 0.0  # on its own clock
    running: int = 0


@given(
    st.integers(0, 12),
    st.lists(
        st.tuples(
            st.sampled_from(("ask", "ask", "start", "start", "finish", "die", "lose the answer")),
            st.integers(0, 3),
            st.integers(0, 15),
            st.floats(0, 4),
        ),
        max_size=60,
    ),
    st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4),
)
def test_no_history_has_more_tries_under_way_than_the_limit(
    limit: int, history: list[tuple[str, int, int, float]], skews: list[float]
) -> None:
    deliverers = [Deliverer(name, skew) for name, skew in zip(HOLDERS, skews, strict=True)]
    grants: dict[str, Grant] = {}
    now = 0.0
    for step, number, amount, passed in history:
        now += passed
        one = deliverers[number]
        clock = now + one.skew
        if step in ("ask", "lose the answer"):
            # As a lane does: no more than this starts until the answer is there.
            one.slots = min(one.slots if clock < one.until else 0, max(amount, one.running))
            demand = Demand(limit=limit, wanted=amount, held=max(one.slots, one.running))
            grants, allotted = allot(grants, one.name, demand, at(now), LEASE)
            if step == "ask":
                one.slots, one.until = allotted.slots, clock + LEASE.total_seconds() * 0.8
        elif step == "start":
            while one.running < one.slots and clock < one.until:
                one.running += 1
        elif step == "finish":
            one.running -= min(one.running, amount)
        else:
            one.running, one.slots = 0, 0
        # A try that outlives its deliverer's lease is taken from it, and made again by others: it counts no more.
        leased = [each for each in deliverers if each.name in grants and grants[each.name].until > at(now)]
        assert sum(each.running for each in leased) <= limit
        assert sum(grant.count for grant in grants.values() if grant.until > at(now)) <= limit


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_who_comes_late_has_its_share_once_the_first_has_let_go(limit: int, first: int, second: int) -> None:
    grants, one = allot({}, "a", Demand(limit=limit, wanted=first), at(0), LEASE)
    assert one.slots == min(limit, first)
    grants, two = allot(grants, "b", Demand(limit=limit, wanted=second), at(1), LEASE)
    assert two.slots <= limit - one.slots
    for now in (2, 3):
        grants, one = allot(grants, "a", Demand(limit=limit, wanted=first), at(now), LEASE)
        grants, two = allot(grants, "b", Demand(limit=limit, wanted=second), at(now), LEASE)
    assert {"a": one.slots, "b": two.slots} == shares({"a": first, "b": second}, limit)


def test_what_the_dead_had_is_free_when_its_lease_is_over_and_what_is_given_back_at_once() -> None:
    grants, _ = allot({}, "a", Demand(limit=4, wanted=4), at(0), LEASE)
    _, none = allot(grants, "b", Demand(limit=4, wanted=4), at(9.9), LEASE)
    assert (none.slots, none.short) == (0, True)
    _, all_of_it = allot(grants, "b", Demand(limit=4, wanted=4), at(10), LEASE)
    assert (all_of_it.slots, all_of_it.short) == (4, False)
    assert allot(grants, "a", Demand(limit=4, wanted=0), at(1), LEASE)[0] == {}


RATES = st.floats(min_value=0.1, max_value=1000)
BURSTS = st.integers(min_value=1, max_value=12)
DRAWS = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 8), st.integers(0, 8), st.floats(0, 3), st.integers(0, 16), st.booleans()
    ),
    max_size=40,
)


@given(RATES, BURSTS, DRAWS)
def test_no_span_of_any_history_sees_more_than_burst_and_rate_allow(
    rate: float, burst: int, history: list[tuple[int, int, int, float, int, bool]]
) -> None:
    limit = RateLimit(requests_per_second=rate, burst=burst)
    bucket: Bucket | None = None
    held = dict.fromkeys(HOLDERS, 0)
    until = dict.fromkeys(HOLDERS, 0.0)
    used: list[float] = []  # when each token was used
    now = 0.0
    for number, need, extra, passed, spent, dies in history:
        now += passed
        name = HOLDERS[number]
        own = held[name] if now < until[name] else 0
        used += [now] * min(own, spent)
        own -= min(own, spent)
        bucket, drawn = draw(bucket, name, Draw(limit=limit, need=need, extra=extra, unused=own), at(now), LEASE)
        assert 0 <= drawn.tokens <= need + extra
        used += [now] * min(need, drawn.tokens)
        held[name] = 0 if dies else drawn.tokens - min(need, drawn.tokens)
        until[name] = now + LEASE.total_seconds() * 0.8
    for index, first in enumerate(used):
        for count, last in enumerate(used[index:], start=1):
            assert count <= burst + rate * (last - first) + 1e-6


@given(RATES, BURSTS, st.integers(2, 6))
def test_what_is_used_at_once_gets_the_whole_rate_whoever_asks(rate: float, burst: int, holders: int) -> None:
    limit = RateLimit(requests_per_second=rate, burst=burst)
    bucket: Bucket | None = None
    got, now = 0, 0.0
    for turn in range(60):
        bucket, drawn = draw(bucket, str(turn % holders), Draw(limit=limit, need=burst), at(now), LEASE)
        got += drawn.tokens
        # The told wait, and the microsecond that a time of the database may lack.
        now += drawn.wait + 2e-6
    assert got >= burst + int(rate * (now - drawn.wait - 2e-6) * 0.99) - 1


@given(RATES, BURSTS, st.floats(0.001, 1e6))
def test_a_database_whose_clock_goes_back_makes_no_token_and_goes_on(rate: float, burst: int, back: float) -> None:
    limit = RateLimit(requests_per_second=rate, burst=burst)
    bucket, _ = draw(None, "a", Draw(limit=limit, need=burst), at(0), LEASE)
    bucket, drawn = draw(bucket, "a", Draw(limit=limit, need=1), at(-back), LEASE)
    assert drawn.tokens == 0
    _, drawn = draw(bucket, "a", Draw(limit=limit, need=1), at(-back + drawn.wait + 2e-6), LEASE)
    assert drawn.tokens == 1


def test_a_limit_that_is_lowered_holds_at_once() -> None:
    bucket, _ = draw(None, "a", Draw(limit=RateLimit(requests_per_second=1, burst=50), need=1), at(0), LEASE)
    _, drawn = draw(bucket, "b", Draw(limit=RateLimit(requests_per_second=1, burst=2), need=9), at(0), LEASE)
    assert drawn.tokens == 2
