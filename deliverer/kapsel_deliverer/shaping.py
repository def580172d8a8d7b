"""What a destination's expressions make of an event: whether it wants it.

The worker asks before it gives a delivery room, so what is not wanted costs the destination nothing of its limits.
Expressions are compiled when a configuration is loaded; an event is made ready for them once, and kept for a while,
because its other deliveries come with the same claim or soon after.
"""

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_expressions.event import Event, named_headers, parse_body, type_of
from kapsel_expressions.expression import Expression, Failed, Invalid, Value, compile_source
from kapsel_store.rows import Claimed, DestinationRow, EndpointRow

if TYPE_CHECKING:
    from kapsel_deliverer.targets import Target

KEPT: Final = 64  # events that stay ready
KEPT_BODY: Final = 32_768  # bytes of the largest body among them: what is parsed is several times as large

Place = Literal["filter"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The compiled expressions of one destination. What the plan should have refused fails at each event."""

    filter: Expression | Invalid | None


def shape(destination: DestinationRow) -> Shape:
    """Compile the expressions of a destination."""
    return Shape(filter=None if destination.filter is None else compile_source(destination.filter, "bool"))


class Shaper:
    """Evaluates, counts, and keeps the events that were looked at last."""

    def __init__(self, metrics: DelivererMetrics) -> None:
        self._metrics = metrics
        self._events: OrderedDict[UUID, Event] = OrderedDict()

    def wants(self, target: "Target", delivery: Claimed) -> bool | Failed:
        """Return whether a destination wants an event."""
        wanted, label = target.shape.filter, target.label
        if wanted is None:
            return True
        started = time.perf_counter()
        result = _evaluate(wanted, self._event(target.endpoint, delivery))
        self._metrics.expression_seconds.labels("filter").observe(time.perf_counter() - started)
        if isinstance(result, Failed):
            self._failed(result, "filter", delivery, label)
            return result
        if result.value is False:
            self._metrics.filtered.labels(label).inc()
            return False
        return True

    def _failed(self, failed: Failed, place: Place, delivery: Claimed, label: str) -> None:
        self._metrics.expression_errors.labels(label, place, failed.reason).inc()
        logger.warning(
            "the %s of a destination failed: %s",
            place,
            failed.detail,
            extra={"destination": label, "event_id": str(delivery.event_id), "delivery_id": str(delivery.id)},
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


def _evaluate(expression: Expression | Invalid, event: Event) -> Value | Failed:
    if isinstance(expression, Invalid):
        return Failed(reason="failed", detail=expression.wrong)
    return expression.evaluate(event)


def _event(endpoint: EndpointRow, delivery: Claimed) -> Event:
    headers, body = named_headers(delivery.headers), parse_body(delivery.body)
    return Event(
        id=str(delivery.event_id),
        type=type_of(endpoint.verification.scheme, headers, body),
        endpoint=endpoint.name,
        namespace=endpoint.namespace,
        received_at=delivery.received_at,
        headers=headers,
        body=body,
    )
