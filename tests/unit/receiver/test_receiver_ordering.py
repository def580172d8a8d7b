"""Order keys of an event: one for each destination that asks, and one for all that have none."""

import asyncio
import hashlib
import time
from datetime import UTC, datetime
from uuid import UUID

import pytest
import standstill
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from kapsel_receiver.metrics import Metrics
from kapsel_receiver.ordering import BACKLOG, HELD, SLOW, Lines, Placing, Unplaced
from kapsel_receiver.problems import Refusal
from kapsel_store import turns
from kapsel_store.rows import DestinationRow, EndpointRow, NewDelivery, NewEvent, Ordering, Policy, Verification

ORDERS = EndpointRow(id=UUID(int=1), namespace="shop", name="orders", verification=Verification(scheme="github"))
BILLING, AUDIT = UUID(int=2), UUID(int=3)


def destination(identifier: UUID, name: str, key: str | None) -> DestinationRow:
    return DestinationRow(
        id=identifier,
        endpoint_id=ORDERS.id,
        name=name,
        url="https://a.example",
        ordering=None if key is None else Ordering(key=key),
    )


def event(body: bytes, headers: str = "[]") -> NewEvent:
    return NewEvent(
        id=UUID(int=9),
        endpoint_id=ORDERS.id,
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        content_type="application/json",
        headers=headers,
        body=body,
        body_hash=hashlib.sha256(body).digest(),
        salt=bytes(32),
        idempotency_key=None,
        idempotency_window=None,
        correlation_id=None,
        deliveries=tuple(
            NewDelivery(id=identifier, destination_id=identifier, max_age=Policy().max_age)
            for identifier in (BILLING, AUDIT)
        ),
    )


def placed(key: str, made: NewEvent) -> tuple[NewDelivery, float]:
    """Return the delivery to billing, and how many events were counted as without a key."""
    registry = CollectorRegistry()
    lines = Lines(ORDERS, [destination(BILLING, "billing", key), destination(AUDIT, "audit", None)])
    (found,) = lines.place(made, Metrics(registry))
    assert found is not None
    billing, audit = found.deliveries
    assert (audit.order_key, audit.order_shown) == (None, None)
    counted = sum(
        sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if sample.name == "webhook_order_key_failures_total" and sample.labels["destination"] == "shop/orders/billing"
    )
    return billing, counted


def test_an_endpoint_whose_destinations_ask_for_no_order_computes_nothing() -> None:
    assert not Lines(ORDERS, [destination(BILLING, "billing", None)])
    assert Lines(ORDERS, [destination(BILLING, "billing", None), destination(AUDIT, "audit", "event.id")])


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("event.body.customer", "c-7"),
        ("event.headers['x-github-event'] + '/' + event.body.customer", "push/c-7"),
        ("event.type", "push"),
        ("event.namespace + '/' + event.endpoint", "shop/orders"),
        ("string(event.body.number)", "7"),
    ],
)
def test_the_key_is_what_the_expression_makes_of_the_event(key: str, shown: str) -> None:
    billing, counted = placed(key, event(b'{"customer": "c-7", "number": 7}', '[["X-GitHub-Event", "push"]]'))
    assert (billing.order_key, billing.order_shown, counted) == (turns.digest(BILLING, shown), shown, 0)


@pytest.mark.parametrize(
    ("key", "body"),
    [
        ("event.body.customer", b"{}"),
        ("event.body.customer", b'{"customer": 7}'),
        ("event.body.customer", b"customer=7"),
        ("event.body.customer", b"\xff\xfe"),
        ("event.headers['x-none']", b"{}"),
        ("string(1 / event.body.zero)", b'{"zero": 0}'),
        ("what is this", b"{}"),
    ],
)
def test_an_event_without_a_key_is_counted_and_goes_in_line_with_others_like_it(key: str, body: bytes) -> None:
    billing, counted = placed(key, event(body))
    assert (billing.order_key, billing.order_shown, counted) == (turns.fallback(BILLING), None, 1)


def test_what_two_destinations_say_in_the_same_words_is_computed_once_and_each_has_a_line_of_its_own() -> None:
    same = [destination(BILLING, "billing", "event.body.customer"), destination(AUDIT, "audit", "event.body.customer")]
    other = [same[0], destination(AUDIT, "audit", "event.body.customer + ''")]
    for destinations, evaluations in ((same, 1), (other, 2)):
        *_, found = steps = list(Lines(ORDERS, destinations).place(event(b'{"customer": "c"}'), metrics()))
        assert len(steps) == evaluations
        assert found is not None
        keys = [(one.order_key, one.order_shown) for one in found.deliveries]
        assert keys == [(turns.digest(BILLING, "c"), "c"), (turns.digest(AUDIT, "c"), "c")]


