"""Waits before reconnecting: they grow to a ceiling and spread."""

import random
from itertools import islice, pairwise

from hypothesis import given
from hypothesis import strategies as st

from kapsel_runtime.backoff import delays

positive = st.floats(0.001, 100)


@given(positive, positive, st.integers())
def test_a_delay_is_never_above_the_maximum_nor_below_half_the_initial_one(
    initial: float, maximum: float, seed: int
) -> None:
    drawn = list(islice(delays(initial, maximum, random.Random(seed)), 30))
    assert all(min(initial, maximum) / 2 <= delay <= maximum for delay in drawn)
    assert drawn[-1] >= maximum / 2 or initial * 2**29 < maximum


@given(st.integers())
def test_the_delay_after_next_is_longer_while_delays_grow(seed: int) -> None:
    drawn = list(islice(delays(1, 1024, random.Random(seed)), 9))
    assert all(later >= earlier for earlier, later in pairwise(drawn))
    assert drawn[0] < drawn[2]


def test_processes_that_lost_the_same_peer_come_back_at_different_times() -> None:
    assert len({next(delays(1, 10, random.Random(seed))) for seed in range(50)}) == 50
