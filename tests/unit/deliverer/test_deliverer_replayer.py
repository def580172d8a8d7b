"""A run of a Replay decides by what a step found: how many next, what was skipped, when it is complete."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from kapsel_deliverer.replayer import BATCH, batch, completed, counted, enqueued
from kapsel_store.replay_runs import Matched, Run, Step
from kapsel_store.states import State

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ZERO, SOME = UUID(int=0), UUID(int=7)
RUN = Run(
    id=UUID(int=1),
    namespace="shop",
    name="again",
    endpoint_id=UUID(int=2),
    destinations=None,
    received_from=NOW - timedelta(days=1),
    received_to=NOW,
    states=(State.EXHAUSTED,),
    dry_run=False,
    rate=50,
    suspend=False,
    started_at=NOW,
    counted_at=None,
    enqueued_at=None,
    completed_at=None,
    matched=0,
    enqueued=0,
    skipped_events=0,
    skipped_destinations=0,
    delivered=0,
    failed=0,
    walked_event=ZERO,
    walked_delivery=ZERO,
    settled_to=ZERO,
    now=NOW,
)


def found(count: int, *, gone: bool = False, removed: bool = False) -> tuple[Matched, ...]:
    return tuple(
        Matched(id=UUID(int=number), event_id=SOME, destination_id=SOME, gone=gone, removed=removed)
        for number in range(count)
    )


def step(*matched: Matched, last: bool = False) -> Step:
    return Step(found=matched, walked_event=SOME, walked_delivery=SOME, last=last)


@pytest.mark.parametrize(("rate", "size"), [(1, 1), (2, 1), (3, 1), (50, 25), (999, 499), (100_000, BATCH)])
def test_a_batch_is_half_a_second_of_the_rate_within_bounds(rate: int, size: int) -> None:
    assert batch(rate) == size


def test_counting_adds_up_and_begins_the_second_walk_at_the_beginning() -> None:
    first = counted(RUN, step(*found(3)))
    assert (first.matched, first.counted_at, first.walked_delivery) == (3, None, SOME)
    done = counted(first, step(*found(2), last=True))
    assert (done.matched, done.counted_at, done.walked_event, done.walked_delivery) == (5, NOW, ZERO, ZERO)
    assert done.completed_at is None


def test_a_dry_run_is_complete_when_it_has_counted() -> None:
    assert counted(replace(RUN, dry_run=True), step(last=True)).completed_at == NOW


def test_what_is_gone_counts_once_whatever_else_is_wrong_with_it() -> None:
    matched = (*found(2), *found(3, gone=True), *found(1, removed=True), *found(1, gone=True, removed=True))
    after = enqueued(replace(RUN, counted_at=NOW, matched=7), step(*matched, last=True), made=2)
    assert (after.enqueued, after.skipped_events, after.skipped_destinations, after.matched) == (2, 4, 1, 7)
    assert after.enqueued_at == NOW


def test_what_others_have_had_delivered_again_meanwhile_is_skipped() -> None:
    after = enqueued(replace(RUN, counted_at=NOW, matched=3), step(*found(3), last=True), made=1)
    assert (after.enqueued, after.skipped_pending, after.matched, after.skipped_events) == (1, 2, 3, 0)


def test_what_retention_dropped_between_the_two_walks_counts_as_skipped() -> None:
    after = enqueued(replace(RUN, counted_at=NOW, matched=5), step(*found(3), last=True), made=3)
    assert (after.matched, after.enqueued, after.skipped_events) == (5, 3, 2)


def test_what_was_committed_late_is_matched_too() -> None:
    after = enqueued(replace(RUN, counted_at=NOW, matched=2), step(*found(3), last=True), made=3)
    assert (after.matched, after.enqueued, after.skipped_events) == (3, 3, 0)


def test_a_run_is_complete_when_all_is_made_and_has_ended() -> None:
    made = replace(RUN, counted_at=NOW, enqueued_at=NOW, matched=3, enqueued=3, delivered=2)
    assert completed(made).completed_at is None
    assert completed(replace(made, failed=1)).completed_at == NOW
    assert completed(replace(made, enqueued_at=None, failed=1)).completed_at is None
