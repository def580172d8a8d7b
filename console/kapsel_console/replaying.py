"""Replays that a person asks for: made of what a manifest would say, looked at, suspended, cancelled.

For whoever has no manifests at hand: `kapsel replay` calls this. The body is a Replay manifest as JSON, read by the
model and the plan that read manifests, so the words and the limits are the same. What a manifest declares is left to
manifests.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, NoReturn
from uuid import UUID

from aiohttp import web

from kapsel_console import documents, shapes
from kapsel_console.actions import actor
from kapsel_console.context import CONTEXT, Route, answer
from kapsel_console.errors import ProblemError
from kapsel_console.parameters import Parameters, path_id
from kapsel_resources import manifests
from kapsel_resources.kinds.replay import Replay
from kapsel_resources.problems import Problem
from kapsel_resources.replays import plan_replay
from kapsel_store import audit, endpoints, replays
from kapsel_store.database import Connection
from kapsel_store.replays import ReplayProgress
from kapsel_store.rows import ReplayRow

_TTL: Final = ("spec", "ttlSecondsAfterFinished")
SHOWN: Final = 3  # problems that are told in the one sentence; all of them stand beside it


async def ask(request: web.Request) -> web.Response:
    """Make a replay, or change the pace of the same one."""
    Parameters(request.query)
    replay = _read(await _json(request))
    async with request.app[CONTEXT].storage.connection() as connection, connection.transaction():
        row = await _planned(connection, replay)
        done = await replays.ask(connection, row)
        if done == "name_taken":
            raise ProblemError(
                "replay_name_taken",
                f"{row.namespace}/{row.name} is a replay of another selection: give this one another name",
            )
        if done == "too_many":
            raise ProblemError(
                "too_many_replays",
                f"{row.namespace} has {replays.MOST_ASKED} replays that people asked for and that have not ended, and "
                "may have no more: wait for one of them, or stop one; GET /api/v1/replays lists all",
            )
        if done != "same":
            subject = f"replay {row.namespace}/{row.name}"
            spec = replay.spec.model_dump(mode="json", by_alias=True, exclude_unset=True)
            detail = {"id": str(row.id), "done": done, "spec": spec}
            await audit.write(connection, actor=actor(request), action="replay.ask", subject=subject, detail=detail)
        found = await _find(connection, row.id)
    # A crash before the commit has made nothing; after it, deliverers find it by polling, and asking again is harmless.
    status = 201 if done == "made" else 200
    return answer(documents.replay(found), status=status, headers={"Location": f"/api/v1/replays/{row.id}"})


async def get(request: web.Request) -> web.Response:
    """Answer with one replay."""
    Parameters(request.query)
    async with request.app[CONTEXT].storage.connection() as connection:
        found = await _find(connection, path_id(request))
    return answer(documents.replay(found))


async def cancel(request: web.Request) -> web.Response:
    """Stop a replay where it is: what it has made is delivered, and nothing more is made."""
    return await _change(request, "cancel", replays.cancel)


async def suspend(request: web.Request) -> web.Response:
    """Have a replay make nothing more until it is resumed."""
    return await _change(request, "suspend", lambda connection, id_: replays.suspend(connection, id_, True))


async def resume(request: web.Request) -> web.Response:
    """Have a replay go on that was suspended."""
    return await _change(request, "resume", lambda connection, id_: replays.suspend(connection, id_, False))


async def _change(
    request: web.Request,
    verb: Literal["cancel", "suspend", "resume"],
    change: Callable[[Connection, UUID], Awaitable[bool]],
) -> web.Response:
    Parameters(request.query)
    replay_id = path_id(request)
    async with request.app[CONTEXT].storage.connection() as connection, connection.transaction():
        changed = await change(connection, replay_id)
        found = await _find(connection, replay_id)
        subject = f"{found.namespace}/{found.name}"
        if not found.asked:
            raise ProblemError("replay_declared", f"{subject} is declared by a manifest: {_IN_MANIFEST[verb]}")
        if found.completed_at is not None:
            raise ProblemError("replay_ended", f"{subject} is complete; there is nothing left to {verb}")
        if found.removed_at is not None and verb != "cancel":
            said = documents.replay(found)
            raise ProblemError(
                "replay_ended",
                f"{subject} is cancelled; to have it go on, ask for the same again, under this name, from "
                f"{said['received_from']} to {said['received_to']}: other times are another selection",
            )
        if changed:
            detail = {"id": str(replay_id), "enqueued": found.enqueued}
            await audit.write(
                connection, actor=actor(request), action=f"replay.{verb}", subject=f"replay {subject}", detail=detail
            )
    return answer(documents.replay(found))


_IN_MANIFEST: Final = {
    "cancel": "take that away",
    "suspend": "set suspend: true in it",
    "resume": "set suspend: false in it",
}


async def _find(connection: Connection, replay_id: UUID) -> ReplayProgress:
    found = await replays.get(connection, replay_id)
    if found is None:
        raise ProblemError("unknown_replay", f"there is no replay {replay_id}; GET /api/v1/replays lists all")
    return found


async def _json(request: web.Request) -> object:
    """Return the value of a body, strictly: what is said twice is not understood."""
    try:
        return json.loads(await request.read(), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProblemError("request_refused", f"the body is not a Replay manifest as JSON: {error}"[:300]) from None


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is there twice")
    return members


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _read(document: object) -> Replay:
    read = manifests.parse(document)
    if isinstance(read, list):
        raise _invalid(read)
    if not isinstance(read, Replay):
        wrong = f"{read.identity.kind} cannot be made here"
        raise _invalid(
            [Problem(resource=read.identity, path=("kind",), reason="InvalidManifest", wrong=wrong, allowed="Replay")]
        )
    if read.spec.ttl_seconds_after_finished is not None:
        wrong = "the console deletes no replay: this one is forgotten when the retention of what it selected is over"
        raise _invalid(
            [Problem(resource=read.identity, path=_TTL, reason="InvalidManifest", wrong=wrong, allowed="none")]
        )
    return read


async def _planned(connection: Connection, replay: Replay) -> ReplayRow:
    namespace, name = replay.metadata.namespace, replay.spec.endpoint_ref.name
    endpoint = await endpoints.declared(connection, namespace, name)
    if endpoint is None:
        raise ProblemError(
            "unknown_endpoint", f"there is no endpoint {namespace}/{name}; GET /api/v1/endpoints lists all"
        )
    row = plan_replay(replay, *endpoint, asked=True)
    if isinstance(row, Problem):
        raise _invalid([row])
    return row


def _invalid(problems: Sequence[Problem]) -> ProblemError:
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    places = [{"field": one.field, "wrong": one.wrong, "allowed": one.allowed} for one in problems]
    said = "; ".join(str(one) for one in problems[:SHOWN]) + more
    return ProblemError("replay_invalid", said, members={"problems": places})


ROUTES: Final = (
    Route(
        method="POST",
        path="/api/v1/replays",
        handler=ask,
        says="deliver again what a Replay manifest selects (JSON)",
        takes=Replay,
        gives=shapes.ReplayProgress,
        statuses=(200, 201),
        problems=("replay_invalid", "unknown_endpoint", "replay_name_taken", "too_many_replays"),
    ),
    Route(
        path="/api/v1/replays/{id}",
        handler=get,
        says="one replay and how far it is",
        gives=shapes.ReplayProgress,
        problems=("unknown_replay",),
    ),
    Route(
        method="POST",
        path="/api/v1/replays/{id}/suspend",
        handler=suspend,
        says="suspend one that was asked for here",
        gives=shapes.ReplayProgress,
        problems=("unknown_replay", "replay_declared", "replay_ended"),
    ),
    Route(
        method="POST",
        path="/api/v1/replays/{id}/resume",
        handler=resume,
        says="have it go on",
        gives=shapes.ReplayProgress,
        problems=("unknown_replay", "replay_declared", "replay_ended"),
    ),
    Route(
        method="DELETE",
        path="/api/v1/replays/{id}",
        handler=cancel,
        says="stop one that was asked for here",
        gives=shapes.ReplayProgress,
        problems=("unknown_replay", "replay_declared", "replay_ended"),
    ),
)
