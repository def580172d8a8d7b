"""Order keys of an event: one for each destination that asks, and one for all that have none."""

import hashlib
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from kapsel_receiver.metrics import Metrics
from kapsel_receiver.ordering import Lines
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
    billing, audit = lines.place(made, Metrics(registry)).deliveries
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
