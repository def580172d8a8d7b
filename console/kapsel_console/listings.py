"""Lists and single items: endpoints, events, deliveries, attempts, replays, processes. All of it only looks."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

from aiohttp import web

from kapsel_console import documents, shapes
from kapsel_console.context import CONTEXT, Route, answer, listing
from kapsel_console.errors import ProblemError
from kapsel_console.explanation import explain
from kapsel_console.parameters import Parameters, id_cursor, line_cursor, name_cursor, path_id, replay_cursor
from kapsel_store import attempts, deliveries, endpoints, events, facts, processes, replays, turns, undelivered
from kapsel_store.database import Connection
from kapsel_store.deliveries import DeliveryRow
from kapsel_store.events import FIRST_ID


async def list_endpoints(request: web.Request) -> web.Response:
    """Answer with endpoints by name."""
    asked = Parameters(request.query, "namespace", "name", "limit", "cursor")
    limit, after = asked.limit(), asked.name_cursor()
    async with request.app[CONTEXT].storage.connection() as connection:
        found = await endpoints.page(
            connection, limit=limit + 1, after=after, namespace=asked.text("namespace"), name=asked.text("name")
        )
        alive = await processes.list_live(connection)
    last = found[limit - 1].row if len(found) > limit else None
    return listing(
        [documents.endpoint(one, alive) for one in found[:limit]],
        None if last is None else name_cursor(last.namespace, last.name),
    )


async def list_events(request: web.Request) -> web.Response:
    """Answer with the newest events first."""
    asked = Parameters(request.query, "endpoint", "since", "limit", "cursor")
    now = request.app[CONTEXT].now()
    limit, before, since = asked.limit(), asked.id_cursor(), asked.since(now)
    async with request.app[CONTEXT].storage.connection() as connection:
        endpoint_id = await _endpoint_id(connection, asked)
        rows = await events.page(
            connection, now=now, limit=limit + 1, before=before, since=since, endpoint_id=endpoint_id
        )
    return _newest_first([documents.event(row) for row in rows], limit)


async def get_event(request: web.Request) -> web.Response:
    """Answer with one event, headers and body included."""
    Parameters(request.query)
    event_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection:
        row = await events.get(connection, event_id)
    if row is None:
        raise ProblemError("unknown_event", f"there is no event {event_id}, or its retention is over")
    return answer(documents.whole_event(row))


async def list_deliveries(request: web.Request) -> web.Response:
    """Answer with the newest deliveries first."""
    asked = Parameters(request.query, "state", "endpoint", "event", "since", "limit", "cursor")
    now = request.app[CONTEXT].now()
    limit, before, since = asked.limit(), asked.id_cursor(), asked.since(now)
    states, event_id = asked.states(), asked.id("event")
    async with request.app[CONTEXT].storage.connection() as connection:
        endpoint_id = await _endpoint_id(connection, asked)
        rows = await deliveries.page(
            connection,
            now=now,
            limit=limit + 1,
            before=before,
            since=since,
            states=states,
            endpoint_id=endpoint_id,
            event_id=event_id,
        )
    return _newest_first([documents.delivery(row) for row in rows], limit)


async def get_delivery(request: web.Request) -> web.Response:
    """Answer with one delivery."""
    Parameters(request.query)
    delivery_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection:
        row = await find_delivery(connection, delivery_id)
    return answer(documents.delivery(row))


async def explain_delivery(request: web.Request) -> web.Response:
    """Answer with why a delivery is where it is, and when it goes next."""
    Parameters(request.query)
    delivery_id = path_id(request)
    context = request.app[CONTEXT]
    async with (
        context.storage.connection() as connection,
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        known = await facts.gather(connection, delivery_id)
    if known is None:
        raise _unknown_delivery(delivery_id)
    return answer(documents.explanation(known.delivery, explain(known, context.source.current.log)))


async def find_delivery(connection: Connection, delivery_id: UUID) -> DeliveryRow:
    """Return a delivery; raise ProblemError if there is none."""
    row = await deliveries.get(connection, delivery_id)
    if row is None:
        raise _unknown_delivery(delivery_id)
    return row


def _unknown_delivery(delivery_id: UUID) -> ProblemError:
    return ProblemError("unknown_delivery", f"there is no delivery {delivery_id}, or its retention is over")


async def list_undelivered(request: web.Request) -> web.Response:
    """Answer with what was not delivered, newest first; a page may be short although another follows."""
    asked = Parameters(request.query, "endpoint", "destination", "fault", "reason", "late", "since", "limit", "cursor")
    now = request.app[CONTEXT].now()
    limit, before, since = asked.limit(), asked.id_cursor(), asked.since(now)
    faults, reasons, late = asked.faults(), asked.reasons(), asked.late()
    async with request.app[CONTEXT].storage.connection() as connection:
        found = await undelivered.page(
            connection,
            limit=limit,
            now=now,
            late=undelivered.LATE if late is None else late,
            before=before,
            since=since,
            destination_ids=await _destination_ids(connection, asked),
            faults=faults,
            reasons=reasons,
        )
    return listing(
        [documents.undelivered(row) for row in found.found], None if found.below is None else id_cursor(found.below)
    )


async def sum_undelivered(request: web.Request) -> web.Response:
    """Answer with what was not delivered by destination and reason; a page is of so many destinations."""
    asked = Parameters(request.query, "endpoint", "late", "limit", "cursor")
    late = asked.late()
    async with request.app[CONTEXT].storage.connection() as connection:
        found, after = await undelivered.summaries(
            connection,
            limit=asked.limit(),
            now=request.app[CONTEXT].now(),
            late=undelivered.LATE if late is None else late,
            after=asked.id_cursor() or FIRST_ID,
            endpoint_id=await _endpoint_id(connection, asked),
        )
    items = [documents.undelivered_for(one, group) for one in found for group in one.groups]
    return listing(items, None if after is None else id_cursor(after))


async def _destination_ids(connection: Connection, asked: Parameters) -> list[UUID] | None:
    """Return the destinations that are meant; None for all."""
    named = asked.destination()
    if named is None:
        endpoint_id = await _endpoint_id(connection, asked)
        return None if endpoint_id is None else await undelivered.destinations_of(connection, endpoint_id)
    if asked.text("endpoint") is not None:
        raise ProblemError("parameter_invalid", "endpoint and destination exclude each other: give the narrowest")
    namespace, endpoint, name = named
    endpoint_id = await endpoints.id_of(connection, namespace, endpoint)
    found = [] if endpoint_id is None else await undelivered.destinations_of(connection, endpoint_id, name)
    if not found:
        raise ProblemError(
            "unknown_destination", f"there is no destination {'/'.join(named)}; GET /api/v1/endpoints lists all"
        )
    return found


async def list_attempts(request: web.Request) -> web.Response:
    """Answer with the newest attempts first."""
    asked = Parameters(request.query, "endpoint", "event", "delivery", "since", "limit", "cursor")
    now = request.app[CONTEXT].now()
    limit, before, since = asked.limit(), asked.id_cursor(), asked.since(now)
    event_id, delivery_id = asked.id("event"), asked.id("delivery")
    if len([one for one in (asked.text("endpoint"), event_id, delivery_id) if one is not None]) > 1:
        raise ProblemError("parameter_invalid", "endpoint, event and delivery exclude each other: give the narrowest")
    async with request.app[CONTEXT].storage.connection() as connection:
        rows = await attempts.page(
            connection,
            now=now,
            limit=limit + 1,
            before=before,
            since=since,
            endpoint_id=await _endpoint_id(connection, asked),
            delivery_id=delivery_id,
            event_id=event_id,
        )
    return _newest_first([documents.attempt(row) for row in rows], limit)


async def get_attempt(request: web.Request) -> web.Response:
    """Answer with one attempt, the response included as far as it was kept."""
    Parameters(request.query)
    attempt_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection:
        row = await attempts.get(connection, attempt_id)
    if row is None:
        raise ProblemError("unknown_attempt", f"there is no attempt {attempt_id}, or its retention is over")
    return answer(documents.whole_attempt(row))


async def list_replays(request: web.Request) -> web.Response:
    """Answer with Replays by name, those whose manifest is gone included."""
    asked = Parameters(request.query, "limit", "cursor")
    limit, after = asked.limit(), asked.replay_cursor()
    async with request.app[CONTEXT].storage.connection() as connection:
        found = await replays.page(connection, limit=limit + 1, after=after)
    last = found[limit - 1] if len(found) > limit else None
    return listing(
        [documents.replay(one) for one in found[:limit]],
        None if last is None else replay_cursor(last.namespace, last.name, last.declared_at),
    )


async def list_blocked(request: web.Request) -> web.Response:
    """Answer with the order keys that wait for a person."""
    asked = Parameters(request.query, "limit", "cursor")
    limit, after = asked.limit(), asked.line_cursor()
    async with request.app[CONTEXT].storage.connection() as connection:
        found = await turns.blocked(connection, limit=limit + 1, after=after)
    last = found[limit - 1] if len(found) > limit else None
    return listing(
        [documents.blocked(one) for one in found[:limit]],
        None if last is None else line_cursor((last.destination_id, last.key)),
    )


async def list_processes(request: web.Request) -> web.Response:
    """Answer with the processes that are alive."""
    Parameters(request.query)
    async with request.app[CONTEXT].storage.connection() as connection:
        rows = await processes.list_live(connection)
    return listing([documents.process(row) for row in rows], None)


def _newest_first(found: Sequence[shapes.Event | shapes.Delivery | shapes.Attempt], limit: int) -> web.Response:
    """Answer with a page of which one more was read than it holds, to know whether another one follows."""
    items = found[:limit]
    return listing(items, id_cursor(UUID(items[-1]["id"])) if len(found) > limit else None)


async def _endpoint_id(connection: Connection, asked: Parameters) -> UUID | None:
    named = asked.endpoint()
    if named is None:
        return None
    found = await endpoints.id_of(connection, *named)
    if found is None:
        raise ProblemError(
            "unknown_endpoint", f"there is no endpoint {'/'.join(named)}; GET /api/v1/endpoints lists all"
        )
    return found


ROUTES: Final = (
    Route(
        path="/api/v1/endpoints",
        handler=list_endpoints,
        says="endpoints, destinations, what waits (namespace, name)",
        query=("namespace", "name", "limit", "cursor"),
        gives=shapes.Endpoint,
        pages=True,
    ),
    Route(
        path="/api/v1/events",
        handler=list_events,
        says="events, newest first (endpoint, since)",
        query=("endpoint", "since", "limit", "cursor"),
        gives=shapes.Event,
        pages=True,
        problems=("unknown_endpoint",),
    ),
    Route(
        path="/api/v1/events/{id}",
        handler=get_event,
        says="one event with headers and body",
        gives=shapes.WholeEvent,
        problems=("unknown_event",),
    ),
    Route(
        path="/api/v1/deliveries",
        handler=list_deliveries,
        says="deliveries, newest first (state, endpoint, event, since)",
        query=("state", "endpoint", "event", "since", "limit", "cursor"),
        gives=shapes.Delivery,
        pages=True,
        problems=("unknown_endpoint",),
    ),
    Route(
        path="/api/v1/deliveries/{id}",
        handler=get_delivery,
        says="one delivery",
        gives=shapes.Delivery,
        problems=("unknown_delivery",),
    ),
    Route(
        path="/api/v1/deliveries/{id}/explanation",
        handler=explain_delivery,
        says="why a delivery is where it is, and when it goes next",
        gives=shapes.Explanation,
        problems=("unknown_delivery",),
    ),
    Route(
        path="/api/v1/undelivered",
        handler=list_undelivered,
        says="what was not delivered, newest first (endpoint or destination, fault, reason, late, since)",
        query=("endpoint", "destination", "fault", "reason", "late", "since", "limit", "cursor"),
        gives=shapes.Undelivered,
        pages=True,
        problems=("unknown_endpoint", "unknown_destination"),
    ),
    Route(
        path="/api/v1/undelivered/summary",
        handler=sum_undelivered,
        says="the same summed up by destination, reason and whose fault it is (endpoint, late)",
        query=("endpoint", "late", "limit", "cursor"),
        gives=shapes.UndeliveredSum,
        pages=True,
        problems=("unknown_endpoint",),
    ),
    Route(
        path="/api/v1/attempts",
        handler=list_attempts,
        says="attempts, newest first (endpoint or event or delivery, since)",
        query=("endpoint", "event", "delivery", "since", "limit", "cursor"),
        gives=shapes.Attempt,
        pages=True,
        problems=("unknown_endpoint",),
    ),
    Route(
        path="/api/v1/attempts/{id}",
        handler=get_attempt,
        says="one attempt with the response it got",
        gives=shapes.WholeAttempt,
        problems=("unknown_attempt",),
    ),
    Route(
        path="/api/v1/replays",
        handler=list_replays,
        says="replays and how far they are",
        query=("limit", "cursor"),
        gives=shapes.ReplayProgress,
        pages=True,
    ),
    Route(
        path="/api/v1/blocked",
        handler=list_blocked,
        says="order keys that wait for a person",
        query=("limit", "cursor"),
        gives=shapes.Blocked,
        pages=True,
    ),
    Route(
        path="/api/v1/processes",
        handler=list_processes,
        says="processes that are alive, and their generation",
        gives=shapes.Process,
        pages=True,
    ),
)
