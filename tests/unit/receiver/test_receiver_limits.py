"""The tokens of an endpoint as a receiver takes them, against the bucket that all receivers share."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from kapsel_receiver.limits import SPAN, TokenBucket, Tokens
from kapsel_store.limits import Bucket, draw
from kapsel_store.rows import RateLimit

START = datetime(2026, 1, 1, tzinfo=UTC)


class Shared:
    """The shared bucket of an endpoint, and receivers that draw from it when they ask; time is what a test says."""

    def __init__(self, rate: float, burst: int, receivers: int = 1) -> None:
        self.now = 0.0
        self.questions = 0
        self._bucket: Bucket | None = None
        limit = RateLimit(requests_per_second=rate, burst=burst)
        self.receivers = [Tokens(UUID(int=number), limit, self._ask, lambda: self.now) for number in range(receivers)]
        self._asking: list[Tokens] = []

    def _ask(self, tokens: Tokens) -> None:
        if tokens not in self._asking:
            self._asking.append(tokens)

    async def requests(self, receiver: int, count: int) -> int:
        """Let so many requests come at once; return how many pass."""
        taking = [asyncio.ensure_future(self.receivers[receiver].take()) for _ in range(count)]
        await asyncio.sleep(0)
        while self._asking:
            tokens = self._asking.pop()
            asked = tokens.draw()
            self.questions += 1
            at = START + timedelta(seconds=self.now)
            self._bucket, drawn = draw(self._bucket, str(tokens.id), asked, at, SPAN)
            tokens.drawn(asked, drawn)
        return sum(seconds == 0.0 for seconds in await asyncio.gather(*taking))


@given(
    st.floats(min_value=0.1, max_value=1000),
    st.integers(min_value=1, max_value=20),
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10), st.floats(0, 2)), max_size=30),
)
def test_no_history_of_several_receivers_passes_more_than_burst_and_rate_allow(
    rate: float, burst: int, history: list[tuple[int, int, float]]
) -> None:
    async def run() -> None:
        shared = Shared(rate, burst, receivers=3)
        passed: list[tuple[float, int]] = []
        for receiver, count, gap in history:
            shared.now += gap
            passed.append((shared.now, await shared.requests(receiver, count)))
        for index, (first, _) in enumerate(passed):
            total = 0
            for last, count in passed[index:]:
                total += count
                assert total <= burst + rate * (last - first) + 1e-6

    asyncio.run(run())


async def test_the_whole_burst_passes_at_once_and_then_a_wait_is_told() -> None:
    shared = Shared(2, 5)
    assert await shared.requests(0, 8) == 5
    assert shared.receivers[0].wait() == 0.5
    assert await shared.requests(0, 1) == 0
    shared.now = 0.5
    assert await shared.requests(0, 2) == 1


async def test_where_many_come_few_questions_are_asked_and_an_idle_endpoint_asks_none() -> None:
    shared = Shared(10_000, 1000)
    for _ in range(500):
        shared.now += 0.001
        assert await shared.requests(0, 2) == 2
    assert shared.questions < 50


async def test_one_receiver_gets_the_whole_rate_while_another_has_nothing_to_do() -> None:
    shared = Shared(10, 1, receivers=2)
    passed = 0
    for _ in range(200):
        shared.now += 0.05
        passed += await shared.requests(0, 1)
    assert passed >= 95


async def test_who_waits_is_told_when_nobody_can_say() -> None:
    asked: list[Tokens] = []
    tokens = Tokens(UUID(int=1), RateLimit(requests_per_second=1, burst=1), asked.append, lambda: 0.0)
    taking = asyncio.ensure_future(tokens.take())
    await asyncio.sleep(0)
    asked[0].failed()
    assert await taking is None


@given(st.floats(0.1, 10_000), st.integers(1, 1000), st.lists(st.floats(0, 5), max_size=100))
def test_no_history_of_a_bucket_of_ones_own_passes_more_than_burst_and_rate_allow(
    rate: float, burst: int, gaps: list[float]
) -> None:
    now = 0.0
    bucket = TokenBucket(RateLimit(requests_per_second=rate, burst=burst), now)
    passed = 0
    for gap in gaps:
        now += gap
        wait = bucket.take(now)
        passed += not wait
        assert passed <= burst + rate * now + 1e-6
        assert wait <= 1 / rate + 1e-9
