"""What a destination's expressions make of an event: whether it wants it, and what is sent instead of what came.

The worker asks before it gives a delivery room, so what is not wanted costs the destination nothing of its limits; what
is sent is made when it is sent.
Expressions are compiled when a configuration is loaded; an event is made ready for them once, and kept for a while,
because its other deliveries come with the same claim or soon after.
"""

import hashlib
import json
import logging
import re
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_expressions.event import ABSENT, Event, named_headers, parse_body, type_of
from kapsel_expressions.expression import Expression, Failed, Invalid, Value, compile_source
from kapsel_store.rows import Claimed, DestinationRow, EndpointRow, Transform, is_reserved_header

if TYPE_CHECKING:
    from kapsel_deliverer.targets import Target

KEPT: Final = 64  # events that stay ready
KEPT_BODY: Final = 32_768  # bytes of the largest body among them: what is parsed is several times as large

JSON: Final = "application/json"
LONGEST_HEADER: Final = 2048  # characters
_HEADER_VALUE: Final = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?", re.ASCII)

Place = Literal["filter", "transform"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The compiled expressions of one destination. What the plan should have refused fails at each event."""

    filter: Expression | Invalid | None
    transforms: bool
    body: Expression | Invalid | None
    headers: tuple[tuple[str, Expression | Invalid], ...]
    content_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What is sent instead of what came."""

    delivery: Claimed  # with the body, its hash and its content type as they are sent
    headers: dict[str, str]


def shape(destination: DestinationRow) -> Shape:
    """Compile the expressions of a destination."""
    transform = destination.transform or Transform()
    return Shape(
        filter=None if destination.filter is None else compile_source(destination.filter, "bool"),
        transforms=destination.transform is not None,
        body=None if transform.body is None else compile_source(transform.body, "json"),
        headers=tuple(
            (name.lower(), compile_source(source, "string"))
            for name, source in transform.headers
            if not is_reserved_header(name)
        ),
        content_type=transform.content_type,
    )


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

    def transformed(self, target: "Target", delivery: Claimed) -> Made | Failed:
        """Return what is sent to a destination of an event. A body that is no JSON is sent as it came."""
        started = time.perf_counter()
        made = _made(target.shape, self._event(target.endpoint, delivery), delivery)
        self._metrics.expression_seconds.labels("transform").observe(time.perf_counter() - started)
        if isinstance(made, Failed):
            self._failed(made, "transform", delivery, target.label)
        return made

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


def _made(shape: Shape, event: Event, delivery: Claimed) -> Made | Failed:
    headers: dict[str, str] = {}
    for name, expression in shape.headers:
        value = _evaluate(expression, event)
        if isinstance(value, Failed):
            return replace(value, detail=f"header {name}: {value.detail}")
        text = str(value.value)
        if len(text) > LONGEST_HEADER or not _HEADER_VALUE.fullmatch(text):
            return Failed(reason="type", detail=f"header {name}: it gives what is no value of a header")
        headers[name] = text
    if shape.body is None or event.body is ABSENT:
        return Made(delivery=delivery, headers=headers)
    result = _evaluate(shape.body, event)
    if isinstance(result, Failed):
        return replace(result, detail=f"body: {result.detail}")
    body = _encoded(result.value, shape.content_type or JSON)
    if isinstance(body, Failed):
        return body
    sent = replace(
        delivery, body=body, body_hash=hashlib.sha256(body).digest(), content_type=shape.content_type or JSON
    )
    return Made(delivery=sent, headers=headers)


def _encoded(value: object, content_type: str) -> bytes | Failed:
    """Return a body: the same bytes each time it is made, for a map of CEL has no order."""
    if isinstance(value, str) and not content_type.partition(";")[0].strip().lower().endswith("json"):
        return value.encode()
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)
    except (TypeError, ValueError):
        return Failed(reason="type", detail="body: it gives a value that JSON does not have, such as a timestamp")
    return text.encode()


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
