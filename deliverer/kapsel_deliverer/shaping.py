"""Asks the expressions of destinations about events that are to be sent: `shapes` says what they make of them.

The worker asks before it gives a delivery room, so what is not wanted costs the destination nothing of its limits; what
is sent is made when it is sent.
Expressions are compiled when a configuration is loaded; an event is made ready for them once, and kept for a while,
because its other deliveries come with the same claim or soon after.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Container
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from kapsel_deliverer import shapes
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.shapes import Misshapen
from kapsel_expressions.event import Event
from kapsel_store.rows import Claimed, EndpointRow

if TYPE_CHECKING:
    from kapsel_deliverer.targets import Target

KEPT: Final = 64  # events that stay ready
KEPT_BODY: Final = 32_768  # bytes of the largest body among them: what is parsed is several times as large
SLOW: Final = 0.005  # seconds from which on it is remembered how long a filter or a transform took

Place = Literal["filter", "transform"]

logger = logging.getLogger(__name__)


class Shaper:
    """Evaluates, counts, and keeps the events that were looked at last."""

    def __init__(self, metrics: DelivererMetrics) -> None:
        self._metrics = metrics
        self._events: OrderedDict[UUID, Event] = OrderedDict()
        self._slow: dict[tuple[UUID, Place], float] = {}  # seconds that the expressions of a destination took last

    def keep(self, destination_ids: Container[UUID]) -> None:
        """Forget all destinations but these."""
        self._slow = {one: seconds for one, seconds in self._slow.items() if one[0] in destination_ids}

    def took(self, destination_id: UUID, place: Place) -> float:
        """Return how many seconds the filter or the transform of a destination took last, 0 if it was quick."""
        return self._slow.get((destination_id, place), 0.0)

    def wants(self, target: "Target", delivery: Claimed) -> bool | Misshapen:
        """Return whether a destination wants an event."""
        if target.shape.filter is None:
            return True
        started = time.perf_counter()
        result = shapes.wants(target.shape, self._event(target.endpoint, delivery))
        self._measure(target, "filter", time.perf_counter() - started)
        if isinstance(result, Misshapen):
            self._failed(result, "filter", delivery, target.label)
        elif not result:
            self._metrics.filtered.labels(target.label).inc()
        return result

    def transformed(self, target: "Target", delivery: Claimed) -> tuple[Claimed, dict[str, str]] | Misshapen:
        """Return what is sent to a destination of an event, and the headers that are made of it."""
        started = time.perf_counter()
        made = shapes.made(target.shape, self._event(target.endpoint, delivery))
        self._measure(target, "transform", time.perf_counter() - started)
        if isinstance(made, Misshapen):
            self._failed(made, "transform", delivery, target.label)
            return made
        if made.body is None:
            return delivery, made.headers
        body = made.body
        sent = delivery._replace(body=body.content, body_hash=body.hash, content_type=body.content_type)
        return sent, made.headers

    def _measure(self, target: "Target", place: Place, seconds: float) -> None:
        self._metrics.expression_seconds.labels(place).observe(seconds)
        if seconds >= SLOW:
            self._slow[target.destination.id, place] = seconds
        else:
            self._slow.pop((target.destination.id, place), None)

    def _failed(self, wrong: Misshapen, place: Place, delivery: Claimed, label: str) -> None:
        self._metrics.expression_errors.labels(label, place, wrong.failed.reason).inc()
        logger.warning(
            "the %s of a destination failed: %s",
            place,
            wrong.said,
            extra={
                "destination": label,
                "event_id": str(delivery.event_id),
                "delivery_id": str(delivery.id),
                "correlation_id": delivery.correlation_id,
            },
        )

    def _event(self, endpoint: EndpointRow, delivery: Claimed) -> Event:
        known = self._events.get(delivery.event_id)
        if known is not None:
            self._events.move_to_end(delivery.event_id)
            return known
        event = _event(endpoint, delivery)
        if len(delivery.body) <= KEPT_BODY:
            self._events[delivery.event_id] = event
            if len(self._events) > KEPT:
                self._events.popitem(last=False)
        return event


def _event(endpoint: EndpointRow, delivery: Claimed) -> Event:
    return shapes.seen(
        event_id=str(delivery.event_id),
        scheme=endpoint.verification.scheme,
        namespace=endpoint.namespace,
        endpoint=endpoint.name,
        received_at=delivery.received_at,
        headers=delivery.headers,
        body=delivery.body,
    )
