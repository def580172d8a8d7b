"""The read API of C2SP tlog-tiles: checkpoint, tiles and entry bundles, as far as a published head covers them.

What is integrated but not yet signed is not served: tiles are kept by caches for ever, and only a signed head is a
promise that they stay true. Bundles hold the leaves themselves, which can be erased, so no shared cache may keep them.
"""

from typing import Final

from aiohttp import web

from kapsel_console.attestation import damaged, newest_head
from kapsel_console.context import CONTEXT, Route
from kapsel_console.errors import ProblemError
from kapsel_console.parameters import Parameters
from kapsel_store import tlog
from kapsel_store.tlog import HeadRow
from kapsel_tlog.errors import DamagedTreeError
from kapsel_verifier import tiles
from kapsel_verifier.errors import MalformedTileError
from kapsel_verifier.merkle import HASH_SIZE
from kapsel_verifier.tiles import WIDTH, Tile

CHECKPOINT_CACHE: Final = "public, max-age=1, must-revalidate"
TILE_CACHE: Final = "public, max-age=31536000, immutable"
BUNDLE_CACHE: Final = "private, max-age=600, immutable"


async def checkpoint(request: web.Request) -> web.Response:
    """Answer with the newest checkpoint, a signed note."""
    Parameters(request.query)
    async with request.app[CONTEXT].storage.connection() as connection:
        head = await newest_head(connection)
    return web.Response(
        body=head.checkpoint.encode(),
        headers={"Content-Type": "text/plain; charset=utf-8", "Cache-Control": CHECKPOINT_CACHE},
    )


async def tile(request: web.Request) -> web.Response:
    """Answer with the hashes of a tile."""
    Parameters(request.query)
    try:
        asked, count = tiles.parse_path(request.path.removeprefix("/"))
    except MalformedTileError:
        raise _unknown(request) from None
    async with request.app[CONTEXT].storage.connection() as connection:
        head = await newest_head(connection)
        _require_published(head, asked, count)
        stored = await tlog.tiles(connection, head.log_id, [asked])
    hashes = stored.get(asked, b"")[: count * HASH_SIZE]
    if len(hashes) < count * HASH_SIZE:
        raise damaged(DamagedTreeError(f"tile {tiles.path(asked)} has fewer than {count} hashes"))
    return _octets(hashes, TILE_CACHE)


async def entries(request: web.Request) -> web.Response:
    """Answer with the leaves below a tile of level 0, each behind its length in two bytes."""
    Parameters(request.query)
    try:
        number, count = tiles.parse_entries_path(request.path.removeprefix("/"))
    except MalformedTileError:
        raise _unknown(request) from None
    async with request.app[CONTEXT].storage.connection() as connection:
        head = await newest_head(connection)
        _require_published(head, Tile(0, number), count)
        rows = await tlog.leaves(connection, head.log_id, number * WIDTH, count)
    if len(rows) < count:
        raise damaged(DamagedTreeError(f"leaves from {number * WIDTH} on are missing"))
    leaves = list[bytes]()
    for row in rows:
        if row.leaf is None:
            raise ProblemError(
                "leaf_erased",
                f"what leaf {row.leaf_index} said was erased, so its bundle cannot be given; its hash is in the tile",
                members={"erased": True, "leaf_index": row.leaf_index},
            )
        leaves.append(row.leaf)
    return _octets(tiles.encode_bundle(leaves), BUNDLE_CACHE)


def _unknown(request: web.Request) -> ProblemError:
    return ProblemError(
        "unknown_tile", f"{request.path[:200]!r} is not a path such as /tile/0/x001/067 or /tile/entries/000.p/5"
    )


def _require_published(head: HeadRow, asked: Tile, count: int) -> None:
    if tiles.width(asked, head.tree_size) < count:
        raise ProblemError("unknown_tile", f"the newest checkpoint has {head.tree_size} leaves and no such tile")


def _octets(content: bytes, cache: str) -> web.Response:
    return web.Response(body=content, headers={"Content-Type": "application/octet-stream", "Cache-Control": cache})


ROUTES: Final = (
    Route(path="/checkpoint", handler=checkpoint, says="the newest checkpoint (C2SP tlog-tiles)"),
    Route(path="/tile/entries/{path:.+}", handler=entries, says="<N>[.p/<W>]: a bundle of leaves"),
    Route(path="/tile/{path:.+}", handler=tile, says="<L>/<N>[.p/<W>]: a tile of hashes"),
)
