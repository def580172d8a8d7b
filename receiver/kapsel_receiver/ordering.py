"""The order key of each delivery of an event, for destinations that ask for order.

`app` asks before the commit, which puts the deliveries in line by these keys. An expression that fails on an event does
not cost the webhook, and is counted.

The engine cannot be interrupted, and a receiver does nothing else meanwhile. So what is quick is done at once, and what
is not goes on as a task: a piece at a time in the whole process, in turn for the endpoints that have something there,
with as long a pause after each piece as it took. The first piece is done at once, since before it nobody knows.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from math import ceil
from typing import Final, NamedTuple
from uuid import UUID

from kapsel_expressions.event import Event, named_headers, parse_body, type_of
from kapsel_receiver.metrics import Metrics
from kapsel_receiver.problems import Refusal
from kapsel_store.order_keys import OrderKey, compiled, evaluated, key_of
from kapsel_store.rows import DestinationRow, EndpointRow, NewDelivery, NewEvent

SLOW: Final = 0.005  # seconds of CPU after which a piece ends
SHARE: Final = 0.5  # of the time that slow keys have at most
BACKLOG: Final = 10.0  # seconds that what waits of one endpoint may take together: providers hang up after 5 to 30
PATIENCE: Final = 30.0  # seconds after which a webhook is refused whose keys are still not made
HELD: Final = 33_554_432  # bytes of all that waits: the largest body that an endpoint may take, and some
EACH: Final = 4_096  # bytes that a webhook is in memory besides its body and headers

Steps = Iterator[NewEvent | None]


class Lines:
    """The key expressions of one endpoint's destinations; false if none asks for order."""

    def __init__(self, endpoint: EndpointRow, destinations: Sequence[DestinationRow]) -> None:
        self._endpoint = endpoint
        found: dict[str, dict[UUID, str]] = {}
        for row in destinations:
            if row.ordering is not None:
                found.setdefault(row.ordering.key, {})[row.id] = f"{endpoint.namespace}/{endpoint.name}/{row.name}"
        # What several destinations say in the same words is computed once.
        self._expressions = tuple((compiled(text), labels) for text, labels in found.items())
        # The rest is Placing's.
        self.took = 0.0  # seconds of CPU that the keys of the last webhook took, 0 if they were quick
        self.waiting = 0  # webhooks whose keys are not there yet
        self.held = 0  # bytes of those
        self.turn = asyncio.Lock()  # one of them at a time

    def __bool__(self) -> bool:
        return bool(self._expressions)

    def place(self, event: NewEvent, metrics: Metrics) -> Steps:
        """Evaluate one expression at each step; the last gives the event with the keys of its deliveries."""
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
        keys: dict[UUID, OrderKey] = {}
        for number, (expression, labels) in enumerate(self._expressions):
            if number:
                yield None
            made = evaluated(expression, seen)
            for destination_id, label in labels.items():
                keys[destination_id] = key = key_of(destination_id, made)
                if key.failed is not None:
                    metrics.count_keyless(label, key.failed)
        yield event._replace(deliveries=tuple([_placed(each, keys) for each in event.deliveries]))


def _placed(delivery: NewDelivery, keys: dict[UUID, OrderKey]) -> NewDelivery:
    key = keys.get(delivery.destination_id)
    return delivery if key is None else delivery._replace(order_key=key.digest, order_shown=key.shown)


class Unplaced(NamedTuple):
    """An event whose keys take long, and wait for their turn."""

    lines: Lines
    steps: Steps
    took: float  # seconds of CPU, so far
    size: int


class Placing:
    """Has the keys of all endpoints of one process made, so that slow ones leave the others their time."""

    def __init__(self, metrics: Metrics, *, patience: float = PATIENCE) -> None:
        self._metrics = metrics
        self._patience = patience
        self._piece = asyncio.Lock()  # one piece at a time
        self._rests_until = 0.0  # monotonic: no further piece before
        self._startled_until = 0.0  # monotonic: nothing is taken to be quick before, since something was not
        self._waiting = 0
        self._held = 0  # bytes of what waits
        metrics.keys_awaited.set_function(lambda: self._waiting)

    def refusal(self, lines: Lines) -> Refusal | None:
        """Return why no further webhook of an endpoint may wait for its keys; `app` asks before it reads a body."""
        seconds = lines.took * lines.waiting / SHARE
        if seconds < BACKLOG and lines.held < HELD - self._held:
            return None
        return _overloaded(lines, seconds)

    def place(self, lines: Lines, event: NewEvent) -> NewEvent | Unplaced | Refusal:
        """Return the event with its keys if they are quick, and what `place_in_turn` takes if it may wait for them."""
        steps, took = lines.place(event, self._metrics), 0.0
        if not lines.took and time.monotonic() >= self._startled_until:
            placed, took = _piece(steps)
            if took >= SLOW:
                lines.took = took
                # Of many endpoints that were quick so far each could have such a webhook at this moment.
                self._startled_until = self._rest(took)
            if placed is not None:
                return placed
        refusal = self.refusal(lines)
        if refusal is not None:
            return refusal
        size = len(event.body) + len(event.headers) + EACH
        self._count(lines, 1, size)  # now: more may come before anybody awaits this one
        return Unplaced(lines, steps, took, size)

    async def place_in_turn(self, unplaced: Unplaced) -> NewEvent | Refusal:
        """Have the keys made piece by piece, of one webhook of an endpoint at a time."""
        lines, steps, took, size = unplaced
        try:
            async with asyncio.timeout(self._patience), lines.turn:
                while True:
                    placed, seconds = await self._next_piece(steps)
                    took += seconds
                    if placed is not None:
                        lines.took = took if took >= SLOW else 0.0
                        return placed
        except TimeoutError:
            return _overloaded(lines, BACKLOG)
        finally:
            self._count(lines, -1, -size)

    async def _next_piece(self, steps: Steps) -> tuple[NewEvent | None, float]:
        """Have a piece made when it is its turn; who waits for that does so in the order of their coming."""
        async with self._piece:
            await asyncio.sleep(max(0.0, self._rests_until - time.monotonic()))
            placed, seconds = _piece(steps)
            self._rest(seconds)
            return placed, seconds

    def _rest(self, seconds: float) -> float:
        """Let what goes on beside slow keys have its share of the time after so many seconds; return until when."""
        until = time.monotonic() + seconds * (1 - SHARE) / SHARE
        self._rests_until = max(self._rests_until, until)
        return until

    def _count(self, lines: Lines, waiting: int, size: int) -> None:
        lines.waiting += waiting
        lines.held += size
        self._waiting += waiting
        self._held += size


def _piece(steps: Steps) -> tuple[NewEvent | None, float]:
    """Take steps to the last, or until they have taken long; return what came of it, and how long it took.

    By the thread's own time: what else the machine does meanwhile makes no expression slow.
    """
    began = time.thread_time()
    while True:
        placed = next(steps)
        took = time.thread_time() - began
        if placed is not None or took >= SLOW:
            return placed, took


def _overloaded(lines: Lines, seconds: float) -> Refusal:
    return Refusal(
        code="overloaded",
        detail=f"its order keys take long, and {lines.waiting} webhooks of the endpoint wait for theirs",
        retry_after=max(1, ceil(seconds)),
    )
