"""The order key of each delivery of an event, for destinations that ask for order.

`app` asks before the commit, which puts the deliveries in line by these keys. An expression that fails on an event does
not cost the webhook: all such events of a destination share one key, so they keep their order among themselves.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from kapsel_expressions.event import Event, named_headers, parse_body, type_of
from kapsel_expressions.expression import Expression, Failed, Invalid, compile_source
from kapsel_receiver.metrics import Metrics
from kapsel_store import turns
from kapsel_store.rows import DestinationRow, EndpointRow, NewDelivery, NewEvent


@lru_cache(maxsize=4096)
def _compiled(source: str) -> Expression | Invalid:
    """Compile once, however many destinations and generations say the same."""
    return compile_source(source, "string")


class Lines:
    """The key expressions of one endpoint's destinations; false if none asks for order."""

    def __init__(self, endpoint: EndpointRow, destinations: Sequence[DestinationRow]) -> None:
        self._endpoint = endpoint
        self._expressions = {
            row.id: (f"{endpoint.namespace}/{endpoint.name}/{row.name}", _compiled(row.ordering.key))
            for row in destinations
            if row.ordering is not None
        }

    def __bool__(self) -> bool:
        return bool(self._expressions)

    def place(self, event: NewEvent, metrics: Metrics) -> NewEvent:
        """Return the event with the key of each delivery that is to go in order."""
        headers, body = named_headers(event.headers), parse_body(event.body)
        seen = Event(
            id=str(event.id),
            type=type_of(self._endpoint.verification.scheme, headers, body),
            endpoint=self._endpoint.name,
            namespace=self._endpoint.namespace,
            received_at=event.received_at,
            headers=headers,
            body=body,
        )
        return replace(event, deliveries=tuple(self._place(each, seen, metrics) for each in event.deliveries))

    def _place(self, delivery: NewDelivery, event: Event, metrics: Metrics) -> NewDelivery:
        if delivery.destination_id not in self._expressions:
            return delivery
        label, expression = self._expressions[delivery.destination_id]
        # A text that this version cannot compile was planned by a newer one.
        made = Failed(reason="failed", detail="") if isinstance(expression, Invalid) else expression.evaluate(event)
        if isinstance(made, Failed):
            metrics.count_keyless(label, made.reason)
            return replace(delivery, order_key=turns.fallback(delivery.destination_id))
        key = str(made.value)
        return replace(delivery, order_key=turns.digest(delivery.destination_id, key), order_shown=turns.shown(key))
