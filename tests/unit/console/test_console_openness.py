"""What callers without a token may read, and how often."""

import pytest

from kapsel_console.errors import ProblemError
from kapsel_console.openness import Openness, Visitors


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("level", list(Openness))
def test_each_level_opens_what_those_before_it_open(level: Openness) -> None:
    visitors = Visitors(level, 10)
    assert [visitors.may_read(needed) for needed in (Openness.HEADS, Openness.PROOFS, Openness.LEAVES)] == [
        level >= 1,
        level >= 2,
        level >= 3,
    ]


@pytest.mark.parametrize("level", list(Openness))
def test_what_no_level_opens_is_never_open(level: Openness) -> None:
    assert not Visitors(level, 10).may_read(None)


@pytest.mark.parametrize("level", list(Openness))
def test_what_needs_no_level_is_always_open(level: Openness) -> None:
    assert Visitors(level, 10).may_read(Openness.NONE)


def test_beyond_the_rate_callers_are_told_to_wait_and_then_let_in_again() -> None:
    visitors = Visitors(Openness.HEADS, 10, clock := Clock())
    for _ in range(20):
        visitors.admit()
    with pytest.raises(ProblemError) as caught:
        visitors.admit()
    assert (caught.value.code, caught.value.retry_after) == ("too_many_requests", 1)
    clock.now += 0.5
    for _ in range(5):
        visitors.admit()
    with pytest.raises(ProblemError):
        visitors.admit()
    clock.now += 3600  # what nobody used is not saved up beyond the burst
    for _ in range(20):
        visitors.admit()
    with pytest.raises(ProblemError):
        visitors.admit()
