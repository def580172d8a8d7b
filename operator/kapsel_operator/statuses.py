"""The status of every kind but Relay, from what was planned and what runs. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from kapsel_operator import readiness
from kapsel_operator.conditions import Verdict, conditions, document, stalled
from kapsel_operator.key_secrets import secret_name
from kapsel_operator.planned import (
    DestinationView,
    EndpointView,
    KeyView,
    Planned,
    key_generation,
    newest_live,
    versions_of,
)
from kapsel_operator.readiness import Plane
from kapsel_operator.store import Declared
from kapsel_resources import durations, key_values
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.retry_policy import RetryPolicy
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.status import (
    Address,
    AttestationLogStatus,
    DestinationStatus,
    KeyVersion,
    RetryPolicyStatus,
    SigningKeyStatus,
    Status,
    WebhookEndpointStatus,
)
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_store.healings import Healing
from kapsel_store.overview import MOST_COUNTED, Doing
from kapsel_verifier.note import VerifierKey

_NOTHING: Final = Doing()
_SHOWN_WAITS: Final = 6
_SHOWN_VERSIONS: Final = 32  # as many as a status takes; a Secret may hold more
DestinationState = Literal["Delivering", "Failing", "CircuitOpen", "DisableWarning", "Disabled", "Suspended", "Idle"]
_WORST: Final[tuple[DestinationState, ...]] = (
    "Disabled", "DisableWarning", "CircuitOpen", "Failing", "Suspended", "Delivering", "Idle",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """All that the statuses of one Relay's resources are decided from."""

    now: datetime
    planned: Planned | None  # None as long as there was no plan
    plane: Plane
    doing: Mapping[UUID, Doing]
    url: str | None  # where the receivers are reached
    healings: Mapping[UUID, Healing] = field(default_factory=dict)  # by endpoint
    nameless: frozenset[Identity] = frozenset()  # somebody else has a Secret of the name that theirs would have
    refusals: Mapping[Identity, str] = field(default_factory=dict)  # why the API server does not take that Secret


def endpoint(one: Declared, view: View) -> dict[str, Any]:
    """Return the status of a WebhookEndpoint."""
    found = view.planned.endpoints.get(one.identity) if view.planned else None
    generation = view.planned.generations.endpoints.get(found.id) if view.planned and found else None
    verdicts = _verdicts(one, view, generation)
    if one.paused:
        message = "the annotation kapsel.dev/reconcile is disabled: changes are not taken over"
        verdicts = (*verdicts, Verdict("Paused", "True", "Disabled", message))
    if found is None:
        return _document(WebhookEndpointStatus, one, view.now, verdicts)
    doings = [(row, view.doing.get(row.id, _NOTHING)) for row in found.destinations]
    oldest = max((doing.oldest for _, doing in doings if doing.oldest is not None), default=None)
    url = _ingest_url(found, one, view.url)
    return _document(
        WebhookEndpointStatus,
        one,
        view.now,
        (*verdicts, delivering(doings), *gaps(one, found, view)),
        id=str(found.id),
        address=None if url is None else Address(url=url),
        destinations=tuple(_destination(row, doing) for row, doing in doings),
        pending=rounded(sum(doing.pending for _, doing in doings)),
        oldest_pending=None if oldest is None else age(oldest),
        success=success(doing for _, doing in doings),
    )


def retry_policy(one: Declared, resource: RetryPolicy, view: View) -> dict[str, Any]:
    """Return the status of a RetryPolicy: it is in force as soon as the destinations are that name it."""
    if view.planned is None:
        return _document(RetryPolicyStatus, one, view.now, _verdicts(one, view, None))
    users = view.planned.users.get(one.identity, ())
    known = view.planned.generations.endpoints
    generation = max((known.get(user, 0) for user in users), default=0)
    policy = resource.spec.policy()
    return _document(
        RetryPolicyStatus,
        one,
        view.now,
        _verdicts(one, view, generation),
        type=policy.backoff.type,
        max_attempts=policy.max_attempts,
        max_age=durations.text(policy.max_age),
        spans=spans(resource),
        users=len(users),
    )


def signing_key(one: Declared, resource: SigningKey, view: View) -> dict[str, Any]:
    """Return the status of a SigningKey."""
    if view.planned is None:
        return _document(SigningKeyStatus, one, view.now, _verdicts(one, view, None))
    versions = versions_of(view.planned, one.identity)
    # A key of a Secret that nobody uses is in no row, and there is nothing to load.
    generation = key_generation(view.planned, one.identity) or 0
    live = newest_live(versions, view.now)
    newest = next((row for row in versions if row.version == live), None)
    upcoming = min((row.not_before for row in versions if row.not_before > view.now), default=None)
    return _document(
        SigningKeyStatus,
        one,
        view.now,
        _verdicts(one, view, generation),
        version=live,
        public_key=key_values.public_text(newest.public) if newest and newest.public else None,
        next_rotation=_second(upcoming) if upcoming else None,
        secret_name=_secret_of_key(one, resource, versions),
        versions=tuple(_version(row, view.now, live or 0) for row in versions if row.state(view.now, live or 0))[
            -_SHOWN_VERSIONS:
        ],
    )


