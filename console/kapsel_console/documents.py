"""Rows as JSON: ids as text, times as ISO 8601 in UTC, hashes in hex, bytes in base64 and, if they are text, as text.

The members are those of `shapes` and `log_shapes`. Secrets have no member here: of the headers that a
manifest adds to a delivery only the names are shown, since their values are often tokens.
"""

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, overload
from uuid import UUID

from kapsel_console import log_shapes, shapes
from kapsel_console.explanation import Explanation
from kapsel_resources import durations, key_values, keys, rotation
from kapsel_store import turns
from kapsel_store.attempts import ListedAttempt
from kapsel_store.circuits import CircuitRow
from kapsel_store.deliveries import DeliveryRow
from kapsel_store.endpoints import MOST_COUNTED, ListedDestination, ListedEndpoint
from kapsel_store.erasures import Pass
from kapsel_store.events import EventRow, StoredEvent
from kapsel_store.processes import ProcessRow
from kapsel_store.reasons import fault_of, reason, shown
from kapsel_store.replays import ReplayProgress
from kapsel_store.rows import Acknowledgement, Batch, KeyRow, RateLimit, Transform, Witnessing
from kapsel_store.states import FINAL
from kapsel_store.tlog import HeadRow, LogState
from kapsel_store.turns import NO_TURN, Blocked
from kapsel_store.undelivered import Group, Summary, Undelivered
from kapsel_verifier import cosignature, strict
from kapsel_verifier.cosignature import WitnessKey
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.note import Note


def endpoint(listed: ListedEndpoint, processes: Iterable[ProcessRow]) -> shapes.Endpoint:
    """Return an endpoint with its destinations, and whether every process has loaded it."""
    row = listed.row
    generation = max([listed.generation, *(one.generation for one in listed.destinations)])
    ready, reason = readiness(generation, processes)
    paths = {"Id": f"/ingest/{row.id}", "Name": f"/ingest/{row.namespace}/{row.name}"}
    oldest = [one.oldest_pending for one in listed.destinations if one.oldest_pending is not None]
    return {
        "id": str(row.id),
        "namespace": row.namespace,
        "name": row.name,
        "generation": generation,
        "ready": ready,
        "reason": reason,
        "suspend": row.suspend,
        "verification": row.verification.scheme,
        "idempotency": None if row.idempotency is None else row.idempotency.source,
        "rate_limit": _rate_limit(row.rate_limit),
        "max_body_bytes": row.max_body_bytes,
        "retention": durations.text(row.retention),
        "ingest_paths": [paths[path] for path in row.paths],
        "pending": sum(min(one.pending, MOST_COUNTED) for one in listed.destinations),
        "pending_more": any(one.pending > MOST_COUNTED for one in listed.destinations),
        "sending": sum(one.sending for one in listed.destinations),
        "oldest_pending_at": _time(min(oldest, default=None)),
        "destinations": [_destination(one) for one in listed.destinations],
    }


def readiness(generation: int, processes: Iterable[ProcessRow]) -> tuple[bool, shapes.Readiness]:
    """Return whether every live receiver and deliverer has loaded a generation, and a word for why or why not."""
    lacks: Final[Mapping[str, shapes.Readiness]] = {"receiver": "NoReceiver", "deliverer": "NoDeliverer"}
    for component, missing in lacks.items():
        loaded = [process.generation >= generation for process in processes if process.component == component]
        if not loaded:
            return False, missing
        if not all(loaded):
            return False, "Loading"
    return True, "Loaded"


def _destination(listed: ListedDestination) -> shapes.Destination:
    row = listed.row
    return {
        "id": str(row.id),
        "name": row.name,
        "url": row.url,
        "headers": [name for name, _ in (*row.headers, *row.secret_headers)],
        "generation": listed.generation,
        "suspend": row.suspend,
        "timeout": durations.text(row.timeout),
        "max_in_flight": row.max_in_flight,
        "rate_limit": _rate_limit(row.rate_limit),
        "acknowledgement": _acknowledgement(row.acknowledgement),
        "filter": row.filter,
        "transform": _transform(row.transform),
        "ordering": None
        if row.ordering is None
        else {"key": row.ordering.key, "on_exhausted": row.ordering.on_exhausted},
        "batch": _batch(row.batch),
        "max_attempts": row.policy.max_attempts,
        "max_age": durations.text(row.policy.max_age),
        "pending": min(listed.pending, MOST_COUNTED),
        "pending_more": listed.pending > MOST_COUNTED,
        "sending": listed.sending,
        "oldest_pending_at": _time(listed.oldest_pending),
        "circuit": circuit(listed.circuit),
    }


