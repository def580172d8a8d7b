"""What a replay's step keeps of what it found: what the filter means, in line, and no further than was read."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from kapsel_deliverer.selecting import EVALUATING, Looking, narrowed
from kapsel_expressions.event import Event
from kapsel_expressions.expression import Expression, compile_source
from kapsel_store import turns
from kapsel_store.events import FIRST_ID
from kapsel_store.order_keys import compiled
from kapsel_store.replay_runs import Matched, Step

BILLING, CRM = UUID(int=1), UUID(int=2)
END = UUID(int=99)


def event(body: object) -> Event:
    return Event(
        id="e", type=None, endpoint="orders", namespace="shop", received_at=datetime(2026, 3, 1, tzinfo=UTC),
        headers={}, body=body,
    )  # fmt: skip


def found(count: int, *, by_events: bool = True, to: UUID = BILLING) -> Step:
    matched = tuple(
        Matched(id=UUID(int=100 + number), event_id=UUID(int=10 + number), destination_id=to, gone=False, removed=False)
        for number in range(count)
    )
    return Step(found=matched, walked_event=END if by_events else FIRST_ID, walked_delivery=END, last=True)


def looking(*bodies: object, source: str | None = "event.body.n > 0", keys: dict[UUID, str] | None = None) -> Looking:
    compiled_filter = None if source is None else compile_source(source, "bool")
    assert compiled_filter is None or isinstance(compiled_filter, Expression)
    events = {UUID(int=10 + at): None if body is None else event(body) for at, body in enumerate(bodies)}
    order = {of: compiled(key) for of, key in (keys or {}).items()}
    return Looking(filter=compiled_filter, order_keys=order, events=events)


def test_a_step_that_was_looked_at_whole_ends_where_it_ended() -> None:
    step = narrowed(found(4), looking({"n": 1}, {"n": 0}, {}, None), 10)
    assert [one.event_id.int for one in step.found] == [10]
    assert step.unjudged == 2
    assert (step.walked_event, step.walked_delivery, step.last) == (END, END, True)


@pytest.mark.parametrize("by_events", [True, False])
def test_a_step_ends_at_the_last_delivery_whose_event_was_read(by_events: bool) -> None:
    step = narrowed(found(4, by_events=by_events), looking({"n": 1}, {"n": 1}), 10)
    assert len(step.found) == 2
    assert (step.walked_delivery, step.last) == (UUID(int=101), False)
    assert step.walked_event == (UUID(int=11) if by_events else FIRST_ID)


def test_a_step_ends_where_it_has_found_as_many_as_are_wanted() -> None:
    step = narrowed(found(4), looking({"n": 0}, {"n": 1}, {"n": 1}, {"n": 1}), 2)
    assert [one.event_id.int for one in step.found] == [11, 12]
    assert (step.walked_event, step.walked_delivery, step.last) == (UUID(int=12), UUID(int=102), False)


@pytest.mark.parametrize("by_events", [True, False])
def test_a_step_ends_when_its_expressions_have_had_their_time_and_the_next_one_goes_on(by_events: bool) -> None:
    hundredths = itertools.count()
    slow = looking(*[{"n": number % 2} for number in range(40)])
    step = narrowed(found(40, by_events=by_events), slow, 40, lambda: next(hundredths) / 100)
    assert [one.event_id.int for one in step.found] == [11, 13, 15, 17, 19]
    assert (step.walked_delivery, step.last) == (UUID(int=109), False)
    assert step.seconds >= EVALUATING


def test_a_step_looks_at_one_event_however_long_that_takes() -> None:
    hours = itertools.count()
    step = narrowed(found(3), looking({"n": 1}, {"n": 1}, {"n": 1}), 10, lambda: next(hours) * 3600)
    assert [one.event_id.int for one in step.found] == [10]


def test_a_step_ends_within_an_event_whose_order_keys_take_their_time() -> None:
    to_all = replace(
        found(0),
        found=tuple(
            Matched(
                id=UUID(int=100 + of), event_id=UUID(int=10), destination_id=UUID(int=of), gone=False, removed=False
            )
            for of in range(32)
        ),
    )
    hundredths = itertools.count()
    asks = looking({"k": "a"}, source=None, keys={UUID(int=of): "event.body.k" for of in range(32)})
    step = narrowed(to_all, asks, 500, lambda: next(hundredths) / 100)
    assert len(step.found) == 10
    assert (step.walked_event, step.walked_delivery) == (UUID(int=10), UUID(int=109))


def test_a_delivery_gets_the_order_key_that_its_destination_asks_for_and_no_other() -> None:
    asks = looking({"k": "a"}, {}, source=None, keys={BILLING: "event.body.k"})
    first, second = narrowed(found(2), asks, 10).found
    assert (first.order_key, second.order_key) == (turns.digest(BILLING, "a"), turns.fallback(BILLING))
    assert [one.order_key for one in narrowed(found(2, to=CRM), asks, 10).found] == [None, None]
