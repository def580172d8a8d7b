"""The order key of each delivery of an event, for destinations that ask for order.

`app` asks before the commit, which puts the deliveries in line by these keys. An expression that fails on an event does
not cost the webhook, and is counted.
"""

from collections.abc import Sequence

from kapsel_expressions.event import Event, named_headers, parse_body, type_of
from kapsel_receiver.metrics import Metrics
from kapsel_store.order_keys import compiled, key_of
from kapsel_store.rows import DestinationRow, EndpointRow, NewDelivery, NewEvent


class Lines:
    """The key expressions of one endpoint's destinations; false if none asks for order."""

    def __init__(self, endpoint: EndpointRow, destinations: Sequence[DestinationRow]) -> None:
        self._endpoint = endpoint
        self._expressions = {
            row.id: (f"{endpoint.namespace}/{endpoint.name}/{row.name}", compiled(row.ordering.key))
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
        return event._replace(deliveries=tuple(self._place(each, seen, metrics) for each in event.deliveries))

    def _place(self, delivery: NewDelivery, event: Event, metrics: Metrics) -> NewDelivery:
        if delivery.destination_id not in self._expressions:
            return delivery
        label, expression = self._expressions[delivery.destination_id]
        key = key_of(delivery.destination_id, expression, event)
        if key.failed is not None:
            metrics.count_keyless(label, key.failed)
        return delivery._replace(order_key=key.digest, order_shown=key.shown)
