"""Puts attempts into the log: the single writer, one transaction a batch.

The attestor's loop calls `integrate` for as long as it holds the log's lock. The lock keeps a second sequencer waiting;
what keeps it from doing harm is the compare-and-swap on the tree size. Whatever goes wrong, the sequencer is thrown
away and opened anew from what is stored, so its memory is never the truth.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from kapsel_attestor import leaves
from kapsel_store import tlog
from kapsel_store.database import Connection
from kapsel_store.tlog import LogState, PendingAttempt, TileRow
from kapsel_tlog import tiles, tree
from kapsel_tlog.tree import Tree

logger = logging.getLogger(__name__)


class Sequencer:
    """Extends one log over one connection."""

    def __init__(self, log: LogState, grown: Tree) -> None:
        self.log = log
        self.parked: set[UUID] = set()
        self._tree = grown

    @classmethod
    async def open(cls, connection: Connection, log: LogState) -> "Sequencer":
        """Take up a log where it stands; raise DamagedTreeError if the edge of its tree cannot be read."""
        stored = await tlog.tiles(connection, log.id, tiles.edge(log.tree_size))
        return cls(log, tree.load(log.tree_size, stored))

    async def integrate(self, connection: Connection, limit: int) -> int:
        """Put the oldest waiting attempts, at most `limit`, into the log; return how many were taken up.

        Raises StaleTreeError if another sequencer has moved the tree.
        """
        found = await tlog.pending(connection, limit + len(self.parked))
        waiting = [attempt for attempt in found if attempt.id not in self.parked][:limit]
        if not waiting:
            return 0
        batch = await self._encode(connection, waiting)
        # A crash up to here has written nothing: the attempts still wait.
        if batch.leaves:
            await self._append(connection, batch)
        return len(waiting)

    async def _encode(self, connection: Connection, waiting: Sequence[PendingAttempt]) -> leaves.Batch:
        endpoints = {attempt.endpoint_id for attempt in waiting}
        chains = await tlog.chains(connection, self.log.id, list(endpoints))
        entropy = os.urandom(leaves.SALT_BYTES * len(waiting))
        batch = leaves.batch(waiting, chains, self.log.tree_size, entropy)
        for attempt_id, error in batch.unencodable.items():
            # It stays unsequenced and is tried again by the next process, which may know better.
            logger.error("attempt %s cannot be put into the log: %s", attempt_id, error)
            self.parked.add(attempt_id)
        return batch

    async def _append(self, connection: Connection, batch: leaves.Batch) -> None:
        grown = tree.append(self._tree, batch.hashes)
        root = grown.tree.root()
        await tlog.append(
            connection,
            self.log,
            new_size=grown.tree.size,
            root=root,
            leaves=batch.leaves,
            tiles=[TileRow(level=tile.level, index=tile.number, hashes=held) for tile, held in grown.tiles.items()],
            chains=batch.chains,
        )
        # A crash here, or a lost answer, leaves a longer tree that nobody has signed: it is taken up as it stands.
        self.log = replace(self.log, tree_size=grown.tree.size, root=root)
        self._tree = grown.tree
