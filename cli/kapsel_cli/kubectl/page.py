"""The page that `kubectl kapsel status` shows, made of resources without IO: what is wrong first, each with what to do.

What is fine takes one line for each kind, so that the page of a large installation still fits on a screen.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from kapsel_cli import output
from kapsel_cli.kubectl.advice import NO_OPERATOR, advice
from kapsel_cli.kubectl.view import Condition, View, moment

UNSEEN: Final = timedelta(seconds=30)  # an operator that runs has looked at everything by then
MOST: Final = 20  # troubles of one kind on the page
# Plural, as the API server has it, and what the page calls it.
KINDS: Final = {
    "relays": "Relay",
    "webhookendpoints": "WebhookEndpoint",
    "attestationlogs": "AttestationLog",
    "signingkeys": "SigningKey",
    "retrypolicies": "RetryPolicy",
    "replays": "Replay",
}
# Conditions that are False when something is wrong, besides Ready, in the order in which they explain each other.
_GOOD_WHEN_TRUE: Final = (
    "DatabaseReachable",
    "SchemaCurrent",
    "ReceiverAvailable",
    "DelivererAvailable",
    "ConsoleAvailable",
    "Exposed",
    "Delivering",
    "LogConsistent",
    "CheckpointFresh",
    "LeavesComplete",
    "Anchored",
    "Witnessed",
)

# A log that has no attempt yet, one whose first heads wait for a block, and one that another has replaced.
_HARMLESS: Final = frozenset({"NoHead", "Promised", "Superseded"})


class Mark(StrEnum):
    """How bad a line is."""

    FINE = "✓"
    NOTE = "·"
    WARNING = "!"
    BAD = "✗"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the page."""

    mark: Mark | None
    text: str
    indent: int = 0


def page(resources: Sequence[View], now: datetime) -> list[Line]:
    """Return the whole page."""
    unseen = [one for one in resources if _is_unseen(one, now)]
    relays = sorted((one for one in resources if one.kind == "Relay" and one not in unseen), key=lambda one: one.place)
    waiting = [one for one in resources if one.kind != "Relay" and _waits_for(one, relays)]
    lines = [*_unseen(unseen, now), *_relays(relays, now), *_waiting(waiting)]
    apart = {(one.kind, one.place) for one in (*unseen, *waiting)}
    for kind in KINDS.values():
        mine = [one for one in resources if one.kind == kind and (kind, one.place) not in apart]
        if kind != "Relay":
            lines += _others(kind, sorted(mine, key=lambda one: one.place), now)
    return lines


def is_well(lines: Iterable[Line]) -> bool:
    """Whether nothing on the page wants a person."""
    return not any(line.mark in (Mark.WARNING, Mark.BAD) for line in lines)


def troubles(resource: View, now: datetime) -> list[Line]:
    """Return what is wrong with a resource, the cause before what follows from it."""
    if not resource.conditions:
        return [
            Line(mark=Mark.NOTE, text=f"new, {output.duration(max((now - resource.created).total_seconds(), 0.0))} old")
        ]
    return list(_troubles(resource))


def _is_unseen(resource: View, now: datetime) -> bool:
    return not resource.conditions and now - resource.created >= UNSEEN


def _unseen(resources: Sequence[View], now: datetime) -> list[Line]:
    """Return what to say of resources that no operator has looked at: once, for they have one cause."""
    if not resources:
        return []
    first, others = resources[0], len(resources) - 1
    more = f" and {others} more" if others else ""
    waited = output.duration(max((now - one.created).total_seconds() for one in resources))
    text = f"no operator has looked at {first.kind} {first.place}{more} for {waited}"
    return [Line(mark=Mark.BAD, text=text), _step(NO_OPERATOR)]


def _waits_for(resource: View, relays: Iterable[View]) -> bool:
    """Whether all that is wrong with a resource is what is wrong with a Relay, or follows from it."""
    mine = _causes(resource)
    if resource.is_true("Stalled") or [one.type for one in mine] != ["Ready"]:
        return False
    for relay in relays:
        stalled = [relay.conditions["Stalled"]] if relay.is_true("Stalled") else []
        wrong = [*_causes(relay), *stalled]
        if (mine[0].reason, mine[0].message) in {(one.reason, one.message) for one in wrong}:
            return True
        if wrong and mine[0].reason == "Loading" and relay.namespace == resource.namespace:
            return True
    return False


def _waiting(resources: Sequence[View]) -> list[Line]:
    """Return one line for all that waits for its Relay."""
    if not resources:
        return []
    counts = [(kind, sum(one.kind == kind for one in resources)) for kind in KINDS.values()]
    text = ", ".join(f"{count} of {kind}" for kind, count in counts if count)
    return [Line(mark=Mark.NOTE, text=f"waiting for their Relay: {text}")]


def _troubles(resource: View) -> Iterator[Line]:
    if resource.is_true("Paused"):
        kind, where = resource.kind.lower(), f"{resource.name} -n {resource.namespace}"
        yield Line(mark=Mark.WARNING, text="paused: no change of it is carried out")
        yield _step(f"kubectl annotate {kind} {where} kapsel.dev/reconcile-")
    elif resource.observed < resource.generation:
        yield Line(mark=Mark.NOTE, text="its newest change has not been looked at yet")
    if resource.is_true("Stalled"):
        yield from _said(resource, resource.conditions["Stalled"], Mark.BAD)
    elif resource.is_true("Failed"):
        yield from _said(resource, resource.conditions["Failed"], Mark.WARNING)
    for one in _causes(resource):
        yield from _said(resource, one, _mark(one))
        if one.type == "Delivering":
            yield from _destinations(resource)


