"""Tells the person at `kapsel up` when a Replay is complete."""

from uuid import UUID

from kapsel_store import replays
from kapsel_store.database import Connection
from kapsel_store.replays import Phase


class ReplayNews:
    """Knows which Replays were complete at the last look; at the first, all that are count as told."""

    def __init__(self) -> None:
        self._told: set[UUID] | None = None

    async def look(self, connection: Connection) -> list[str]:
        """Return a line for each Replay that has become complete since the last look."""
        complete = [one for one in await replays.progress(connection, asked=True) if one.phase is Phase.COMPLETE]
        told = {one.id for one in complete} if self._told is None else self._told
        self._told = {one.id for one in complete}
        return [
            f"replay {one.namespace}/{one.name} is complete: {one.message}" for one in complete if one.id not in told
        ]
