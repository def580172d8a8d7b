"""The read API of C2SP tlog-tiles: checkpoint, tiles and entry bundles, as far as a published head covers them.

The newest log is at the root, and each log there ever was below /logs/ID, where it stays when another one follows it.
What is integrated but not yet signed is not served: tiles are kept by caches for ever, and only a signed head is a
promise that they stay true. Bundles hold the leaves themselves, which can be erased, so no shared cache may keep them.
"""

from typing import Final

from aiohttp import web

from kapsel_console.attestation import newest_head
from kapsel_console.caching import kept
from kapsel_console.codes import Code
from kapsel_console.context import CONTEXT, Route
from kapsel_console.errors import ProblemError
from kapsel_console.openness import Openness
from kapsel_console.parameters import Parameters
from kapsel_console.proofs import OCTETS, TEXT, damaged
from kapsel_store import tlog
from kapsel_store.database import Connection
from kapsel_store.tlog import HeadRow
from kapsel_tlog.errors import DamagedTreeError
from kapsel_verifier import tiles
from kapsel_verifier.errors import MalformedTileError
from kapsel_verifier.merkle import HASH_SIZE
from kapsel_verifier.tiles import WIDTH, Tile

CHECKPOINT_CACHE: Final = "public, max-age=1, must-revalidate"
TILE_CACHE: Final = "public, max-age=31536000, immutable"
BUNDLE_CACHE: Final = "private, max-age=600"
ERASED: Final = "Kapsel-Erased-Leaves"


async def checkpoint(request: web.Request) -> web.Response:
    """Answer with the newest checkpoint, a signed note."""
    Parameters(request.query)
    async with request.app[CONTEXT].storage.connection() as connection:
        head = await _head(connection, request)
    return kept(request, head.checkpoint.encode(), type_="text/plain; charset=utf-8", cache=CHECKPOINT_CACHE)


async def tile(request: web.Request) -> web.Response:
    """Answer with the hashes of a tile."""
    Parameters(request.query)
    try:
        asked, count = tiles.parse_path(f"tile/{request.match_info['path']}")
    except MalformedTileError:
        raise _no_path(request) from None
    async with request.app[CONTEXT].storage.connection() as connection:
        head = await _head(connection, request)
        _require_published(head, asked, count)
        stored = await tlog.tiles(connection, head.log_id, [asked])
    hashes = stored.get(asked, b"")[: count * HASH_SIZE]
    if len(hashes) < count * HASH_SIZE:
        raise damaged(DamagedTreeError(f"{tiles.path(asked)} has fewer than {count} hashes"))
    return kept(request, hashes, type_=OCTETS, cache=TILE_CACHE)


async def entries(request: web.Request) -> web.Response:
    """Answer with the leaves below a tile of level 0, each behind its length in two bytes; erased ones have none."""
    Parameters(request.query)
    try:
        number, count = tiles.parse_entries_path(f"tile/entries/{request.match_info['path']}")
    except MalformedTileError:
        raise _no_path(request) from None
    async with request.app[CONTEXT].storage.connection() as connection:
        head = await _head(connection, request)
        _require_published(head, Tile(0, number), count)
        rows = await tlog.leaves(connection, head.log_id, number * WIDTH, count)
    if len(rows) < count:
        raise damaged(DamagedTreeError(f"leaves from {number * WIDTH} on are missing"))
    bundle = tiles.encode_bundle([row.leaf or b"" for row in rows])
    response = kept(request, bundle, type_=OCTETS, cache=BUNDLE_CACHE, packs=True)
    if erased := [str(row.leaf_index) for row in rows if row.leaf is None]:
        response.headers[ERASED] = " ".join(erased)
    return response


async def _head(connection: Connection, request: web.Request) -> HeadRow:
    """Return the newest head of the log that the path names, or of the newest log."""
    named = request.match_info.get("log")
    if named is None:
        return await newest_head(connection)
    known = await tlog.states(connection)
    found = [state.id for state in known if str(state.id) == named]
    if not found:
        raise ProblemError("unknown_log", f"there is no log {named[:20]!r}; GET /api/v1/attestation/log lists them")
    return await newest_head(connection, found[0])


def _no_path(request: web.Request) -> ProblemError:
    return ProblemError(
        "unknown_tile", f"{request.path[:200]!r} is not a path such as /tile/0/x001/067 or /tile/entries/000.p/5"
    )


def _require_published(head: HeadRow, asked: Tile, count: int) -> None:
    if tiles.width(asked, head.tree_size) < count:
        raise ProblemError("unknown_tile", f"the newest checkpoint has {head.tree_size} leaves and no such tile")


def _routes(prefix: str, of: str, wrong: tuple[Code, ...] = ()) -> tuple[Route, ...]:
    return (
        Route(
            path=f"{prefix}/checkpoint",
            handler=checkpoint,
            says=f"the newest checkpoint{of}",
            opens=Openness.HEADS,
            gives=TEXT,
            problems=("no_head", *wrong),
        ),
        Route(
            path=f"{prefix}/tile/entries/{{path:.+}}",
            handler=entries,
            says=f"<N>[.p/<W>]: a bundle of leaves{of}",
            opens=Openness.LEAVES,
            gives=OCTETS,
            problems=("no_head", "unknown_tile", "log_damaged", *wrong),
        ),
        Route(
            path=f"{prefix}/tile/{{path:.+}}",
            handler=tile,
            says=f"<L>/<N>[.p/<W>]: a tile of hashes{of}",
            opens=Openness.HEADS,
            gives=OCTETS,
            problems=("no_head", "unknown_tile", "log_damaged", *wrong),
        ),
    )


ROUTES: Final = (*_routes("", " (C2SP tlog-tiles)"), *_routes("/logs/{log}", ", of one log", ("unknown_log",)))
