"""Holds what is stored against what was accepted and what the destinations saw."""

import asyncio
from collections.abc import Mapping
from uuid import UUID

import asyncpg

from traffic.destination import Destination


async def settled(connection: asyncpg.Connection) -> None:
    """Wait until no delivery is under way and every attempt has its leaf, under a head that is published."""
    async with asyncio.timeout(480):
        while await connection.fetchval(
            """SELECT EXISTS (SELECT FROM deliveries_live) OR EXISTS (SELECT FROM unsequenced)
                   OR (SELECT tree_size FROM logs) > coalesce((SELECT max(tree_size) FROM heads), 0)"""
        ):
            await asyncio.sleep(0.1)


async def account(connection: asyncpg.Connection, accepted: Mapping[str, str], destination: Destination) -> None:
    """Each accepted webhook is one event, delivered to both destinations, and every try is in the log."""
    events = {row["id"] for row in await connection.fetch("SELECT id FROM events")}
    assert {UUID(event) for event in accepted.values()} <= events
    assert len(set(accepted.values())) == len(accepted)
    deliveries = await connection.fetch("SELECT event_id, state FROM deliveries")
    assert {row["state"] for row in deliveries} == {"delivered"}
    assert len(deliveries) == 2 * len(events)
    recorded = await connection.fetch("SELECT event_id, url, outcome, number FROM attempts")
    assert await connection.fetchval("SELECT count(*) FROM leaves") == len(recorded)
    for path, seen in destination.seen.items():
        delivered = {row["event_id"] for row in recorded if row["url"].endswith(path) and row["outcome"] == "delivered"}
        assert delivered == events
        assert {UUID(identifier) for identifier in seen} == events
        tries = [row for row in recorded if row["url"].endswith(path)]
        answered = [row for row in tries if row["outcome"] in ("delivered", "refused")]
        assert len(answered) <= seen.total()