def _secret_of_key(one: Declared, resource: SigningKey, versions: Sequence[KeyView]) -> str | None:
    """Return the Secret that holds the versions; what opens the way to a key elsewhere holds none."""
    if resource.spec.secret_ref is not None:
        return resource.spec.secret_ref.name
    is_kept = versions and resource.spec.source == "Generate"
    return secret_name("SigningKey", one.identity.name) if is_kept else None


def attestation_log(one: Declared, view: View, *, superseded: bool) -> dict[str, Any]:
    """Return the operator's part of the status of an AttestationLog."""
    if superseded:
        message = "another AttestationLog was declared for the Relay; this one is kept for the fence in its status"
        return _document(AttestationLogStatus, one, view.now, (Verdict("Ready", "False", "Superseded", message),))
    row = view.planned.log if view.planned else None
    mine = row is not None and (row.namespace, row.name) == (one.identity.namespace, one.identity.name)
    if row is None or not mine or view.planned is None:
        return _document(AttestationLogStatus, one, view.now, _verdicts(one, view, None, ("attestor",)))
    generation = _log_generation(one, view.planned)
    return _document(
        AttestationLogStatus,
        one,
        view.now,
        _verdicts(one, view, generation, ("attestor",)),
        origin=row.origin,
        public_key=_verifier_key(row.origin, view.planned.keys.get((row.namespace, row.key_name), ())),
    )


def orphan(one: Declared, reason: str, message: str, now: datetime) -> dict[str, Any]:
    """Return the status of a resource that no Relay speaks for."""
    return _document(Status, one, now, stalled(reason, message))


def waiting(one: Declared, now: datetime) -> dict[str, Any]:
    """Return the status of a resource that came while its Relay was paused."""
    message = "the Relay is paused by its annotation kapsel.dev/reconcile, and takes nothing over until that is gone"
    return _document(Status, one, now, (Verdict("Ready", "Unknown", "Paused", message),))


def delivering(doings: Sequence[tuple[DestinationView, Doing]]) -> Verdict:
    """Return whether the other side answers: as the destination says that is worst off."""
    states = {row.name: state(row, doing) for row, doing in doings}
    if not states:
        return Verdict("Delivering", "Unknown", "NoDestinations", "webhooks are kept and go nowhere")
    worst = min(states.values(), key=_WORST.index)
    named = ", ".join(name for name, found in states.items() if found == worst)
    match worst:
        case "Delivering":
            return Verdict("Delivering", "True", worst)
        case "Idle":
            return Verdict("Delivering", "Unknown", worst, "nothing was delivered lately")
        case "Suspended":
            return Verdict("Delivering", "False", worst, f"suspended by the manifest: {named}")
        case "Disabled":
            return Verdict("Delivering", "False", worst, _disabled(doings))
        case "DisableWarning":
            message = f"only fails, and is disabled soon if it goes on like this: {named}"
            return Verdict("Delivering", "False", worst, message)
        case "Failing":
            return Verdict("Delivering", "False", worst, f"every recent try failed: {named}")
    return Verdict("Delivering", "False", worst, f"only failed lately, and is left in peace for a while: {named}")


def gaps(one: Declared, found: EndpointView, view: View) -> tuple[Verdict, ...]:
    """Return whether all is here that GitHub tried to deliver, for an endpoint that asks it."""
    if not isinstance(one.resource, WebhookEndpoint) or not one.resource.spec.verification.heals:
        return ()
    last = view.healings.get(found.id)
    if last is None:
        return (Verdict("GapsHealed", "Unknown", "NotLooked", "GitHub was not asked yet"),)
    return (Verdict("GapsHealed", "True" if last.reason == "Healed" else "False", last.reason, last.message),)


def _disabled(doings: Sequence[tuple[DestinationView, Doing]]) -> str:
    """Say which destinations are tried no more, by what they did."""
    gone = ", ".join(row.name for row, doing in doings if doing.disabled == "gone")
    failing = ", ".join(row.name for row, doing in doings if doing.disabled and doing.disabled != "gone")
    said = ([f"answered 410 Gone, and is tried no more: {gone}"] if gone else []) + (
        [f"failed for too long, and is tried no more until it is resumed: {failing}"] if failing else []
    )
    return "; ".join(said)


def state(row: DestinationView, doing: Doing) -> DestinationState:
    """Return how a destination is doing."""
    if doing.disabled:
        return "Disabled"
    if row.suspend:
        return "Suspended"
    if doing.warned:
        return "DisableWarning"
    if doing.circuit_open:
        return "CircuitOpen"
    if doing.attempts and not doing.delivered:
        return "Failing"  # too few tries to open the circuit, and not one that went well
    return "Delivering" if doing.attempts or doing.pending else "Idle"


