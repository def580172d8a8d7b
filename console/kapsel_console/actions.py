"""What people may do: retry, cancel, resume, unblock, erase. Each change and its audit entry are one transaction.

Who did it is the address alone in this version, because nobody is asked for a name yet; `actor` is the one place that
decides it.
"""

from datetime import datetime
from typing import Final

from aiohttp import web

from kapsel_console import documents, shapes
from kapsel_console.context import CONTEXT, Route, answer
from kapsel_console.errors import ProblemError
from kapsel_console.listings import find_delivery
from kapsel_console.parameters import Parameters, path_id
from kapsel_store import audit, circuits, deliveries, endpoints, erasures, turns
from kapsel_store.circuits import CircuitRow
from kapsel_store.database import DELIVERIES_CHANNEL
from kapsel_store.deliveries import NotRetried
from kapsel_store.hints import hint, tell

ERASURE_RETRY: Final = 1  # seconds


async def retry(request: web.Request) -> web.Response:
    """Make a new delivery of one that has ended."""
    Parameters(request.query)
    delivery_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection, connection.transaction():
        made = await deliveries.retry(connection, delivery_id)
        if isinstance(made, NotRetried):
            raise _not_retried(made, str(delivery_id))
        await audit.write(
            connection,
            actor=actor(request),
            action="delivery.retry",
            subject=f"delivery {delivery_id}",
            detail={"made": str(made)},
        )
        await tell(connection, DELIVERIES_CHANNEL)
        row = await find_delivery(connection, made)
    # A crash before the commit made nothing; after it, the new delivery is in the queue and will be found by polling.
    return answer(documents.delivery(row), status=201, headers={"Location": f"/api/v1/deliveries/{made}"})


def _not_retried(result: NotRetried, delivery_id: str) -> ProblemError:
    match result.reason:
        case "unknown":
            return ProblemError("unknown_delivery", f"there is no delivery {delivery_id}, or its retention is over")
        case "not_final":
            return ProblemError("delivery_not_final", f"delivery {delivery_id} is still being tried; it needs no retry")
        case "event_gone":
            return ProblemError(
                "event_gone", f"the event of delivery {delivery_id} is gone: its retention is over, or it was erased"
            )
        case _:
            return ProblemError(
                "destination_removed", f"the destination of delivery {delivery_id} is gone from the configuration"
            )


async def cancel(request: web.Request) -> web.Response:
    """End a delivery that waits."""
    Parameters(request.query)
    delivery_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection, connection.transaction():
        cancelled = await deliveries.cancel(connection, delivery_id)
        row = await find_delivery(connection, delivery_id)
        if not cancelled:
            state = "being claimed at this moment" if row.state == "pending" else row.state
            raise ProblemError(
                "delivery_not_pending", f"delivery {delivery_id} is {state}; only pending ones can be cancelled"
            )
        await audit.write(connection, actor=actor(request), action="delivery.cancel", subject=f"delivery {delivery_id}")
    return answer(documents.delivery(row))


async def resume(request: web.Request) -> web.Response:
    """Close the circuit of a destination, and undo that it was stopped."""
    Parameters(request.query)
    destination_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection, connection.transaction():
        named = await endpoints.destination(connection, destination_id)
        if named is None:
            raise ProblemError("unknown_destination", f"there is no destination {destination_id}")
        title = f"{named.namespace}/{named.endpoint}/{named.name}"
        if named.suspend:
            raise ProblemError("destination_suspended", f"{title} is suspended; set suspend: false in its manifest")
        after = None
        if await circuits.load(connection, [destination_id]):  # a circuit without a row has never left its first state
            before, after = await circuits.change(connection, destination_id, fresh)
            if after != before:
                await audit.write(
                    connection,
                    actor=actor(request),
                    action="destination.resume",
                    subject=f"destination {title}",
                    detail={"id": str(destination_id), "was": documents.circuit(before)},
                )
                await tell(connection, DELIVERIES_CHANNEL)
    resumed: shapes.Resumed = {
        "id": str(destination_id),
        "destination": title,
        "circuit": documents.circuit(after),
    }
    return answer(resumed)


