"""The order key of an event at a destination that asks for order.

The receiver asks before it stores an event, and a replay when it makes the first delivery of one to a destination that
was declared later: both must come to the same line.
"""

from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from kapsel_expressions.event import Event
from kapsel_expressions.expression import Expression, Failed, Invalid, Reason, Value, compile_source
from kapsel_store import turns


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderKey:
    """What puts a delivery in line."""

    digest: bytes  # NewDelivery.order_key
    shown: str | None = None  # NewDelivery.order_shown
    failed: Reason | None = None  # why the event has no key of its own


@lru_cache(maxsize=4096)
def compiled(source: str) -> Expression | Invalid:
    """Compile once, however many destinations and generations say the same."""
    return compile_source(source, "string")


def evaluated(expression: Expression | Invalid, event: Event) -> Value | Failed:
    """Return what a key is at an event, for all destinations that say it in the same words."""
    # A text that this version cannot compile was planned by a newer one.
    return Failed(reason="failed", detail="") if isinstance(expression, Invalid) else expression.evaluate(event)


def key_of(destination_id: UUID, made: Value | Failed) -> OrderKey:
    """Return the key of a delivery; all whose expression failed share one, so they keep order among themselves."""
    if isinstance(made, Failed):
        return OrderKey(digest=turns.fallback(destination_id), failed=made.reason)
    key = str(made.value)
    return OrderKey(digest=turns.digest(destination_id, key), shown=turns.shown(key))
