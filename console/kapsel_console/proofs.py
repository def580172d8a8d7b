"""Proofs of attempts: the file as it can be made now, and the one under a head that a block of Bitcoin dates.

Made by kapsel_tlog.prover in the forms of kapsel_verifier. Until a proof can be made the answer is 202 and says what it
waits for, since that comes by itself; what can never be made is a problem.
"""

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final
from uuid import UUID

from aiohttp import web

from kapsel_console import log_shapes
from kapsel_console.caching import kept
from kapsel_console.codes import Code
from kapsel_console.context import CONTEXT, Route, answer
from kapsel_console.errors import ProblemError
from kapsel_console.explanation import is_late, proof_status
from kapsel_console.openness import Openness
from kapsel_console.parameters import Parameters, path_id
from kapsel_store import facts
from kapsel_store.database import Connection
from kapsel_store.facts import Leaf
from kapsel_store.rows import LogRow
from kapsel_tlog import prover
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.prover import Erased, NotYetAnchored, NotYetIntegrated, NotYetPublished, Unknown
from kapsel_verifier import ots
from kapsel_verifier.proof import Proof
from kapsel_verifier.tlog_proof import TlogProof

INTEGRATION_RETRY: Final = 1  # seconds
PUBLICATION_RETRY: Final = 2
ANCHOR_RETRY: Final = 60
BLOCK_RETRY: Final = 600

TLOG_PROOF: Final = ".tlog-proof"
TEXT: Final = "text/plain"
OCTETS: Final = "application/octet-stream"
# What is in a proof may be erased, and what dates it is added later: nobody is to keep one unasked.
CACHE: Final = "private, no-store"

logger = logging.getLogger(__name__)

Found = Proof | NotYetAnchored | NotYetPublished | NotYetIntegrated | Erased | Unknown
Prove = Callable[[Connection, UUID], Awaitable[Found]]


async def proof(request: web.Request) -> web.Response:
    """Answer with the proof file of an attempt, 202 before it can be made."""
    Parameters(request.query)
    found = await _proof(request, prover.proof_for_attempt)
    return found if isinstance(found, web.Response) else _file(request, found)


async def download(request: web.Request) -> web.Response:
    """Answer with the same bytes as a file to keep."""
    Parameters(request.query)
    found = await _proof(request, prover.proof_for_attempt)
    if isinstance(found, web.Response):
        return found
    file = _file(request, found)
    suffix = TLOG_PROOF if file.content_type == TEXT else ".json"
    file.headers["Content-Disposition"] = f'attachment; filename="kapsel-proof-{path_id(request)}{suffix}"'
    return file


async def blockchain(request: web.Request) -> web.Response:
    """Answer with the proof of an attempt under a head that a block dates, 202 until there is one."""
    Parameters(request.query)
    found = await _dated(request)
    if isinstance(found, web.Response):
        return found
    return kept(request, found.encode(), type_="application/json", cache=CACHE, packs=True)


async def timestamp(request: web.Request) -> web.Response:
    """Answer with the OpenTimestamps file alone, as stock clients read it beside the checkpoint."""
    Parameters(request.query)
    found = await _dated(request)
    if isinstance(found, web.Response):
        return found
    response = kept(request, found.ots or b"", type_=OCTETS, cache=CACHE)
    response.headers["Content-Disposition"] = 'attachment; filename="checkpoint.ots"'
    return response


async def dated_checkpoint(request: web.Request) -> web.Response:
    """Answer with the checkpoint whose bytes that file dates."""
    Parameters(request.query)
    found = await _dated(request)
    if isinstance(found, web.Response):
        return found
    response = kept(request, found.checkpoint.encode(), type_=f"{TEXT}; charset=utf-8", cache=CACHE)
    response.headers["Content-Disposition"] = 'attachment; filename="checkpoint"'
    return response


async def _dated(request: web.Request) -> Proof | web.Response:
    found = await _proof(request, prover.anchored_proof_for_attempt)
    if isinstance(found, Proof) and not is_dated(found):
        return _wait("not_confirmed", "calendars have promised to date the head, and no block does yet", BLOCK_RETRY)
    return found


def is_dated(found: Proof) -> bool:
    """Whether the timestamp of a proof leads to a block."""
    return found.ots is not None and bool(ots.parse(found.ots).blocks())


