"""The schedule of the queue: pure, on a clock that the tests turn; and what the queue says of it."""

import asyncio
import random

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from kapsel_operator.metrics import Metrics
from kapsel_operator.workqueue import Again, Key, Schedule, WorkQueue

A, B = Key("Relay", "shop", "a"), Key("Relay", "shop", "b")


def schedule() -> Schedule:
    return Schedule(random.Random(1))


def test_a_key_is_taken_when_it_is_due_and_not_before() -> None:
    queue = schedule()
    queue.add(A, 1.0)
    assert queue.take(0.9) is None
    assert queue.next_due() == 1.0
    assert queue.take(1.0) == A


def test_many_changes_of_one_thing_are_one_piece_of_work_at_the_earliest_time() -> None:
    queue = schedule()
    for due in (3.0, 1.0, 2.0):
        queue.add(A, due)
    assert queue.take(1.0) == A
    queue.done(A, None, 1.0)
    assert queue.take(9.0) is None


def test_a_key_that_is_worked_on_is_not_worked_on_twice_and_comes_again_if_it_was_added_meanwhile() -> None:
    queue = schedule()
    queue.add(A, 0.0)
    assert queue.take(0.0) == A
    queue.add(A, 0.1)
    queue.add(B, 0.2)
    assert queue.take(1.0) == B
    assert queue.take(1.0) is None
    queue.done(A, None, 1.0)
    assert queue.take(1.0) == A


def test_who_waits_patiently_waits_longer_each_time_up_to_a_bound_and_a_change_shortens_it() -> None:
    queue, now, waits = schedule(), 0.0, []
    queue.add(A, now)
    for _ in range(8):
        assert queue.take(now) == A
        queue.done(A, Again(after=30.0, patient=True), now)
        due = queue.next_due()
        assert due is not None
        waits.append(due - now)
        now = due
    assert waits[0] <= 1.0
    assert waits == sorted(waits)
    assert 15.0 <= waits[-1] <= 30.0
    queue.take(now)
    queue.done(A, Again(after=30.0, patient=True), now)
    queue.add(A, now + 0.2)
    assert queue.next_due() == now + 0.2


def test_after_another_end_patience_begins_anew() -> None:
    queue, now = schedule(), 0.0
    queue.add(A, now)
    for again in [Again(after=300.0, patient=True)] * 6 + [Again(after=30.0), Again(after=300.0, patient=True)]:
        assert queue.take(now) == A
        queue.done(A, again, now)
        due = queue.next_due()
        assert due is not None
        wait, now = due - now, due
    assert wait <= 1.0


def test_how_long_keys_have_been_due_is_told() -> None:
    queue = schedule()
    queue.add(A, 1.0)
    queue.add(B, 4.0)
    assert queue.waiting(3.0) == [2.0]


@given(st.lists(st.tuples(st.sampled_from(["add", "take", "done"]), st.sampled_from([A, B]), st.floats(0, 5))))
def test_whatever_happens_a_key_that_was_added_is_taken_and_never_twice_at_once(
    steps: list[tuple[str, Key, float]],
) -> None:
    queue, now = schedule(), 0.0
    running: set[Key] = set()
    wanted: set[Key] = set()
    for what, key, amount in steps:
        now += amount / 10
        if what == "add":
            queue.add(key, now)
            wanted.add(key)
        elif what == "take" and (taken := queue.take(now)) is not None:
            assert taken not in running
            running.add(taken)
            wanted.discard(taken)
        elif what == "done" and key in running:
            queue.done(key, None, now)
            running.discard(key)
    for key in running:
        queue.done(key, None, now)
    left = set()
    while (taken := queue.take(now)) is not None:
        left.add(taken)
    assert left == wanted


async def test_what_waits_for_a_worker_is_counted_with_how_long_it_does() -> None:
    registry, stopping = CollectorRegistry(), asyncio.Event()
    queue = WorkQueue(Metrics(registry))
    queue.add(A, after=0)
    queue.add(B, after=0)
    waiting: list[float | None] = []
    ages: list[float | None] = []

    async def work(key: Key) -> None:
        waiting.append(registry.get_sample_value("operator_queue_depth"))
        ages.append(registry.get_sample_value("operator_queue_age_seconds"))
        stopping.set()

    await queue.run(1, work, stopping)
    assert waiting == [2]
    assert 0 < (ages[0] or 0) < 600