async def unblock(request: web.Request) -> web.Response:
    """Leave out what blocks order keys of a destination: all of them, or the one of a delivery."""
    blocked_by = Parameters(request.query, "delivery").id("delivery")
    destination_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection:
        async with connection.transaction():
            named = await endpoints.destination(connection, destination_id)
            if named is None:
                raise ProblemError("unknown_destination", f"there is no destination {destination_id}")
            title = f"{named.namespace}/{named.endpoint}/{named.name}"
            opened = await turns.unblock(connection, destination_id, blocked_by)
            if opened:
                detail = {"keys": len(opened), "delivery": None if blocked_by is None else str(blocked_by)}
                await audit.write(
                    connection,
                    actor=actor(request),
                    action="destination.unblock",
                    subject=f"destination {title}",
                    detail={"id": str(destination_id), **detail},
                )
        # A crash here leaves the next of each key to the sweep of a deliverer.
        if opened:
            await turns.pass_on(connection, opened)
            await hint(connection, DELIVERIES_CHANNEL)
    unblocked: shapes.Unblocked = {"id": str(destination_id), "destination": title, "unblocked": len(opened)}
    return answer(unblocked)


def fresh(circuit: CircuitRow, now: datetime) -> CircuitRow:
    """Return the circuit as on the first day, if anything keeps deliveries back; else as it is.

    What has waited is let through by steps.
    """
    if circuit.state == "closed" and circuit.disabled_at is None:
        return circuit
    return CircuitRow(destination_id=circuit.destination_id, window_started_at=now, recovering_since=now)


async def erase(request: web.Request) -> web.Response:
    """Forget an event: all that it said, and all that could be compared with a guess of it."""
    Parameters(request.query)
    event_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection, connection.transaction():
        done = await erasures.erase(connection, event_id)
        if done is None:
            raise ProblemError("unknown_event", f"there is no event {event_id}, or its retention is over")
        if done.is_first:
            await audit.write(
                connection,
                actor=actor(request),
                action="event.erase",
                subject=f"event {event_id}",
                detail={"cancelled_deliveries": done.cancelled, "attempts": done.tries},
            )
    # A crash before the commit has erased nothing; after it, the rest is done by `eraser` whoever asks.
    content = documents.erasure(event_id, done)
    if done.complete:
        return answer(content)
    return answer(content, status=202, headers={"Retry-After": str(ERASURE_RETRY)})


def actor(request: web.Request) -> str:
    """Return who asks, as the audit table has it."""
    return f"anonymous@{request.remote or 'unknown'}"


ROUTES: Final = (
    Route(
        method="POST",
        path="/api/v1/deliveries/{id}/retry",
        handler=retry,
        says="deliver again one that has ended",
        gives=shapes.Delivery,
        statuses=(201,),
        problems=("unknown_delivery", "delivery_not_final", "event_gone", "destination_removed"),
    ),
    Route(
        method="POST",
        path="/api/v1/deliveries/{id}/cancel",
        handler=cancel,
        says="end one that is pending",
        gives=shapes.Delivery,
        problems=("unknown_delivery", "delivery_not_pending"),
    ),
    Route(
        method="POST",
        path="/api/v1/events/{id}/erase",
        handler=erase,
        says="forget what an event said, for good",
        gives=shapes.Erasure,
        statuses=(200, 202),
        problems=("unknown_event",),
    ),
    Route(
        method="POST",
        path="/api/v1/destinations/{id}/resume",
        handler=resume,
        says="try a stopped destination again",
        gives=shapes.Resumed,
        problems=("unknown_destination", "destination_suspended"),
    ),
    Route(
        method="POST",
        path="/api/v1/destinations/{id}/unblock",
        handler=unblock,
        says="let blocked order keys go on without what blocks them (delivery)",
        query=("delivery",),
        gives=shapes.Unblocked,
        problems=("unknown_destination",),
    ),
)
