"""What tests put into the queue and record of it, where nothing but the queue itself is looked at."""

import hashlib
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from uuid import UUID

from kapsel_store import ids, turns
from kapsel_store.rows import AttemptRow, Claimed, DestinationRow, NewDelivery, NewEvent, Result
from kapsel_store.states import State


def delivery(to: DestinationRow, max_age: timedelta, key: str | None = None) -> NewDelivery:
    """Return a delivery; one with an order key takes its place in line."""
    order_key = None if key is None else turns.digest(to.id, key)
    return NewDelivery(id=ids.new(), destination_id=to.id, max_age=max_age, order_key=order_key, order_shown=key)


def event(
    endpoint_id: UUID, deliveries: Iterable[NewDelivery], *, once: bytes | None = None, body: bytes = b"{}"
) -> NewEvent:
    """Return a webhook that came in now; `once` is what duplicates of it share."""
    return NewEvent(
        id=ids.new(),
        endpoint_id=endpoint_id,
        received_at=datetime.now(UTC),
        content_type="application/json",
        headers='[["content-type", "application/json"]]',
        body=body,
        body_hash=hashlib.sha256(body).digest(),
        salt=os.urandom(32),
        idempotency_key=None if once is None else hashlib.sha256(once).digest(),
        idempotency_window=None if once is None else timedelta(hours=1),
        correlation_id=None,
        deliveries=tuple(deliveries),
    )


def result(claimed: Claimed, lease: UUID, state: State, retry_in: timedelta | None = None) -> Result:
    """Return what came of a try that had this end."""
    fine = state is State.DELIVERED
    attempt = AttemptRow(
        id=ids.new(),
        delivery_id=claimed.id,
        event_id=claimed.event_id,
        endpoint_id=claimed.endpoint_id,
        destination_id=claimed.destination_id,
        number=claimed.number,
        started_at=datetime.now(UTC),
        duration=timedelta(milliseconds=3),
        outcome="delivered" if fine else "refused",
        reason="status_200" if fine else "status_500",
        url="http://127.0.0.1:9/",
        payload_hash=claimed.body_hash,
        payload_commitment=None,
        signature_digest=None,
        response_status=200 if fine else 500,
    )
    return Result(attempt=attempt, lease_id=lease, state=state, retry_in=retry_in, order_key=claimed.order_key)
