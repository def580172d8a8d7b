"""Endpoints and destinations as people see them: what is declared, what waits, and what is known of the other side.

The console lists them. `configuration` writes the rows and loads them for the data plane; here no key is opened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from kapsel_store import circuits, specs
from kapsel_store.circuits import CircuitRow
from kapsel_store.database import Connection
from kapsel_store.queries import statement
from kapsel_store.rows import DestinationRow, EndpointRow

MOST_COUNTED: Final = 10_000  # pending deliveries of one destination


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedDestination:
    """One destination and what waits for it."""

    row: DestinationRow
    generation: int  # of the configuration that last changed it
    pending: int  # MOST_COUNTED + 1 means more than that
    sending: int
    oldest_pending: datetime | None  # when the oldest of the counted ones was made
    circuit: CircuitRow | None  # None: as fresh as on the first day


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedEndpoint:
    """One endpoint and its destinations by name."""

    row: EndpointRow
    generation: int
    destinations: tuple[ListedDestination, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDestination:
    """What a destination is called, and whether its manifest has suspended it."""

    namespace: str
    endpoint: str
    name: str
    suspend: bool


async def page(
    connection: Connection,
    *,
    limit: int,
    after: tuple[str, str] = ("", ""),
    namespace: str | None = None,
    name: str | None = None,
    counted: int = MOST_COUNTED,
) -> list[ListedEndpoint]:
    """Return endpoints by namespace and name, those that follow `after`, what waits counted up to `counted` + 1."""
    rows = await connection.fetch(statement("endpoints.page"), *after, namespace, name, limit)
    endpoints = [(specs.ENDPOINT.validate_json(row["spec"]), row["generation"]) for row in rows]
    destinations = await _destinations(connection, [endpoint.id for endpoint, _ in endpoints], counted)
    return [
        ListedEndpoint(row=endpoint, generation=generation, destinations=destinations.get(endpoint.id, ()))
        for endpoint, generation in endpoints
    ]


async def _destinations(
    connection: Connection, endpoint_ids: Sequence[UUID], counted: int
) -> Mapping[UUID, tuple[ListedDestination, ...]]:
    rows = await connection.fetch(statement("endpoints.destinations"), endpoint_ids, counted + 1)
    found = [(specs.destination(row["spec"], row["policy"]), row) for row in rows]
    known = await circuits.load(connection, [destination.id for destination, _ in found])
    listed: dict[UUID, tuple[ListedDestination, ...]] = {}
    for destination, row in found:
        one = ListedDestination(
            row=destination,
            generation=row["generation"],
            pending=row["pending"],
            sending=row["sending"],
            oldest_pending=row["oldest_pending"],
            circuit=known.get(destination.id),
        )
        listed[destination.endpoint_id] = (*listed.get(destination.endpoint_id, ()), one)
    return listed


async def destination(connection: Connection, destination_id: UUID) -> NamedDestination | None:
    """Return one destination by name, or None if there is none or it was removed."""
    row = await connection.fetchrow(statement("endpoints.destination"), destination_id)
    return None if row is None else NamedDestination(**dict(row))


async def declared(connection: Connection, namespace: str, name: str) -> tuple[UUID, Mapping[str, UUID]] | None:
    """Return an endpoint that is declared now, and its destinations by name."""
    row = await connection.fetchrow(statement("endpoints.declared"), namespace, name)
    return None if row is None else (row["id"], dict(zip(row["names"], row["ids"], strict=True)))


async def id_of(connection: Connection, namespace: str, name: str) -> UUID | None:
    """Return the id of the endpoint that has this name, or had it last; None if there never was one."""
    found: UUID | None = await connection.fetchval(statement("endpoints.id_of"), namespace, name)
    return found
