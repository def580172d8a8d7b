"""The states of a delivery: one table, for the deliverer's decisions, the SQL and its CHECKs.

Everything that is not in TRANSITIONS is an error. The migrations repeat the table as CHECKs and a trigger, and a test
walks every (state, event) pair through both. Final states never change: a replay makes a new delivery.
"""

from enum import StrEnum
from typing import Final

from kapsel_store.errors import ImpossibleTransitionError


class State(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


class Event(StrEnum):
    """What may happen to a delivery."""

    CLAIM = "claim"
    DELIVERED = "delivered"
    RETRY = "retry"
    GIVE_UP = "give_up"
    RESCUE = "rescue"
    EXPIRE = "expire"
    SKIP = "skip"
    CANCEL = "cancel"


FINAL: Final = frozenset({State.DELIVERED, State.EXHAUSTED, State.CANCELLED})

TRANSITIONS: Final[dict[State, dict[Event, State]]] = {
    State.PENDING: {
        Event.CLAIM: State.SENDING,
        Event.EXPIRE: State.EXHAUSTED,
        Event.CANCEL: State.CANCELLED,
    },
    State.SENDING: {
        Event.DELIVERED: State.DELIVERED,
        Event.RETRY: State.PENDING,
        Event.GIVE_UP: State.EXHAUSTED,
        Event.RESCUE: State.PENDING,
        Event.SKIP: State.CANCELLED,
    },
    State.DELIVERED: {},
    State.EXHAUSTED: {},
    State.CANCELLED: {},
}


def after(state: State, event: Event) -> State:
    """Return the state that follows; raise ImpossibleTransitionError for a pair outside the table."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise ImpossibleTransitionError(state, event) from None