def circuit(row: CircuitRow | None) -> shapes.Circuit:
    """Return what is known of the other side; None is a circuit that never left its first state."""
    if row is None:
        return {"state": "closed", "open_until": None, "disabled_at": None, "disabled_reason": None}
    return {
        "state": row.state if row.disabled_at is None else "disabled",
        "open_until": _time(row.open_until),
        "disabled_at": _time(row.disabled_at),
        "disabled_reason": row.disabled_reason,
    }


def event(row: EventRow) -> shapes.Event:
    """Return an event as a list shows it."""
    return {
        "id": str(row.id),
        "endpoint": f"{row.namespace}/{row.name}",
        "endpoint_id": str(row.endpoint_id),
        "received_at": _time(row.received_at),
        "content_type": row.content_type,
        "size": row.size,
        "body_hash": _hex(row.body_hash),
        "correlation_id": row.correlation_id,
    }


def whole_event(row: StoredEvent) -> shapes.WholeEvent:
    """Return an event with its headers and body; both are null once it was erased, or is over."""
    listed = EventRow(
        id=row.id,
        endpoint_id=row.endpoint_id,
        namespace=row.namespace,
        name=row.name,
        received_at=row.received_at,
        content_type=row.content_type,
        size=None if row.body is None else len(row.body),
        body_hash=row.body_hash,
        correlation_id=row.correlation_id,
    )
    return {
        **event(listed),
        "erased_at": _time(row.erased_at),
        "headers": None if row.headers is None else json.loads(row.headers),
        "body_base64": _base64(row.body),
        "body_text": _text(row.body),
    }


def erasure(event_id: UUID, done: Pass) -> shapes.Erasure:
    """Return how far an event is forgotten."""
    return {
        "event_id": str(event_id),
        "erased_at": _time(done.erased_at),
        "complete": done.complete,
        "cancelled_deliveries": done.cancelled,
        "attempts": done.tries,
        "deliveries_under_way": done.under_way,
        "attempts_without_leaf": done.without_leaf,
    }


def delivery(row: DeliveryRow) -> shapes.Delivery:
    """Return a delivery; one that has ended is due no more, and one that waits for its turn not yet."""
    return {
        "id": str(row.id),
        "event_id": str(row.event_id),
        "endpoint": f"{row.namespace}/{row.name}",
        "endpoint_id": str(row.endpoint_id),
        "destination": row.destination,
        "destination_id": str(row.destination_id),
        "state": row.state,
        "attempts": row.attempts,
        "created_at": _time(row.created_at),
        "due_at": None if row.state in FINAL or row.due_at >= NO_TURN else _time(row.due_at),
        "expires_at": _time(row.expires_at),
        "finished_at": _time(row.finished_at),
        "last_reason": row.last_reason,
        "acknowledgement": row.acknowledgement,
        "replay_of": None if row.replay_of is None else str(row.replay_of),
    }


def explanation(row: DeliveryRow, said: Explanation) -> shapes.Explanation:
    """Return why a delivery is where it is."""
    return {
        "delivery": delivery(row),
        "summary": said.summary,
        "reason": said.reason,
        "fault": said.fault,
        "held_by": [
            {"reason": hold.reason, "fault": hold.fault, "text": hold.text, "until": _time(hold.until)}
            for hold in said.held_by
        ],
        "next_tries": [
            {"number": one.number, "earliest": _time(one.earliest), "latest": _time(one.latest)} for one in said.coming
        ],
        "expires_at": _time(said.expires_at),
        "last_tries": [
            {
                "id": str(one.id),
                "number": one.number,
                "started_at": _time(one.started_at),
                "outcome": one.outcome,
                "reason": one.reason,
                "fault": one.fault,
                "response_status": one.status,
                "text": one.text,
                "detail": one.detail,
            }
            for one in said.tried
        ],
        "policy": [{"name": one.name, "value": one.value, "source": one.source} for one in said.policy],
        "proof": said.proof,
        "ancestry": said.ancestry,
        "deliveries_of_event": [
            {
                "id": str(one.id),
                "state": one.state,
                "created_at": _time(one.created_at),
                "finished_at": _time(one.finished_at),
                "last_reason": one.last_reason,
                "replay_of": None if one.replay_of is None else str(one.replay_of),
            }
            for one in said.family
        ],
        "advice": list(said.advice),
    }


def undelivered(one: Undelivered) -> shapes.Undelivered:
    """Return a delivery that did not arrive, why, and whose fault that is."""
    return {**delivery(one.row), "reason": one.reason, "fault": fault_of(one.reason)}


