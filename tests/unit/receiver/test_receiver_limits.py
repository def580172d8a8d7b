"""The token bucket over arbitrary histories."""

from hypothesis import given
from hypothesis import strategies as st

from kapsel_receiver.limits import TokenBucket
from kapsel_store.rows import RateLimit

RATES = st.floats(min_value=0.1, max_value=10_000)
BURSTS = st.integers(min_value=1, max_value=1000)
GAPS = st.lists(st.floats(min_value=0, max_value=5), max_size=200)


@given(RATES, BURSTS, GAPS)
def test_no_history_passes_more_than_burst_and_rate_allow(rate: float, burst: int, gaps: list[float]) -> None:
    now = 0.0
    bucket = TokenBucket(RateLimit(requests_per_second=rate, burst=burst), now)
    passed = 0
    for gap in gaps:
        now += gap
        passed += not bucket.take(now)
        assert passed <= burst + rate * now + 1e-6


@given(RATES, BURSTS)
def test_the_whole_burst_passes_at_once_and_then_a_wait_is_told(rate: float, burst: int) -> None:
    bucket = TokenBucket(RateLimit(requests_per_second=rate, burst=burst), 10.0)
    assert not any(bucket.take(10.0) for _ in range(burst))
    assert 0 < bucket.take(10.0) <= 1 / rate + 1e-9


@given(RATES, BURSTS)
def test_after_the_told_wait_a_request_passes(rate: float, burst: int) -> None:
    bucket = TokenBucket(RateLimit(requests_per_second=rate, burst=burst), 0.0)
    now = 0.0
    for _ in range(burst + 3):
        seconds = bucket.take(now)
        if seconds:
            now += seconds * 1.000001 + 1e-9
            assert bucket.take(now) == 0


def test_looking_takes_no_token() -> None:
    bucket = TokenBucket(RateLimit(requests_per_second=1, burst=1), 0.0)
    assert [bucket.wait(0.0), bucket.wait(0.0), bucket.take(0.0)] == [0, 0, 0]
    assert bucket.wait(0.0) == 1.0


def test_a_share_divides_rate_and_burst_but_leaves_one_request() -> None:
    bucket = TokenBucket(RateLimit(requests_per_second=8, burst=8), 0.0)
    bucket.share(4)
    assert [bucket.take(0.0) for _ in range(3)] == [0, 0, 0.5]
    bucket.share(100)
    assert bucket.take(1000.0) == 0
    bucket.share(1)
    assert sum(not bucket.take(2000.0) for _ in range(20)) == 8