def success(doings: Iterable[Doing]) -> str | None:
    """Return how many of the recent tries succeeded, rounded down: 100% means all."""
    attempts = delivered = 0
    for doing in doings:
        attempts += doing.attempts
        delivered += doing.delivered
    if not attempts:
        return None
    tenths = delivered * 1000 // attempts
    return f"{tenths // 10}%" if tenths % 10 == 0 else f"{tenths // 10}.{tenths % 10}%"


def rounded(count: int) -> int:
    """Return a number with two digits that mean something: what changes all the time is not worth a write each time."""
    if count < 100:
        return count
    scale = 10 ** (len(str(count)) - 2)
    return int(count // scale * scale)


def age(waited: timedelta) -> str:
    """Return how long something waits, rounded down to what is worth telling: 40s, 3m10s, 2h5m."""
    seconds = max(int(waited.total_seconds()), 0)
    step = 10 if seconds < 600 else 60 if seconds < 36_000 else 3600
    return durations.text(timedelta(seconds=seconds // step * step))


def spans(policy: RetryPolicy) -> str:
    """Return the waits of a policy without jitter, as many as fit, and when it gives up."""
    effective = policy.spec.policy()
    backoff = effective.backoff
    waits: list[timedelta] = []
    for number in range(effective.max_attempts - 1):
        if backoff.type == "Schedule":
            waits.append(backoff.schedule[min(number, len(backoff.schedule) - 1)])
        else:
            exponential = backoff.initial.total_seconds() * min(backoff.factor**number, 1e9)
            waits.append(min(timedelta(seconds=min(exponential, 1e9)), backoff.max))
    shown = [durations.text(timedelta(milliseconds=wait // timedelta(milliseconds=1))) for wait in waits[:_SHOWN_WAITS]]
    more = ["..."] if len(waits) > _SHOWN_WAITS else []
    return f"{', '.join([*shown, *more]) or 'no second try'}; at most {durations.text(effective.max_age)}"


def _verdicts(
    one: Declared, view: View, generation: int | None, needed: tuple[Any, ...] = ("receiver", "deliverer")
) -> tuple[Verdict, ...]:
    told = view.planned.told.get(one.identity) if view.planned else None
    if told is not None and told.stalled and not one.paused:
        return stalled(told.reason, told.message)
    if one.identity in view.nameless and not one.paused:
        return stalled("NameTaken", _name_taken(one.identity))
    if one.identity in view.refusals and not one.paused:
        message = f"its key is in force, but in no Secret: the API server refuses that: {view.refusals[one.identity]}"
        return stalled("RequestRefused", message)
    return (readiness.ready(one, generation, view.plane, needed=needed),)


def _name_taken(identity: Identity) -> str:
    name = f"{identity.namespace}/{secret_name(identity.kind, identity.name)}"
    return (
        f"its key is in force, but not in the Secret {name}, which is somebody else's and is left as it is; "
        "allowed: another name for one of the two"
    )


def _document(
    model: type[Status],
    one: Declared,
    now: datetime,
    verdicts: Iterable[Verdict],
    **fields: Any,
) -> dict[str, Any]:
    # What was declared since an endpoint was paused is not in force, and its status does not speak of it.
    generation = one.told.observed or one.generation if one.paused else one.generation
    return document(
        model(
            observed_generation=generation,
            conditions=conditions(verdicts, one.told, generation, now),
            **fields,
        )
    )


def _destination(row: DestinationView, doing: Doing) -> DestinationStatus:
    return DestinationStatus(
        name=row.name,
        id=str(row.id),
        state=state(row, doing),
        pending=rounded(min(doing.pending, MOST_COUNTED)),
        last_reason=doing.last_reason,
    )


def _ingest_url(found: EndpointView, one: Declared, url: str | None) -> str | None:
    if url is None:
        return None
    if "Id" in found.paths:
        return f"{url}/ingest/{found.id}"
    return f"{url}/ingest/{one.identity.namespace}/{one.identity.name}"


def _version(row: KeyView, now: datetime, live: int) -> KeyVersion:
    return KeyVersion(
        version=row.version,
        state=row.state(now, live) or "Retiring",
        not_before=_second(row.not_before),
        not_after=_second(row.not_after) if row.not_after else None,
        public_key=key_values.public_text(row.public) if row.public else None,
    )


def _second(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _log_generation(one: Declared, planned: Planned) -> int:
    """Return the generation that an attestor must have loaded; once Ready, changes of other things do not count."""
    said = one.told.conditions.get("Ready")
    if said is not None and said.status == "True" and one.told.observed == one.generation:
        return 1
    return planned.basis.generation


def _verifier_key(origin: str, versions: Sequence[KeyView]) -> str | None:
    public = next((row.public for row in versions if row.public is not None), None)
    return None if public is None else VerifierKey(origin, public).encode()
