"""Replays into rows: each finds its endpoint and destinations, and gets the id that makes it one run and no other.

A Replay belongs to the Relay that carries its endpoint. What cannot be planned keeps the row that it had. Called by the
plan for those of manifests, and by the console for one that a person asks for: that is never the run of a manifest.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from kapsel_expressions.expression import Invalid, compile_source
from kapsel_resources.endpoints import EndpointRows
from kapsel_resources.inventory import Inventory
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.replay import Replay, Selection
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_resources.problems import Path, Problem, choices
from kapsel_resources.reasons import Reason
from kapsel_resources.relays import Chosen, carries
from kapsel_store.reasons import pattern, patterns_of
from kapsel_store.rows import ReplayRow
from kapsel_store.states import State

EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replays:
    """The replays to declare, as kapsel_store.replays.apply takes them."""

    rows: tuple[ReplayRow, ...] = ()
    kept: frozenset[tuple[str, str]] = frozenset()  # namespace and name of those that stay as they are
    complete: bool = False  # whether all others are gone


def plan_replays(
    chosen: Chosen, inventory: Inventory, endpoints: Sequence[EndpointRows]
) -> tuple[Replays, list[Problem]]:
    """Return the replays of a Relay, and what is wrong with those that cannot be planned."""
    planned = {(rows.endpoint.namespace, rows.endpoint.name): rows for rows in endpoints}
    rows: list[ReplayRow] = []
    kept = {(one.namespace, one.name) for one in inventory.unreadable(Replay)}
    problems: list[Problem] = []
    for replay in inventory.all(Replay):
        namespace, name = replay.metadata.namespace, replay.metadata.name
        found = planned.get((namespace, replay.spec.endpoint_ref.name))
        row = _missing(chosen, inventory, replay) if found is None else plan_replay(replay, *_named(found))
        if isinstance(row, ReplayRow):
            rows.append(row)
        elif row is not None:
            problems.append(row)
            kept.add((namespace, name))
    return Replays(rows=tuple(rows), kept=frozenset(kept), complete=inventory.complete), problems


def _named(endpoint: EndpointRows) -> tuple[UUID, Mapping[str, UUID]]:
    return endpoint.endpoint.id, {row.name: row.id for row in endpoint.destinations}


def plan_replay(
    replay: Replay, endpoint_id: UUID, ids: Mapping[str, UUID], *, asked: bool = False
) -> ReplayRow | Problem:
    """Return the row of a replay of this endpoint, whose destinations have these ids, or what is wrong with it."""
    spec = replay.spec
    for index, name in enumerate(spec.destinations or ()):
        if name not in ids:
            wrong = f"WebhookEndpoint {spec.endpoint_ref.name} has no destination {name}"
            where = ("spec", "destinations", index)
            return _refused(replay, where, "DestinationNotFound", wrong, choices(name, list(ids)))
    if spec.selection.filter is not None:
        compiled = compile_source(spec.selection.filter, "bool")
        if isinstance(compiled, Invalid):
            path = ("spec", "selection", "filter")
            return _refused(replay, path, "ExpressionInvalid", compiled.wrong, compiled.allowed)
    first = _within(spec.selection.from_)
    return ReplayRow(
        id=_id(replay, asked),
        namespace=replay.metadata.namespace,
        name=replay.metadata.name,
        endpoint_id=endpoint_id,
        destinations=None if spec.destinations is None else tuple(ids[name] for name in spec.destinations),
        received_from=first,
        received_to=max(_within(spec.selection.to), first + timedelta(milliseconds=1)),
        states=tuple(State(state) for state in spec.selection.states if state != "missing"),
        reasons=_reasons(spec.selection),
        missing="missing" in spec.selection.states,
        anyway=spec.selection.include_pending,
        filter=spec.selection.filter,
        dry_run=spec.dry_run,
        rate=spec.rate,
        suspend=spec.suspend,
        asked=asked,
    )


def _reasons(selection: Selection) -> tuple[str, ...] | None:
    """Return the patterns of the reasons that are meant; None if all are."""
    if selection.reasons is None and selection.faults is None:
        return None
    named = [pattern(code) for code in selection.reasons or ()]
    return tuple(dict.fromkeys([*named, *(one for fault in selection.faults or () for one in patterns_of(fault))]))


def _within(moment: datetime) -> datetime:
    """Return the nearest moment at which an event can come in: ids, and the database's times, end somewhere."""
    return min(max(moment, EARLIEST), LATEST)


def _id(replay: Replay, asked: bool) -> UUID:
    """Return what makes this run itself: what it selects, and not how fast. The same again is never run again."""
    spec = replay.spec
    content: Mapping[str, object] = {
        "namespace": replay.metadata.namespace,
        "name": replay.metadata.name,
        "endpoint": spec.endpoint_ref.name,
        "destinations": None if spec.destinations is None else sorted(spec.destinations),
        "from": spec.selection.from_.isoformat(),
        "to": spec.selection.to.isoformat(),
        "states": sorted(spec.selection.states),
        "dryRun": spec.dry_run,
        # Newer than the ids of runs that there are already, so they stand here only if they are written.
        **({} if spec.selection.reasons is None else {"reasons": sorted(spec.selection.reasons)}),
        **({} if spec.selection.faults is None else {"faults": sorted(spec.selection.faults)}),
        **({} if spec.selection.filter is None else {"filter": spec.selection.filter}),
        **({"includePending": True} if spec.selection.include_pending else {}),
        **({"asked": True} if asked else {}),
    }
    return UUID(bytes=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).digest()[:16])


def _missing(chosen: Chosen, inventory: Inventory, replay: Replay) -> Problem | None:
    """Return why there is no endpoint to replay; None if it belongs to another Relay."""
    namespace, name = replay.metadata.namespace, replay.spec.endpoint_ref.name
    path = ("spec", "endpointRef")
    identity = Identity("WebhookEndpoint", namespace, name)
    endpoint = inventory.find(WebhookEndpoint, namespace, name)
    if endpoint is None and not inventory.may_exist(identity):
        if carries(chosen, inventory, replay.identity, None) is False:
            return None
        known = choices(name, inventory.names(WebhookEndpoint, namespace)) or "a WebhookEndpoint of that name"
        return _refused(replay, path, "EndpointNotFound", f"there is no WebhookEndpoint {namespace}/{name}", known)
    if endpoint is not None and carries(chosen, inventory, identity, endpoint.spec.relay_ref) is False:
        return None
    wrong = f"the WebhookEndpoint {namespace}/{name} has a problem of its own"
    return _refused(replay, path, "EndpointNotReady", wrong, "a WebhookEndpoint without problems")


def _refused(replay: Replay, path: Path, reason: Reason, wrong: str, allowed: str) -> Problem:
    return Problem(resource=replay.identity, path=path, reason=reason, wrong=wrong, allowed=allowed)