def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def slow(*keys: str) -> Lines:
    """Return lines whose keys are known to take long for an event of standstill.BODY."""
    keys = keys or (f"({standstill.MUCH_WORK}) ? 'one' : 'other'",)
    lines = Lines(ORDERS, [destination(UUID(int=2 + at), f"d-{at}", key) for at, key in enumerate(keys)])
    lines.took = SLOW
    return lines


async def test_slow_keys_are_made_in_turn_and_what_was_slow_may_be_quick_again() -> None:
    placing, lines = Placing(metrics()), slow()
    for body, was_slow in ((standstill.BODY, True), (b'{"a": []}', False)):
        unplaced = placing.place(lines, event(body))
        assert isinstance(unplaced, Unplaced)
        placed = await placing.place_in_turn(unplaced)
        assert isinstance(placed, NewEvent)
        assert placed.deliveries[0].order_shown == "one"
        assert (lines.took >= SLOW) == was_slow
    assert isinstance(placing.place(lines, event(b'{"a": []}')), NewEvent)
    assert (lines.waiting, lines.held) == (0, 0)


async def test_a_webhook_whose_keys_turn_out_to_be_slow_is_made_no_further_at_once() -> None:
    text = f"({standstill.MUCH_WORK}) ? 'one' : 'other'"
    placing, lines = Placing(metrics()), slow(*(f"({text}) + '{number}'" for number in range(6)))
    lines.took = 0.0
    took = standstill.evaluation()
    began = time.thread_time()
    unplaced = placing.place(lines, event(standstill.BODY))
    assert time.thread_time() - began < 4 * took
    assert isinstance(unplaced, Unplaced)
    elsewhere = Lines(ORDERS, [destination(BILLING, "billing", "event.id")])
    assert isinstance(placing.place(elsewhere, event(b"{}")), Unplaced)  # who knows, and one at a time is enough
    placed = await placing.place_in_turn(unplaced)
    assert isinstance(placed, NewEvent)
    assert [one.order_shown for one in placed.deliveries] == ["one0", "one1"]
    assert lines.took > 4 * took


async def test_what_waits_for_slow_keys_is_bounded_by_the_time_that_an_endpoint_has_and_by_the_bytes_of_all() -> None:
    placing, lines, others = Placing(metrics()), slow(), slow()
    lines.took = BACKLOG / 4
    for _ in range(2):
        assert isinstance(placing.place(lines, event(b"{}")), Unplaced)
    refused = placing.place(lines, event(b"{}"))
    assert isinstance(refused, Refusal)
    assert (refused.code, refused.retry_after) == ("overloaded", BACKLOG)
    assert placing.refusal(lines) == refused
    assert placing.refusal(others) is None
    assert isinstance(placing.place(others, event(bytes(HELD // 2))), Unplaced)
    assert isinstance(placing.place(others, event(b"{}")), Refusal)
    assert isinstance(placing.place(slow(), event(bytes(HELD // 2))), Unplaced)
    assert isinstance(placing.place(slow(), event(b"{}")), Refusal)


async def test_a_webhook_waits_for_slow_keys_no_longer_than_its_patience_and_leaves_nothing_behind() -> None:
    placing, lines = Placing(metrics(), patience=0.01), slow()
    async with lines.turn:
        waiting = placing.place(lines, event(b"{}"))
        assert isinstance(waiting, Unplaced)
        refused = await placing.place_in_turn(waiting)
    assert isinstance(refused, Refusal)
    assert refused.code == "overloaded"
    assert (lines.waiting, lines.held) == (0, 0)


async def test_a_webhook_that_is_given_up_leaves_its_turn_to_the_next() -> None:
    placing, lines = Placing(metrics()), slow()
    tasks = []
    for _ in range(3):
        unplaced = placing.place(lines, event(b'{"a": []}'))
        assert isinstance(unplaced, Unplaced)
        tasks.append(asyncio.create_task(placing.place_in_turn(unplaced)))
    await asyncio.sleep(0)
    tasks[0].cancel()
    tasks[1].cancel()
    assert isinstance(await tasks[2], NewEvent)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (lines.waiting, lines.held) == (0, 0)


@given(st.text(max_size=300), st.text(max_size=300))
def test_different_keys_and_different_destinations_have_different_lines(one: str, other: str) -> None:
    assert (turns.digest(BILLING, one) == turns.digest(BILLING, other)) == (one == other)
    assert len({turns.digest(BILLING, one), turns.digest(AUDIT, one), turns.fallback(BILLING)}) == 3
    assert len(turns.digest(BILLING, one)) == 16


@given(st.text(st.characters(), max_size=300))
def test_a_key_as_people_read_it_is_short_text_that_a_database_takes(key: str) -> None:
    shown = turns.shown(key)
    assert len(shown) <= turns.SHOWN + 1
    assert "\0" not in shown.encode().decode()
