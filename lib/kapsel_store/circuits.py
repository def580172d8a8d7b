"""What is known of each destination at run time, shared by all deliverers: its circuit, and whether it was stopped.

The rules are not here: callers pass a pure function from row to row, and this module runs it under the row's lock.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

import asyncpg

from kapsel_store.database import Connection
from kapsel_store.queries import one, statement


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitRow:
    """One destination's circuit."""

    destination_id: UUID
    state: Literal["closed", "open", "half_open"] = "closed"
    window_started_at: datetime
    attempts: int = 0  # within the window
    failures: int = 0  # within the window
    open_until: datetime | None = None  # open: when to probe; half_open: when unanswered probes are given up
    probes_left: int = 0  # half_open: how many probes may still be sent
    probe_successes: int = 0
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    recovering_since: datetime | None = None  # closed a while ago, and traffic is let back in by steps
    failing_since: datetime | None = None  # the first of nothing but failures
    warned_at: datetime | None = None  # that it will be disabled if it goes on like this


async def load(connection: Connection, destination_ids: Sequence[UUID]) -> dict[UUID, CircuitRow]:
    """Return the circuits that differ from a fresh one, by destination."""
    rows = await connection.fetch(statement("circuits.load"), list(destination_ids))
    return {row["destination_id"]: _circuit(row)[0] for row in rows}


async def change(
    connection: Connection,
    destination_id: UUID,
    decide: Callable[[CircuitRow, datetime], CircuitRow],
    begun: Callable[[str, CircuitRow, CircuitRow], None] | None = None,
) -> tuple[CircuitRow, CircuitRow]:
    """Replace a circuit by `decide(circuit, now)` under its lock, `now` by the database; return (before, after).

    `begun` is told the id of the transaction, and both, before anything is written: if the COMMIT is not answered,
    `is_committed` knows by these what became of that.
    """
    async with connection.transaction():
        row = await connection.fetchrow(statement("circuits.lock"), destination_id)
        if row is None:
            await connection.execute(statement("circuits.ensure"), destination_id)
            row = await one(connection, "circuits.lock", destination_id)
        before, now = _circuit(row)
        after = decide(before, now)
        if begun is not None:
            begun(row["transaction_id"], before, after)
        if after != before:
            await connection.execute(
                statement("circuits.write"),
                destination_id,
                after.state,
                after.window_started_at,
                after.attempts,
                after.failures,
                after.open_until,
                after.probes_left,
                after.probe_successes,
                after.disabled_at,
                after.disabled_reason,
                after.recovering_since,
                after.failing_since,
                after.warned_at,
            )
    return before, after


async def is_committed(
    connection: Connection, transaction_id: str, before: CircuitRow, after: CircuitRow
) -> bool | None:
    """Return whether the transaction of a change was committed; None while it is under way.

    A server that has never heard of it, for it was promoted without it, has not committed it. Nor has one that was
    promoted without it and has given its id to another since, if the circuit is as it was before. If it is not, since
    others have changed it or it has lost more, that cannot be told: it is taken for made, lest it is counted twice. One
    that a person has set back to what it was, in the seconds until this is asked, is made again.
    """
    try:
        status = await connection.fetchval(statement("circuits.outcome"), transaction_id)
    except asyncpg.InvalidParameterValueError:
        return False
    if status != "committed":
        return None if status == "in progress" else False
    if after == before:
        return True
    found = await load(connection, [before.destination_id])
    return found.get(before.destination_id) not in (None, before)


def _circuit(row: asyncpg.Record) -> tuple[CircuitRow, datetime]:
    fields = dict(row)
    now = fields.pop("read_at")
    fields.pop("transaction_id", None)
    return CircuitRow(**fields), now
