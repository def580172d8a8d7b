"""When a worker looks for its own retries."""

import math

from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.clock import DUE_STEP, DueTimes

TIMES = st.floats(min_value=0, max_value=1e6, allow_nan=False)


@given(st.lists(TIMES, min_size=1))
def test_the_worker_looks_at_or_just_after_each_due_time_and_never_before(times: list[float]) -> None:
    due = DueTimes()
    for time in times:
        due.add(time)
    looks = []
    while due.first < math.inf:
        looks.append(due.first)
        due.drop_until(due.first)
    assert looks == sorted(set(looks))
    for time in times:
        assert any(-1e-6 <= look - time <= DUE_STEP + 1e-6 for look in looks)
    for look in looks:
        assert any(-1e-6 <= look - time <= DUE_STEP + 1e-6 for time in times)


@given(TIMES, st.integers(1, 50))
def test_many_at_the_same_time_are_one_reason_to_look(time: float, count: int) -> None:
    due = DueTimes()
    for _ in range(count):
        due.add(time)
    due.drop_until(due.first)
    assert due.first == math.inf