def undelivered_for(one: Summary, group: Group) -> shapes.UndeliveredSum:
    """Return what was not delivered to one destination for one reason."""
    return {
        "destination": one.destination,
        "destination_id": str(one.destination_id),
        "removed": one.removed,
        "fault": group.fault,
        "reason": group.reason,
        "text": reason(group.reason).means,
        "state": group.state,
        "count": group.count,
        "more": one.more,
        "oldest_at": _time(group.oldest),
    }


def attempt(listed: ListedAttempt) -> shapes.Attempt:
    """Return an attempt as a list shows it."""
    row = listed.attempt
    return {
        "id": str(row.id),
        "delivery_id": str(row.delivery_id),
        "event_id": str(row.event_id),
        "endpoint": f"{listed.namespace}/{listed.name}",
        "endpoint_id": str(row.endpoint_id),
        "destination": listed.destination,
        "destination_id": str(row.destination_id),
        "number": row.number,
        "started_at": _time(row.started_at),
        "duration_ms": row.duration / timedelta(milliseconds=1),
        "outcome": row.outcome,
        "reason": row.reason,
        "detail": row.detail,
        "url": row.url,
        "payload_hash": _hex(row.payload_hash),
        "payload_commitment": _hex(row.payload_commitment),
        "sent_hash": _hex(row.sent_hash),
        "signature_digest": _hex(row.signature_digest),
        "response_status": row.response_status,
        "response_size": row.response_size,
        "response_digest": _hex(row.response_digest),
        "acknowledgement": row.acknowledgement,
        "acknowledgement_key": _hex(row.acknowledgement_key),
        "leaf_index": listed.leaf_index,
    }


def whole_attempt(listed: ListedAttempt) -> shapes.WholeAttempt:
    """Return an attempt with the response as far as it was kept."""
    row = listed.attempt
    return {
        **attempt(listed),
        "response_headers": None if row.response_headers is None else json.loads(row.response_headers),
        "response_body_base64": _base64(row.response_body),
        "response_body_text": _text(row.response_body),
        "acknowledgement_base_base64": _base64(row.acknowledgement_base),
        "acknowledgement_base_text": _text(row.acknowledgement_base),
        "acknowledgement_signature": _hex(row.acknowledgement_signature),
    }


def process(row: ProcessRow) -> shapes.Process:
    """Return a live process."""
    return {
        "component": row.component,
        "instance": row.instance,
        "address": row.address,
        "generation": row.generation,
        "started_at": _time(row.started_at),
        "seen_at": _time(row.seen_at),
    }


def replay(one: ReplayProgress) -> shapes.ReplayProgress:
    """Return a Replay and how far it is."""
    return {
        "id": str(one.id),
        "namespace": one.namespace,
        "name": one.name,
        "endpoint": f"{one.namespace}/{one.endpoint}",
        "phase": one.phase,
        "message": one.message,
        "received_from": _time(one.received_from),
        "received_to": _time(one.received_to),
        "states": ["missing"] if one.missing else list(one.states),
        "reasons": None if one.reasons is None else [shown(pattern) for pattern in one.reasons],
        "filter": one.filter,
        "dry_run": one.dry_run,
        "rate": one.rate,
        "suspend": one.suspend,
        "asked": one.asked,
        "matched": one.matched,
        "enqueued": one.enqueued,
        "delivered": one.delivered,
        "failed": one.failed,
        "skipped_events": one.skipped_events,
        "skipped_destinations": one.skipped_destinations,
        "skipped_pending": one.skipped_pending,
        "unjudged": one.unjudged,
        "declared_at": _time(one.declared_at),
        "started_at": _time(one.started_at),
        "counted_at": _time(one.counted_at),
        "enqueued_at": _time(one.enqueued_at),
        "completed_at": _time(one.completed_at),
        "removed_at": _time(one.removed_at),
    }


def blocked(one: Blocked) -> shapes.Blocked:
    """Return an order key that waits for a person, under the id of the delivery that blocks it."""
    return {
        "id": str(one.blocked_by),
        "endpoint": f"{one.namespace}/{one.endpoint}",
        "destination": one.destination,
        "destination_id": str(one.destination_id),
        "key": one.shown,
        "event_id": None if one.event_id is None else str(one.event_id),
        "attempts": one.attempts,
        "last_reason": one.last_reason,
        "blocked_at": _time(one.blocked_at),
        "waiting": min(one.waiting, turns.MOST_COUNTED),
        "waiting_more": one.waiting > turns.MOST_COUNTED,
    }


