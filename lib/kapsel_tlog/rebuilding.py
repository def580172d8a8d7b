"""Makes all tiles of a log anew from its leaves, and keeps them only if every published head says that they are right.

`kapsel log rebuild` runs it, under the log's lock and in one transaction: whatever goes wrong, the old tiles stay. Of
an erased leaf the hash in its tile is all there is; a wrong one cannot pass, for then no head fits.
"""

from collections.abc import Callable

from kapsel_store import tlog
from kapsel_store.database import Connection
from kapsel_store.tlog import LogState, TileRow
from kapsel_tlog import check
from kapsel_tlog.check import RUN
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.tree import Tree, append
from kapsel_verifier.merkle import HASH_SIZE, leaf_hash

PAGE = 1000


async def rebuild(connection: Connection, log: LogState, tell: Callable[[int], None]) -> int:
    """Replace the tiles of a log and return how many differ from before; `tell` hears how many leaves are behind it.

    Raises DamagedTreeError, and changes nothing, if a leaf is missing or the leaves are not those that were signed.
    """
    changed, tree = 0, Tree()
    async with connection.transaction():
        for first in range(0, log.tree_size, RUN):
            count = min(RUN, log.tree_size - first)
            grown = append(tree, await _hashes(connection, log, first, count))
            before = await tlog.tiles(connection, log.id, list(grown.tiles))
            changed += sum(before.get(tile, b"")[: len(held)] != held for tile, held in grown.tiles.items())
            await tlog.remove_tiles(connection, log.id, list(grown.tiles))
            rows = [TileRow(level=tile.level, index=tile.number, hashes=held) for tile, held in grown.tiles.items()]
            await tlog.put_tiles(connection, log.id, rows)
            tree = grown.tree
            tell(first + count)
        changed += await tlog.remove_tiles_beyond(connection, log.id, log.tree_size)
        if tree.root() != log.root:
            raise DamagedTreeError(f"the leaves do not fold to the root that was stored for {log.tree_size} of them")
        await _require_heads(connection, log)
    return changed


async def _hashes(connection: Connection, log: LogState, first: int, count: int) -> list[bytes]:
    rows = {row.leaf_index: row.leaf for row in await tlog.leaves(connection, log.id, first, count)}
    hashes = await check.held_hashes(connection, log.id, first, first + count)
    for index, held in enumerate(hashes, first):
        if index not in rows:
            raise DamagedTreeError(f"leaf {index} is missing, and nothing can be made of nothing")
        leaf = rows[index]
        if leaf is not None:
            hashes[index - first] = leaf_hash(leaf)
        elif len(held) != HASH_SIZE:
            raise DamagedTreeError(f"leaf {index} was erased, and the tile with its hash is missing")
    return hashes


async def _require_heads(connection: Connection, log: LogState) -> None:
    after = -1
    while heads := await tlog.all_heads(connection, log.id, after, PAGE):
        for head in heads:
            await check.require_head(connection, log, head)
        after = heads[-1].timestamp_ms
