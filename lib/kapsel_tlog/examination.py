"""The whole examination of a log: every leaf, tile, head, chain and statement, whatever else is wrong with it.

`kapsel log check` runs it, in one transaction that sees one moment of the database. Where the attestor stops at the
first thing that does not fit, this goes on, so that a person sees how far the damage reaches.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from kapsel_store import tlog
from kapsel_store.database import Connection
from kapsel_store.tlog import LeafRow, LogState
from kapsel_tlog import check
from kapsel_tlog.check import RUN
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.tree import Tree, append
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.leaf import Leaf, parse_any
from kapsel_verifier.merkle import HASH_SIZE, leaf_hash
from kapsel_verifier.statements import KeySuccession, LogContinuation, Statement
from kapsel_verifier.tiles import WIDTH, Tile, path, split, width

MOST_FINDINGS: Final = 1000  # told one by one; the rest is counted
PAGE: Final = 1000


@dataclass(slots=True, kw_only=True)
class Examination:
    """What was seen of one log, and what does not fit."""

    log: LogState
    leaves: int = 0
    erased: int = 0
    statements: int = 0
    heads: int = 0
    endpoints: int = 0
    findings: list[str] = field(default_factory=list)
    untold: int = 0  # findings beyond those that are told

    def note(self, finding: str) -> None:
        """Note one thing that does not fit."""
        if len(self.findings) < MOST_FINDINGS:
            self.findings.append(finding)
        else:
            self.untold += 1


async def examine(connection: Connection, log: LogState, tell: Callable[[int], None]) -> Examination:
    """Examine a log; `tell` hears how many leaves are behind it. The caller's transaction says which moment is seen."""
    seen = Examination(log=log)
    chains = _Chains(seen)
    tree = Tree()
    for first in range(0, log.tree_size, RUN):
        count = min(RUN, log.tree_size - first)
        hashes = await _hashes(connection, seen, first, count)
        rows = {row.leaf_index: row for row in await tlog.leaves(connection, log.id, first, count)}
        for index, held in enumerate(hashes, first):
            row = rows.get(index)
            if row is None:
                seen.note(f"leaf {index} is missing")
            else:
                await _leaf(connection, seen, chains, row, held)
            if held is None and row is not None and row.leaf is not None:
                hashes[index - first] = leaf_hash(row.leaf)
        tree = await _extend(connection, seen, tree, [held or bytes(HASH_SIZE) for held in hashes])
        seen.leaves += len(rows)
        tell(first + count)
    if tree.root() != log.root:
        seen.note(f"the tiles do not fold to the root that was stored for {log.tree_size} leaves")
    if await tlog.leaves(connection, log.id, log.tree_size, 1):
        seen.note(f"there is a leaf {log.tree_size} that is in no tree")
    await _heads(connection, seen)
    await chains.compare(connection)
    return seen