def key(row: KeyRow, used_by: Sequence[str], now: datetime) -> shapes.Key:
    """Return one version of a key; its secret stays where it is."""
    return {
        "id": str(row.id),
        "namespace": row.namespace,
        "name": row.name,
        "version": row.version,
        # A row has to name an algorithm, also that of a password.
        "algorithm": None if keys.is_credential(row.name) else row.algorithm,
        "generated": keys.is_generated(row.name),
        "live": rotation.is_live(row, now),
        "not_before": _time(row.not_before),
        "not_after": _time(row.not_after),
        "public_key": None if row.public is None else key_values.public_text(row.public),
        "used_by": list(used_by),
    }


def signing_key(row: KeyRow, name: str, state: shapes.KeyState) -> shapes.SigningKeyVersion:
    """Return the public half of a version of SigningKey `name`."""
    return {
        "id": str(row.id),
        "name": name,
        "version": row.version,
        "algorithm": "Ed25519",
        "public_key": key_values.public_text(row.public or b""),
        "state": state,
        "not_before": _time(row.not_before),
        "not_after": _time(row.not_after),
    }


def signing_jwk(row: KeyRow, name: str) -> shapes.SigningJwk:
    """Return the same version as a JSON Web Key."""
    found: shapes.SigningJwk = {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": str(row.id),
        "x": strict.to_base64url(row.public or b""),
        "name": name,
        "nbf": int(row.not_before.timestamp()),
    }
    if row.not_after is not None:
        found["exp"] = int(row.not_after.timestamp())
    return found


def log(
    state: LogState, head: HeadRow | None, *, following: LogState | None, witnessing: Witnessing | None
) -> log_shapes.Log:
    """Return a log and its newest head; `following` is the log that continues it, `witnessing` what is declared now."""
    return {
        "origin": state.origin,
        "state": "Closed" if following is not None else "Frozen" if state.frozen_reason is not None else "Active",
        "continued_by": None if following is None else following.origin,
        "read_at": f"/logs/{state.id}",
        "tree_size": state.tree_size,
        "root_hash": state.root.hex(),
        "frozen_reason": state.frozen_reason,
        "head": None
        if head is None
        else {
            "tree_size": head.tree_size,
            "root_hash": head.root.hex(),
            "timestamp": _time(datetime.fromtimestamp(head.timestamp_ms / 1000, UTC)),
            "public_key": head.public_key.hex(),
        },
        "witnessing": None if witnessing is None else _witnessing(witnessing, head),
    }


def _witnessing(declared: Witnessing, head: HeadRow | None) -> log_shapes.Witnesses:
    """Return who is to cosign the heads of a log, and when each of them cosigned the newest one."""
    keys = {one.name: WitnessKey.parse(one.vkey) for one in declared.witnesses}
    try:
        found = () if head is None else cosignature.find(Note.parse(head.checkpoint), keys.values())
    except VerificationError:
        found = ()  # nobody vouches for a head that was changed
    dates = {(one.name, one.key_id): datetime.fromtimestamp(one.timestamp, UTC) for one in found}
    return {
        "quorum": declared.quorum,
        "required": declared.required,
        "witnesses": [
            {"name": name, "cosigned_at": _time(dates.get((key.name, key.key_id)))} for name, key in keys.items()
        ],
    }


def _rate_limit(limit: RateLimit | None) -> shapes.RateLimit | None:
    return None if limit is None else {"requests_per_second": limit.requests_per_second, "burst": limit.burst}


def _batch(batch: Batch | None) -> shapes.Batch | None:
    if batch is None:
        return None
    return {
        "max_events": batch.max_events,
        "max_bytes": batch.max_bytes,
        "interval": durations.text(batch.interval),
    }


def _acknowledgement(declared: Acknowledgement | None) -> shapes.Acknowledgement | None:
    """Return what a destination declares of acknowledgements; no keys means that it publishes them itself."""
    if declared is None:
        return None
    return {
        "required": declared.required,
        "public_keys": list(declared.public_keys),
        "tolerance": durations.text(declared.tolerance),
    }


def _transform(declared: Transform | None) -> shapes.Transform | None:
    """Return what a destination has sent instead of what came."""
    if declared is None:
        return None
    return {
        "body": declared.body,
        "headers": [{"name": name, "value": source} for name, source in declared.headers],
        "content_type": declared.content_type,
    }


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()


def _text(content: bytes | None) -> str | None:
    """Return what can be read as text."""
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        return None


@overload
def _time(moment: datetime) -> str: ...
@overload
def _time(moment: datetime | None) -> str | None: ...
def _time(moment: datetime | None) -> str | None:
    if moment is None:
        return None
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@overload
def _hex(digest: bytes) -> str: ...
@overload
def _hex(digest: bytes | None) -> str | None: ...
def _hex(digest: bytes | None) -> str | None:
    return None if digest is None else digest.hex()
