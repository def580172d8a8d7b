"""Puts attempts into the log: the single writer, one transaction a batch.

The leader calls `integrate` for as long as it holds the log's lock. The lock keeps a second sequencer waiting; what
keeps it from doing harm is the compare-and-swap on the tree size. Whatever goes wrong, the sequencer's memory is thrown
away and read anew from what is stored, so it is never the truth.

A batch that fails for a reason of its own is tried once more as a whole, and then in halves, until the attempts that
cannot be put into the log are found. Those are parked, and tried again later; all others go on.
"""

import asyncio
import logging
import os
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import asyncpg

from kapsel_attestor import leaves
from kapsel_store import tlog
from kapsel_store.database import Connection, Pool, is_away
from kapsel_store.errors import ErasedMeanwhileError, StaleTreeError
from kapsel_store.tlog import Chain, LogState, NewLeaf, PendingAttempt, TileRow
from kapsel_tlog import tiles, tree
from kapsel_tlog.errors import DamagedTreeError, TlogError
from kapsel_tlog.tree import Tree
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.merkle import leaf_hash

CATCHING_UP: Final = 4000  # attempts in a batch that is read ahead: the larger, the fewer commits
AT_ONCE: Final = 64  # attempts that are encoded before others have a turn: a socket holds more of usual leaves
PARKED_LOOK: Final = 30.0  # seconds between looks at what was parked and is due
PARKED_BATCH: Final = 256
# Where so many attempts fail one by one and none passes, it is not the attempts.
SYSTEMATIC: Final = 8

Note = Callable[[Connection, int], Awaitable[None]]  # what is stored with a statement, by the index of its leaf

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoded:
    """A batch as it would be written where the tree is `base`."""

    base: Tree
    leaves: list[NewLeaf]
    chains: dict[str, Chain]
    grown: tree.Grown


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """Attempts that wait for a leaf, and what was done for them ahead of time."""

    attempts: Sequence[PendingAttempt]
    encoded: _Encoded | None = None
    following: Sequence[PendingAttempt] | None = None  # what waits after them, if it was read already


