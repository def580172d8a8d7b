"""Replays as they are declared and as they are told of: the plan applies those of manifests, the console those that a
person asks for; the operator and the console list them.

How one is carried out is in `replay_runs`. A replay that was carried out is never carried out again, also when its
manifest goes and comes back: what it selected would be sent twice.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

import asyncpg

from kapsel_store import audit
from kapsel_store.database import Connection
from kapsel_store.queries import statement
from kapsel_store.rows import ReplayRow
from kapsel_store.states import State

BEFORE_ALL: Final = datetime(1970, 1, 1, tzinfo=UTC)


# Of one namespace, asked for and not ended. Deliverers carry out replays in turn, a part of each, and every one of them
# reads the events of its time: more than a person oversees would make all of them crawl, and slow down what comes in.
MOST_ASKED: Final = 20

# What became of a replay that a person asked for. name_taken: by another selection of theirs; too_many: MOST_ASKED.
Asked = Literal["made", "changed", "same", "name_taken", "too_many"]


class Phase(StrEnum):
    """Where a replay is."""

    WAITING = "waiting"
    COUNTING = "counting"
    ENQUEUING = "enqueuing"
    DELIVERING = "delivering"  # every new delivery was made, and some have not ended
    COMPLETE = "complete"
    SUSPENDED = "suspended"
    REMOVED = "removed"  # its manifest was taken away before it was complete, or a person cancelled it


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayProgress:
    """One replay and how far it is."""

    id: UUID
    namespace: str
    name: str
    endpoint: str  # the name of the WebhookEndpoint, in the same namespace
    received_from: datetime
    received_to: datetime
    states: tuple[State, ...]
    reasons: tuple[str, ...] | None  # as ReplayRow has them
    missing: bool
    dry_run: bool
    rate: int
    suspend: bool
    declared_at: datetime
    removed_at: datetime | None
    started_at: datetime | None
    counted_at: datetime | None  # from then on `matched` is final
    enqueued_at: datetime | None  # from then on `enqueued` and what was skipped are final
    completed_at: datetime | None
    matched: int  # deliveries that the selection meant when the replay began
    enqueued: int  # new deliveries that were made
    skipped_events: int  # matched, and the event's retention was over
    skipped_destinations: int  # matched, and the destination was removed
    skipped_pending: int  # matched, and being delivered again by somebody else when their turn came
    delivered: int  # new deliveries that ended well
    failed: int  # new deliveries that were given up or cancelled
    filter: str | None  # as ReplayRow has it
    unjudged: int  # not matched, for the filter could not be evaluated on their event
    asked: bool  # as ReplayRow has it

    @property
    def phase(self) -> Phase:
        """Where it is."""
        if self.completed_at is not None:
            return Phase.COMPLETE
        if self.removed_at is not None:
            return Phase.REMOVED
        if self.enqueued_at is not None:
            return Phase.DELIVERING
        if self.suspend:
            return Phase.SUSPENDED
        if self.counted_at is not None:
            return Phase.ENQUEUING
        return Phase.WAITING if self.started_at is None else Phase.COUNTING

    @property
    def message(self) -> str:
        """One sentence for a person."""
        if self.started_at is None:
            return "it has not begun yet"
        matched = f"{self.matched} matched" + ("" if self.counted_at else " so far")
        if self.unjudged:
            matched += f" ({self.unjudged} left out because the filter could not be evaluated on their event)"
        if self.dry_run:
            return f"{matched}; a dry run delivers nothing"
        said = [matched, f"{self.enqueued} enqueued", f"{self.delivered} delivered"]
        if self.failed:
            said.append(f"{self.failed} failed")
        if self.skipped_events:
            said.append(f"{self.skipped_events} skipped because the retention of their event is over")
        if self.skipped_destinations:
            said.append(f"{self.skipped_destinations} skipped because their destination was removed")
        if self.skipped_pending:
            said.append(f"{self.skipped_pending} skipped because they were delivered again meanwhile")
        return ", ".join(said)


async def apply(
    connection: Connection,
    rows: Sequence[ReplayRow],
    *,
    kept: Collection[tuple[str, str]] = (),
    complete: bool = True,
    actor: str,
) -> None:
    """Make `rows` the declared replays, in one transaction; no change, no write.

    Those of the names in `kept` stay as they are, and unless `complete` all others that `rows` has no newer form of.
    """
    named = {(row.namespace, row.name) for row in rows}
    meant = set(kept) - named if complete else named
    async with connection.transaction():
        await connection.execute(statement("configuration.lock"))
        removed = await connection.fetch(
            statement("replays.remove"),
            [row.id for row in rows],
            [namespace for namespace, _ in meant],
            [name for _, name in meant],
            not complete,
        )
        written = [put["name"] for row in rows if (put := await _put(connection, row)) is not None]
        if removed or written:
            detail = {"written": written, "removed": [row["name"] for row in removed]}
            await audit.write(connection, actor=actor, action="replays.apply", subject="replays", detail=detail)
    # A crash before the commit leaves all as it was; after it, deliverers find what is new by polling.


async def ask(connection: Connection, row: ReplayRow) -> Asked:
    """Make a replay that a person asks for; what was asked before keeps what it has done, as with manifests."""
    try:
        async with connection.transaction():
            await connection.execute(statement("replays.lock_asking"))
            if await connection.fetchval(statement("replays.before_asked"), row.id, row.namespace) >= MOST_ASKED:
                return "too_many"
            written = await _put(connection, row)
    except asyncpg.UniqueViolationError:
        return "name_taken"
    if written is None:
        return "same"
    return "made" if written["made"] else "changed"


async def cancel(connection: Connection, replay_id: UUID) -> bool:
    """Stop a replay that a person asked for where it is; return whether there was anything to stop."""
    return await connection.fetchval(statement("replays.cancel"), replay_id) is not None


async def suspend(connection: Connection, replay_id: UUID, suspended: bool) -> bool:
    """Suspend a replay that a person asked for, or have it go on; return whether that changed anything."""
    return await connection.fetchval(statement("replays.pace"), replay_id, suspended) is not None


async def get(connection: Connection, replay_id: UUID) -> ReplayProgress | None:
    """Return one replay, None if there is none."""
    row = await connection.fetchrow(statement("replays.get"), replay_id)
    return None if row is None else _progress(row)


async def _put(connection: Connection, row: ReplayRow) -> asyncpg.Record | None:
    return await connection.fetchrow(
        statement("replays.put"),
        row.id,
        row.namespace,
        row.name,
        row.endpoint_id,
        row.destinations,
        row.received_from,
        row.received_to,
        row.states,
        row.dry_run,
        row.rate,
        row.suspend,
        row.reasons,
        row.missing,
        row.anyway,
        row.asked,
        row.filter,
    )


async def progress(connection: Connection, *, asked: bool = False) -> list[ReplayProgress]:
    """Return the replays that manifests declare now, by name; with `asked` also those that people asked for."""
    return [_progress(row) for row in await connection.fetch(statement("replays.progress"), asked)]


async def page(
    connection: Connection, *, limit: int, after: tuple[str, str, datetime] = ("", "", BEFORE_ALL)
) -> list[ReplayProgress]:
    """Return all replays that are remembered, by name and age, those that follow `after`."""
    return [_progress(row) for row in await connection.fetch(statement("replays.page"), *after, limit)]


async def forget(connection: Connection, before: datetime, batch: int) -> None:
    """Forget replays that ended before then with no manifest, and what is not needed of those that are complete."""
    await connection.execute(statement("replays.forget"), before)
    while await connection.execute(statement("replays.forget_made"), batch) == f"DELETE {batch}":
        pass
    while await connection.execute(statement("replays.forget_superseded"), before, batch) == f"DELETE {batch}":
        pass


def _progress(row: asyncpg.Record) -> ReplayProgress:
    fields = dict(row)
    states = tuple(State(state) for state in fields.pop("states"))
    reasons = fields.pop("reasons")
    fields["reasons"] = None if reasons is None else tuple(reasons)
    return ReplayProgress(states=states, endpoint=fields.pop("endpoint") or "", **fields)