async def _hashes(connection: Connection, seen: Examination, first: int, count: int) -> list[bytes | None]:
    run = [Tile(0, number) for number in range(first // WIDTH, -(-(first + count) // WIDTH))]
    stored = await tlog.tiles(connection, seen.log.id, run)
    hashes = list[bytes | None]()
    for tile in run:
        needed = width(tile, seen.log.tree_size)
        held: Sequence[bytes] = split(stored.get(tile, b"")[: needed * HASH_SIZE])
        if len(held) < needed:
            seen.note(f"tile {path(tile, needed)} has {len(held)} hashes of {needed}")
        hashes += [*held, *([None] * (needed - len(held)))]
    return hashes


async def _leaf(connection: Connection, seen: Examination, chains: "_Chains", row: LeafRow, held: bytes | None) -> None:
    index, data = row.leaf_index, row.leaf
    if data is None:
        seen.erased += 1
        if held is not None:
            chains.erased.add(held)
        return
    digest = leaf_hash(data)
    if held is not None and digest != held:
        seen.note(f"leaf {index} is not what its hash in the tree says")
    try:
        said = parse_any(data)
    except VerificationError as error:
        seen.note(f"leaf {index} cannot be read: {error}")
        return
    if isinstance(said, Leaf):
        if str(row.attempt_id) != said.delivery_attempt_id:
            seen.note(f"leaf {index} is stored for attempt {row.attempt_id} and is of {said.delivery_attempt_id}")
        chains.follow(index, said, digest)
    else:
        seen.statements += 1
        await _statement(connection, seen, index, said)


async def _statement(connection: Connection, seen: Examination, index: int, said: Statement) -> None:
    if said.origin != seen.log.origin:
        seen.note(f"the statement in leaf {index} is of the log {said.origin}")
    try:
        if isinstance(said, KeySuccession):
            said.verify()
            return
        old = said.predecessor()
    except VerificationError as error:
        seen.note(f"the statement in leaf {index} does not hold: {error}")
        return
    if index:
        seen.note(f"leaf {index} says that the log continues another, which only its first leaf may")
    await _continuation(connection, seen, index, said, old.origin)


async def _continuation(
    connection: Connection, seen: Examination, index: int, said: LogContinuation, origin: str
) -> None:
    """Hold the statement against the old log, if this database has that: nothing was published after it."""
    old = await tlog.state(connection, origin)
    last = None if old is None else await tlog.latest_head(connection, old.id)
    if last is None:
        return
    if last.tree_size > said.predecessor().tree_size:
        seen.note(f"the statement in leaf {index} is older than the last head of {origin}")


async def _extend(connection: Connection, seen: Examination, tree: Tree, hashes: list[bytes]) -> Tree:
    grown = append(tree, hashes)
    stored = await tlog.tiles(connection, seen.log.id, [tile for tile in grown.tiles if tile.level])
    for tile, expected in grown.tiles.items():
        if tile.level and stored.get(tile, b"")[: len(expected)] != expected:
            seen.note(f"tile {path(tile, len(expected) // HASH_SIZE)} does not follow from what is below it")
    return grown.tree


async def _heads(connection: Connection, seen: Examination) -> None:
    after, size = -1, 0
    while heads := await tlog.all_heads(connection, seen.log.id, after, PAGE):
        for head in heads:
            seen.heads += 1
            if head.tree_size < size:
                seen.note(
                    f"the head of {head.tree_size} leaves, dated {head.timestamp_ms}, is later than one of {size}"
                )
            size = max(size, head.tree_size)
            try:
                await check.require_head(connection, seen.log, head)
            except DamagedTreeError as error:
                seen.note(str(error))
        after = heads[-1].timestamp_ms


class _Chains:
    """Follows each endpoint from leaf to leaf: its sequence has no gaps, and each leaf names the one before it."""

    def __init__(self, seen: Examination) -> None:
        self.erased: set[bytes] = set()  # whose leaves they were is not known any more
        self._seen = seen
        self._ends: dict[str, tuple[int, bytes]] = {}

    def follow(self, index: int, leaf: Leaf, digest: bytes) -> None:
        """Look at the next leaf of an endpoint."""
        sequence, previous = self._ends.get(leaf.endpoint_id, (-1, None))
        follows = leaf.endpoint_sequence == sequence + 1 and leaf.previous_leaf_hash == previous
        after_erased = leaf.endpoint_sequence > sequence + 1 and leaf.previous_leaf_hash in self.erased
        if not follows and not after_erased:
            self._seen.note(
                f"leaf {index} has sequence {leaf.endpoint_sequence} of endpoint {leaf.endpoint}, which does not "
                f"follow its sequence {sequence}"
            )
        self._ends[leaf.endpoint_id] = leaf.endpoint_sequence, digest

    async def compare(self, connection: Connection) -> None:
        """Hold the ends against those that the sequencer goes on from."""
        after = tlog.FIRST
        while rows := await tlog.chain_ends(connection, self._seen.log.id, after, PAGE):
            for row in rows:
                self._seen.endpoints += 1
                end = self._ends.get(row.endpoint_id)
                if end != (row.sequence, row.leaf_hash) and row.leaf_hash not in self.erased:
                    self._seen.note(f"the chain of endpoint {row.endpoint_id} does not end with its last leaf")
            after = rows[-1].endpoint_id