class Sequencer:
    """Extends one log over one connection."""

    def __init__(self, log: LogState, grown: Tree, parked: int, ahead: "Pool | None") -> None:
        self.log = log
        self.parked = parked  # how many attempts are
        self.latest_reason = ""  # why the last attempt was parked
        self.drained = True  # whether no more waited than were taken up last
        self._is_backlog = False
        self._tree = grown
        self._ahead = ahead
        self._next: asyncio.Task[_Taken] | None = None
        self._look_at = 0.0  # when to look at what was parked

    @classmethod
    async def open(cls, connection: Connection, log: LogState, *, ahead: "Pool | None" = None) -> "Sequencer":
        """Take up a log where it stands; raise DamagedTreeError if the edge of its tree cannot be read.

        With `ahead` the next batch is encoded, and the one after it read over another connection, while one is written.
        """
        stored = await tlog.tiles(connection, log.id, tiles.edge(log.tree_size))
        await tlog.forget_parked(connection)
        return cls(log, tree.load(log.tree_size, stored), await tlog.parked_count(connection), ahead)

    async def integrate(self, connection: Connection, limit: int) -> int:
        """Put the oldest waiting attempts, at most `limit` where none were read ahead, into the log; return how many.

        Raises StaleTreeError if another sequencer has moved the tree.
        """
        await self._try_parked(connection)
        taken = await self._take_up(connection, limit)
        if taken.attempts:
            await self._integrate(connection, taken)
        return len(taken.attempts)

    async def state(self, connection: Connection, leaf: bytes, note: Note) -> None:
        """Put what the log says about itself into the log, and what `note` writes about that leaf with it."""
        index = self.log.tree_size
        grown = tree.append(self._tree, [leaf_hash(leaf)])
        root = grown.tree.root()
        async with connection.transaction():
            await tlog.append(
                connection,
                self.log,
                new_size=grown.tree.size,
                root=root,
                leaves=[NewLeaf(index, None, leaf)],
                tiles=[TileRow(level=tile.level, index=tile.number, hashes=held) for tile, held in grown.tiles.items()],
                chains=[],
            )
            await note(connection, index)
        # A crash here, or a lost answer, leaves a longer tree that nobody has signed: it is taken up as it stands.
        self.log = replace(self.log, tree_size=grown.tree.size, root=root)
        self._tree = grown.tree

    async def close(self) -> None:
        """Stop reading ahead."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
            self._next = None

    async def _take_up(self, connection: Connection, limit: int) -> _Taken:
        if self._next is not None:
            taken, self._next = await self._next, None
            if taken.attempts:
                # What came in meanwhile under an earlier id was not looked for: it is, by the next round.
                self._is_backlog, self.drained = len(taken.attempts) == CATCHING_UP, False
                return taken
        found = await tlog.pending(connection, limit)
        self._is_backlog = len(found) == limit
        self.drained = not self._is_backlog
        return _Taken(attempts=found)

    async def _look_ahead(self, pool: "Pool", written: _Taken, before: _Encoded) -> _Taken:
        """Encode what follows as it will be written once the batch `before` it is, and read what follows that."""
        async with pool.acquire(timeout=5) as connection:
            found = written.following
            if found is None:
                found = await tlog.pending(connection, CATCHING_UP, after=written.attempts[-1].id)
            if not found:
                return _Taken(attempts=found)
            known = await self._known(connection, found, before.chains)
            reading = asyncio.create_task(tlog.pending(connection, CATCHING_UP, after=found[-1].id))
            try:
                encoded = await self._try_to_encode(found, before.grown.tree, known)
                return _Taken(attempts=found, encoded=encoded, following=await reading)
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _try_to_encode(
        self, waiting: Sequence[PendingAttempt], base: Tree, known: Mapping[str, Chain]
    ) -> _Encoded | None:
        try:
            return await self._encode(waiting, base, known)
        except Exception as error:
            if not _is_of_the_batch(error):
                raise
            return None  # it fails once more where it is dealt with

    async def _try_parked(self, connection: Connection) -> None:
        """Try once more what was parked and is due: all of it at the start, for this version may know better."""
        if not self.parked or time.monotonic() < self._look_at:
            return
        due = await tlog.parked_due(connection, PARKED_BATCH, early=not self._look_at)
        self._look_at = time.monotonic() + PARKED_LOOK
        # What was erased meanwhile, or is gone with its retention, needs no leaf any more.
        await tlog.forget_parked(connection)
        self.parked = await tlog.parked_count(connection)
        if due:
            await self._integrate(connection, _Taken(attempts=due), judged=True)

    async def _integrate(self, connection: Connection, taken: _Taken, *, judged: bool = False) -> None:
        waiting, encoded = taken.attempts, taken.encoded
        try:
            if encoded is None or encoded.base is not self._tree:
                encoded = await self._encode(waiting, self._tree, await self._known(connection, waiting, {}))
            if self._ahead is not None and self._is_backlog and not judged:
                self._next = asyncio.create_task(self._look_ahead(self._ahead, taken, encoded))
            await self._append(connection, waiting, encoded, judged=judged)
            return
        except ErasedMeanwhileError:
            await self.close()
            await self._read_anew(connection)
            self.drained = False  # all others still wait, and are read again
            return
        except Exception as error:
            if not _is_of_the_batch(error):
                raise
            logger.warning("a batch of %d attempts cannot be put into the log: %s", len(waiting), _text(error))
        await self.close()
        await self._read_anew(connection)
        offending = dict[str, str]()
        passed = await self._bisect(connection, waiting, offending, judged=judged)
        await tlog.park(connection, offending)
        # A crash up to here parks nothing: the same attempts wait, fail, and are found again.
        self.parked = await tlog.parked_count(connection)
        for attempt_id, reason in offending.items():
            self.latest_reason = reason
            logger.error("attempt %s cannot be put into the log, %d others could: %s", attempt_id, passed, reason)

    async def _bisect(
        self, connection: Connection, waiting: Sequence[PendingAttempt], offending: dict[str, str], *, judged: bool
    ) -> int:
        """Append all that can be appended, in ever smaller parts; note the rest, and return how many passed.

        Raises what so many fail with that it is not their fault, unless they were `judged`, and parked, before.
        """
        # A few from everywhere go first, the newest before all: if one of them passes, the oldest may all fail, and are
        # parked instead of stopping the log.
        spread = max(min(SYSTEMATIC, len(waiting)) - 1, 1)
        places = sorted({place * (len(waiting) - 1) // spread for place in range(spread + 1)})
        sample = [waiting[place] for place in places]
        rest = [attempt for place, attempt in enumerate(waiting) if place not in places]
        passed, parts = 0, [part for part in (rest, *([attempt] for attempt in sample)) if part]
        while parts:
            part = parts.pop()
            try:
                encoded = await self._encode(part, self._tree, await self._known(connection, part, {}))
                await self._append(connection, part, encoded, judged=judged)
                passed += len(part)
            except Exception as error:
                if not _is_of_the_batch(error):
                    raise
                if isinstance(error, ErasedMeanwhileError) and len(part) == 1:
                    continue
                if len(part) > 1:
                    middle = len(part) // 2
                    parts += [part[middle:], part[:middle]]
                    continue
                offending[part[0].id] = _text(error)
                if len(offending) >= SYSTEMATIC and not passed and not judged:
                    if isinstance(error, asyncpg.PostgresError):
                        error.detail = None  # it quotes the row, and whoever catches this logs it
                    raise
        return passed

    async def _known(
        self, connection: Connection, waiting: Sequence[PendingAttempt], newer: Mapping[str, Chain]
    ) -> dict[str, Chain]:
        """Return where the endpoints of the attempts stand: `newer` than what is stored, or as it is stored."""
        endpoints = {attempt.endpoint_id for attempt in waiting}.difference(newer)
        return {**await tlog.chains(connection, self.log.id, list(endpoints)), **newer}

    async def _encode(self, waiting: Sequence[PendingAttempt], base: Tree, chains: Mapping[str, Chain]) -> _Encoded:
        """Return attempts as leaves that follow the tree `base`, where their endpoints stand as `chains` says."""
        known = dict(chains)
        rows, changed, grown = list[NewLeaf](), dict[str, Chain](), tree.Grown(tree=base, tiles={})
        for first in range(0, len(waiting), AT_ONCE):
            some = waiting[first : first + AT_ONCE]
            part = leaves.batch(some, known, base.size + first, os.urandom(leaves.SALT_BYTES * len(some)))
            rows.extend(part.leaves)
            changed.update(part.chains)
            known.update(part.chains)
            further = tree.append(grown.tree, part.hashes)
            grown = tree.Grown(tree=further.tree, tiles={**grown.tiles, **further.tiles})
            await asyncio.sleep(0)  # the batch before it is being sent to the database, as fast as that reads it
        return _Encoded(base=base, leaves=rows, chains=changed, grown=grown)

    async def _append(
        self, connection: Connection, waiting: Sequence[PendingAttempt], encoded: _Encoded, *, judged: bool
    ) -> None:
        # A crash up to here has written nothing: the attempts still wait.
        grown = encoded.grown
        root = grown.tree.root()
        try:
            await tlog.append(
                connection,
                self.log,
                new_size=grown.tree.size,
                root=root,
                leaves=encoded.leaves,
                tiles=[TileRow(level=tile.level, index=tile.number, hashes=held) for tile, held in grown.tiles.items()],
                chains=list(encoded.chains.values()),
            )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name == "leaves_pkey":
                raise DamagedTreeError(f"there is a leaf {self.log.tree_size} or later that is in no tree") from error
            raise
        # A crash here, or a lost answer, leaves a longer tree that nobody has signed: it is taken up as it stands.
        self.log = replace(self.log, tree_size=grown.tree.size, root=root)
        self._tree = grown.tree
        if judged:
            # A crash before leaves a note about an attempt that has its leaf: the next start forgets it.
            self.parked -= await tlog.unpark(connection, [attempt.id for attempt in waiting])

    async def _read_anew(self, connection: Connection) -> None:
        log = await tlog.state(connection, self.log.origin)
        if log is None or log.tree_size != self.log.tree_size:
            raise StaleTreeError(self.log.origin, self.log.tree_size, -1 if log is None else log.tree_size)
        stored = await tlog.tiles(connection, log.id, tiles.edge(log.tree_size))
        self.log, self._tree = log, tree.load(log.tree_size, stored)


def _is_of_the_batch(error: Exception) -> bool:
    """Whether an error may be the fault of single attempts, and not of the database or of the tree."""
    if is_away(error) or isinstance(error, StaleTreeError | TlogError):
        return False
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return error.table_name == "leaves"
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, asyncpg.DataError)
    return True


def _text(error: Exception) -> str:
    """Say what is wrong without a word of what was to be stored, which is kept longer here than it may be there."""
    if isinstance(error, VerificationError):
        return str(error)[:1000]
    if isinstance(error, asyncpg.PostgresError):
        what = " ".join(filter(None, (error.sqlstate, error.constraint_name)))
        return f"{type(error).__name__}: {what}"
    return f"{type(error).__name__} in {traceback.extract_tb(error.__traceback__)[-1].name}"