async def _proof(request: web.Request, prove: Prove) -> Proof | web.Response:
    attempt_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection:
        try:
            found = await prove(connection, attempt_id)
        except DamagedTreeError as error:
            raise damaged(error) from error
        is_early = isinstance(found, NotYetIntegrated | NotYetPublished)
        leaf = await facts.leaf(connection, attempt_id) if is_early else None
    match found:
        case Unknown():
            raise ProblemError("unknown_attempt", f"there is no attempt {attempt_id}, or its retention is over")
        case Erased(leaf_index=index, leaf_hash=digest):
            raise ProblemError(
                "leaf_erased",
                f"what leaf {index} said was erased; its hash still stands in the log",
                members={"erased": True, "leaf_index": index, "leaf_hash": digest.hex()},
            )
        case NotYetIntegrated():
            return _unproven(request, "not_integrated", leaf, INTEGRATION_RETRY)
        case NotYetPublished():
            return _unproven(request, "not_published", leaf, PUBLICATION_RETRY)
        case NotYetAnchored(leaf_index=index):
            _require_anchoring(request)
            return _wait("not_anchored", f"leaf {index} waits for a head that calendars date", ANCHOR_RETRY)
    return found


def _unproven(request: web.Request, status: log_shapes.Lacking, leaf: Leaf | None, seconds: int) -> web.Response:
    context = request.app[CONTEXT]
    if leaf is None or leaf.published or not context.source.loaded:
        return _wait(status, "a head over the attempt is on its way", seconds)
    detail, held = waits_for(leaf, context.source.current.log, context.now())
    return _wait(status, detail, seconds, held=held)


def waits_for(leaf: Leaf, log: LogRow | None, now: datetime) -> tuple[str, bool]:
    """Return what an attempt waits for on its way to a proof, and whether that does not come by itself."""
    stopped = log is None or leaf.frozen_reason is not None or leaf.parked_reason is not None
    late = log is not None and is_late(leaf, log, now)
    text = proof_status(leaf, log, now).removesuffix(".")
    return text[0].lower() + text[1:], stopped or late


def _require_anchoring(request: web.Request) -> None:
    """Nothing comes by itself where nobody has asked for it."""
    log = request.app[CONTEXT].source.current.log
    if log is None or log.anchoring is None:
        raise ProblemError(
            "not_anchored",
            "no head over this attempt is anchored, and none will be: the AttestationLog declares no spec.anchoring",
        )


def damaged(error: DamagedTreeError) -> ProblemError:
    """Return the problem of a log whose tiles do not make its tree; it is logged, since somebody must look."""
    logger.error("the stored log does not hold together: %s", error)
    return ProblemError("log_damaged", "the tiles do not make the tree they belong to; no proof can be given")


def _wait(status: log_shapes.Lacking, detail: str, seconds: int, *, held: bool = False) -> web.Response:
    content: log_shapes.Waiting = {"status": status, "detail": detail, "held": held}
    return answer(content, status=202, headers={"Retry-After": str(seconds)})


def _file(request: web.Request, found: Proof) -> web.Response:
    if wants_tlog_proof(request):
        content, type_ = TlogProof.of(found).encode(), f"{TEXT}; charset=utf-8"
    else:
        content, type_ = found.encode(), "application/json"
    file = kept(request, content, type_=type_, cache=CACHE, packs=True)
    file.headers["Vary"] = "Accept, Accept-Encoding"
    return file


def wants_tlog_proof(request: web.Request) -> bool:
    """Whether the form of C2SP is asked for: by the end of the path, or by what the caller accepts."""
    if request.path.endswith(TLOG_PROOF):
        return True
    accepted = [part.partition(";")[0].strip().lower() for part in request.headers.get("Accept", "").split(",")]
    return TEXT in accepted and "application/json" not in accepted


def _route(
    path: str,
    handler: Callable[[web.Request], Awaitable[web.Response]],
    says: str,
    gives: type | str = log_shapes.Proof,
    also: str | None = None,
    also_wrong: tuple[Code, ...] = (),
) -> Route:
    return Route(
        path=f"/api/v1/attestation/{path}",
        handler=handler,
        says=says,
        opens=Openness.PROOFS,
        gives=gives,
        also=also,
        waits=True,
        problems=("unknown_attempt", "leaf_erased", "log_damaged", *also_wrong),
    )


_DATED: Final[tuple[Code, ...]] = ("not_anchored",)
ROUTES: Final = (
    # The longer paths first: an id would swallow their end.
    _route(f"proof/{{id}}{TLOG_PROOF}", proof, "the proof of an attempt in the form of C2SP tlog-proof", TEXT),
    _route(f"download-proof/{{id}}{TLOG_PROOF}", download, "the same as a file to keep", TEXT),
    _route("proof/{id}", proof, "the proof file of an attempt; 202 until it can be made", also=TEXT),
    _route("download-proof/{id}", download, "the same as a file to keep", also=TEXT),
    _route(
        "blockchain-proof/{id}.ots",
        timestamp,
        "what dates the head of the next, for stock clients",
        OCTETS,
        also_wrong=_DATED,
    ),
    _route("blockchain-proof/{id}.checkpoint", dated_checkpoint, "the file that it dates", TEXT, also_wrong=_DATED),
    _route(
        "blockchain-proof/{id}",
        blockchain,
        "the proof under a head that a block dates; 202 until there is one",
        also_wrong=_DATED,
    ),
)