def _causes(resource: View) -> list[Condition]:
    """Return the conditions that are not as they should be, besides Stalled: Ready only if nothing explains it."""
    stalled = resource.conditions["Stalled"].reason if resource.is_true("Stalled") else None
    bad = [one for name in _GOOD_WHEN_TRUE if (one := resource.conditions.get(name)) and one.status == "False"]
    messages = [one.message for one in bad]
    causes = [
        one
        for index, one in enumerate(bad)
        if one.reason != stalled
        and (not one.message or one.message not in messages[:index])
        # What was never made is not worth a word while something else is the reason for it.
        and not (one.reason == "NotCreated" and (stalled or bad[0].reason != "NotCreated"))
    ]
    ready = resource.conditions.get("Ready")
    if stalled is None and not causes and ready is not None and ready.status != "True":
        return [ready]
    return causes


def _mark(condition: Condition) -> Mark:
    if condition.reason in _HARMLESS:
        return Mark.NOTE
    return Mark.WARNING if condition.type in ("Anchored", "Delivering", "Ready", "Witnessed") else Mark.BAD


def _said(resource: View, condition: Condition, mark: Mark) -> Iterator[Line]:
    message = f": {condition.message}" if condition.message else ""
    named = condition.type if condition.status == "True" else f"not {condition.type}"
    yield Line(mark=mark, text=f"{named}: {condition.reason}{message}")
    what = advice(resource, condition)
    if what is not None and what not in condition.message:
        yield _step(what)


def _destinations(resource: View) -> Iterator[Line]:
    for one in resource.status.get("destinations") or ():
        if one.get("state") in ("CircuitOpen", "DisableWarning", "Disabled", "Failing", "Suspended"):
            last = f", last: {one['lastReason']}" if one.get("lastReason") else ""
            text = f"{one.get('name')}: {one['state']}, {one.get('pending', 0)} waiting{last}"
            yield Line(mark=None, text=text, indent=1)


def _step(text: str) -> Line:
    return Line(mark=None, text=f"→ {text if text.startswith('kubectl') else text[:1].upper() + text[1:]}", indent=1)


def _relays(relays: Sequence[View], now: datetime) -> Iterator[Line]:
    for relay in relays:
        found = troubles(relay, now)
        mark = _worst(found)
        yield Line(mark=mark, text=f"Relay {relay.place}{_at(relay)}")
        yield from (_below(line) for line in (*_figures(relay), *found))


def _at(relay: View) -> str:
    url = (relay.status.get("address") or {}).get("url")
    return f", {url}" if url else ""


def _figures(relay: View) -> Iterator[Line]:
    status = relay.status
    versions = [
        f"{word} {status[name]}"
        for word, name in (
            ("version", "version"),
            ("schema", "schemaVersion"),
            ("configuration", "configurationGeneration"),
        )
        if name in status
    ]
    if versions:
        yield Line(mark=None, text=", ".join(versions))
    counts = []
    if "endpoints" in status:
        unwell = status.get("unhealthyEndpoints", 0)
        counts.append(f"{status['endpoints']} endpoints" + (f", {unwell} of them not well" if unwell else ""))
    if "pending" in status:  # it is not, as long as nobody could ask the database
        oldest = f", the oldest for {status['oldestPending']}" if status.get("oldestPending") else ""
        counts.append(f"{status['pending']} deliveries wait{oldest}")
    if counts:
        yield Line(mark=None, text="; ".join(counts))


def _others(kind: str, resources: Sequence[View], now: datetime) -> Iterator[Line]:
    wrong = [(one, lines) for one in resources if (lines := troubles(one, now))]
    alike: dict[tuple[Line, ...], list[View]] = {}
    for one, lines in wrong:
        alike.setdefault(tuple(lines), []).append(one)
    for found, (first, *more) in list(alike.items())[:MOST]:
        named = f"{first.place} and {len(more)} more" if more else f"{first.place}{_more(first, now)}"
        yield Line(mark=_worst(found), text=f"{kind} {named}")
        yield from (_below(line) for line in found)
    if len(alike) > MOST:
        yield Line(mark=Mark.BAD, text=f"and {len(alike) - MOST} more of {kind}: kubectl get {kind.lower()}")
    fine = [one for one in resources if one not in [other for other, _ in wrong]]
    if fine:
        named = f"{kind} {fine[0].place}{_more(fine[0], now)}" if len(fine) == 1 else f"{len(fine)} of {kind}"
        others = ", the others" if wrong and len(fine) > 1 else ""
        yield Line(mark=Mark.FINE, text=f"{named}{others}: well" if kind != "Replay" else f"{named}{others}")


def _more(resource: View, now: datetime) -> str:
    """Return what is worth knowing of one resource on its line."""
    status = resource.status
    if resource.kind == "WebhookEndpoint" and status.get("pending"):
        oldest = f", the oldest for {status['oldestPending']}" if status.get("oldestPending") else ""
        return f" ({status['pending']} wait{oldest})"
    if resource.kind == "AttestationLog" and (head := status.get("head")):
        published = moment(head.get("timestamp"))
        ago = (
            "" if published is None else f", signed {output.duration(max((now - published).total_seconds(), 0.0))} ago"
        )
        return f", {status.get('origin')}: {head.get('treeSize')} leaves{ago}"
    if resource.kind == "Replay" and "matched" in status:
        return f": {status.get('enqueued', 0)} of {status['matched']} made anew, {status.get('delivered', 0)} delivered"
    return ""


def _below(line: Line) -> Line:
    return Line(mark=line.mark, text=line.text, indent=line.indent + 1)


def _worst(lines: Iterable[Line]) -> Mark:
    marks = {line.mark for line in lines}
    return next((mark for mark in (Mark.BAD, Mark.WARNING, Mark.NOTE) if mark in marks), Mark.FINE)
