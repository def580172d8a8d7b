"""Heads, consistency and keys of the log, for people and for kapsel-verify. Nothing is trusted for coming from here.

The forms are those of kapsel_verifier. Proofs of attempts are in `proofs`, the tiles in `tiles`.
"""

from typing import Final

from aiohttp import web

from kapsel_console import documents, log_shapes
from kapsel_console.caching import JWK_SET, KEYS_CACHE, kept
from kapsel_console.context import CONTEXT, Route, answer, encoded
from kapsel_console.errors import ProblemError
from kapsel_console.openness import Openness
from kapsel_console.parameters import Parameters
from kapsel_console.proofs import damaged
from kapsel_store import tlog
from kapsel_store.database import Connection
from kapsel_store.tlog import HeadRow
from kapsel_tlog import prover
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.key_set import key_set
from kapsel_verifier.consistency import ConsistencyProof
from kapsel_verifier.keys import TrustedKey, encode_jwks, encode_key_set
from kapsel_verifier.note import Checkpoint, Note, VerifierKey
from kapsel_verifier.sth import SignedTreeHead

HEAD_RETRY: Final = 2  # seconds

FOREVER: Final = "public, max-age=31536000, immutable"
FOR_NOW: Final = "public, max-age=1"


async def newest_head(connection: Connection, log_id: int | None = None) -> HeadRow:
    """Return the newest published head of a log, or of the newest log; raise ProblemError while there is none."""
    head = await tlog.latest_head(connection, log_id)
    if head is None:
        raise ProblemError("no_head", "nothing has been published yet; try again", retry_after=HEAD_RETRY)
    return head


def origin_of(head: HeadRow) -> str:
    """Return the name of the log that a head is of."""
    return head.checkpoint.partition("\n")[0]


async def sth(request: web.Request) -> web.Response:
    """Answer with the newest head in its small form."""
    Parameters(request.query)
    async with request.app[CONTEXT].storage.connection() as connection:
        head = await newest_head(connection)
    key = VerifierKey(origin_of(head), head.public_key)
    checkpoint = Checkpoint.parse(Note.parse(head.checkpoint.encode()).text)
    return answer(SignedTreeHead.of(key, checkpoint, head.timestamp_ms, head.sth_signature).to_json())


async def logs(request: web.Request) -> web.Response:
    """Answer with every log, its newest head, and how many attempts wait for a leaf."""
    Parameters(request.query)
    context = request.app[CONTEXT]
    async with (
        context.storage.connection() as connection,
        # An attempt that gets its leaf meanwhile would neither wait nor be in the tree.
        connection.transaction(isolation="repeatable_read", readonly=True),
    ):
        states = await tlog.states(connection)
        declared = context.source.current.log
        items = [
            documents.log(
                state,
                await tlog.latest_head(connection, state.id),
                following=tlog.continued_by(state, states),
                witnessing=declared.witnessing if declared is not None and declared.origin == state.origin else None,
            )
            for state in states
        ]
        waiting, age = await tlog.pending_count(connection, context.now())
    found: log_shapes.Logs = {
        "items": items,
        "waiting_attempts": waiting,
        "oldest_waiting_seconds": max(age.total_seconds(), 0.0),
    }
    return answer(found)


async def consistency(request: web.Request) -> web.Response:
    """Answer with the proof that one published size of a log is the beginning of another."""
    asked = Parameters(request.query, "old_size", "new_size", "origin")
    old, new, origin = asked.size("old_size"), asked.size("new_size"), asked.text("origin")
    if old is None:
        raise ProblemError("parameter_invalid", "old_size is missing: the number of leaves that you know of")
    async with request.app[CONTEXT].storage.connection() as connection:
        head = await newest_head(connection, None if origin is None else await _log_of(connection, origin))
        # Two sizes that are named have one proof for ever, as long as the log is named, too.
        cache = FOREVER if new is not None and origin is not None else FOR_NOW
        new = head.tree_size if new is None else new
        if new > head.tree_size:
            raise ProblemError(
                "not_published",
                f"new_size is {new}, but the newest head has {head.tree_size} leaves",
                retry_after=HEAD_RETRY,
                members={"tree_size": head.tree_size},
            )
        if old > new:
            raise ProblemError("parameter_invalid", f"old_size is {old}; allowed: at most new_size, which is {new}")
        try:
            nodes = await prover.consistency(connection, head.log_id, old, new)
        except DamagedTreeError as error:
            raise damaged(error) from error
    content = ConsistencyProof(origin_of(head), old, new, tuple(nodes)).to_json()
    return kept(request, encoded(content), type_="application/json", cache=cache)


async def _log_of(connection: Connection, origin: str) -> int:
    found = await tlog.state(connection, origin)
    if found is None:
        raise ProblemError("unknown_log", f"there is no log {origin[:200]!r}; GET /api/v1/attestation/log lists them")
    return found.id


async def keys(request: web.Request) -> web.Response:
    """Answer with the public keys of the log, in the form that kapsel-verify --keys reads."""
    return kept(request, encode_key_set(await _key_set(request)), type_="application/json", cache=KEYS_CACHE)


async def jwks(request: web.Request) -> web.Response:
    """Answer with the same keys as a JSON Web Key Set."""
    return kept(request, encode_jwks(await _key_set(request)), type_=JWK_SET, cache=KEYS_CACHE)


async def _key_set(request: web.Request) -> list[TrustedKey]:
    Parameters(request.query)
    context = request.app[CONTEXT]
    if not context.source.loaded:
        raise ProblemError("not_ready", "the configuration has not been loaded yet; try again", retry_after=HEAD_RETRY)
    async with context.storage.connection() as connection:
        return await key_set(connection, context.source.current)


_BASE: Final = "/api/v1/attestation"

ROUTES: Final = (
    Route(
        path=f"{_BASE}/log",
        handler=logs,
        says="the logs, their newest heads, and what waits for a leaf",
        gives=log_shapes.Logs,
    ),
    Route(
        path=f"{_BASE}/sth",
        handler=sth,
        says="the newest signed tree head",
        opens=Openness.HEADS,
        gives=log_shapes.SignedTreeHead,
        problems=("no_head",),
    ),
    Route(
        path=f"{_BASE}/consistency-proof",
        handler=consistency,
        says="that one size of a log begins another (old_size, new_size, origin)",
        opens=Openness.HEADS,
        query=("old_size", "new_size", "origin"),
        gives=log_shapes.ConsistencyProof,
        problems=("no_head", "unknown_log", "not_published", "log_damaged"),
    ),
    Route(
        path=f"{_BASE}/keys",
        handler=keys,
        says="the public keys of the log, for kapsel-verify --keys",
        opens=Openness.HEADS,
        gives=log_shapes.KeySet,
        problems=("not_ready",),
    ),
    Route(
        path="/.well-known/kapsel/keys.json",
        handler=keys,
        says="the same, where auditors look for it",
        opens=Openness.HEADS,
        gives=log_shapes.KeySet,
        problems=("not_ready",),
    ),
    Route(
        path="/.well-known/kapsel/jwks.json",
        handler=jwks,
        says="the same as a JSON Web Key Set",
        opens=Openness.HEADS,
        gives=log_shapes.Jwks,
        form=JWK_SET,
        problems=("not_ready",),
    ),
)
