"""The status of a Relay, from its objects, its database, its processes and its endpoints. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from kapsel_operator import readiness
from kapsel_operator.apply import Refusal
from kapsel_operator.conditions import Verdict, conditions, document, stalled
from kapsel_operator.databases import Trouble
from kapsel_operator.gather import Look
from kapsel_operator.manifests.facts import Component
from kapsel_operator.manifests.observed import Seen
from kapsel_operator.statuses import View, age, rounded
from kapsel_operator.store import Declared
from kapsel_operator.upgrades import Turn
from kapsel_resources.kinds.status import Address, RelayStatus
from kapsel_resources.problems import Problem

_WORKLOADS: Final[tuple[Component, ...]] = ("receiver", "deliverer", "console")
# What is wrong with a database that answers.
_NOT_OF_THE_SERVER: Final = frozenset({"SchemaNewer", "SchemaDiffers", "SealingKeyWrong", "SealingKeyNotFound"})
# What only its author can mend, among the ways in which a Relay can fail to be exposed.
_EXPOSURE_STALLS: Final = frozenset({"GatewayNotFound", "GatewayNotInstalled", "IngressClassNotFound", "RouteRefused"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayView:
    """All that the status of a Relay is decided from."""

    view: View
    trouble: Trouble | None  # with the database
    keep: bool  # it is too early to tell of that trouble
    look: Look | None
    migration: Seen
    workloads: Mapping[Component, Seen]
    exposed: Seen
    problems: tuple[Problem, ...]  # what it asks for and cannot have
    refused: tuple[Refusal, ...]  # objects that the API server did not take
    turn: Turn  # which version its pods are to run
    endpoints: int
    unhealthy: int


def status(one: Declared, seen: RelayView) -> dict[str, Any]:
    """Return the status of a Relay."""
    facts = list(_facts(one, seen))
    generation = seen.view.planned.basis.generation if seen.view.planned else None
    summary = _summary(one, seen, facts, generation)
    doing = seen.view.doing.values()
    oldest = max((each.oldest for each in doing if each.oldest is not None), default=None)
    known = seen.view.planned is not None
    return document(
        RelayStatus(
            observed_generation=one.generation,
            conditions=conditions((*facts, *summary), one.told, one.generation, seen.view.now),
            address=None if seen.view.url is None else Address(url=seen.view.url),
            version=_version(one, seen),
            schema_version=seen.look.schema_version if seen.look else one.status.get("schemaVersion"),
            configuration_generation=generation or one.status.get("configurationGeneration"),
            endpoints=seen.endpoints,
            unhealthy_endpoints=seen.unhealthy,
            pending=rounded(sum(each.pending for each in doing)) if known else one.status.get("pending"),
            oldest_pending=None if oldest is None else age(oldest),
        )
    )


def paused(one: Declared, now: datetime) -> dict[str, Any]:
    """Return the status of a Relay that is left as it is: what it said, and that it is paused."""
    said = _said(one, but=("Paused",)) or [Verdict("Ready", "Unknown", "Paused")]
    message = "the annotation kapsel.dev/reconcile is disabled: nothing of the Relay is changed"
    # What has been declared since is not in force, and nothing here may speak of it.
    seen = one.told.observed or one.generation
    return _as_it_was(one, [*said, Verdict("Paused", "True", "Disabled", message)], seen, now)


def refused(one: Declared, why: str, now: datetime) -> dict[str, Any]:
    """Return the status of a Relay that cannot be reconciled, since the API server refuses what that takes."""
    said = _said(one, but=("Ready", "Stalled", "Paused"))
    message = f"the API server refuses what the operator has to do for the Relay: {why}"
    return _as_it_was(one, [*said, *stalled("RequestRefused", message)], one.generation, now)


def _said(one: Declared, *, but: tuple[str, ...]) -> list[Verdict]:
    return [
        Verdict(was["type"], was["status"], was["reason"], was["message"])
        for was in one.status.get("conditions", ())
        if was["type"] not in but
    ]


def _as_it_was(one: Declared, verdicts: list[Verdict], generation: int, now: datetime) -> dict[str, Any]:
    kept = {name: value for name, value in one.status.items() if name not in ("conditions", "observedGeneration")}
    written = conditions(verdicts, one.told, generation, now)
    return {**kept, **document(RelayStatus(observed_generation=generation, conditions=written))}


def _facts(one: Declared, seen: RelayView) -> Iterable[Verdict]:
    yield _database(one, seen)
    yield _schema(one, seen)
    for component in _WORKLOADS:
        found = seen.workloads[component]
        yield Verdict(f"{component.capitalize()}Available", found.status, found.reason, found.message)
    yield Verdict("Exposed", seen.exposed.status, seen.exposed.reason, seen.exposed.message)


def _database(one: Declared, seen: RelayView) -> Verdict:
    if seen.trouble is None or seen.trouble.reason in _NOT_OF_THE_SERVER:
        return Verdict("DatabaseReachable", "True", "Connected")
    said = one.told.conditions.get("DatabaseReachable")
    if seen.keep and said is not None:
        message = "" if said.status == "True" else seen.trouble.message
        return Verdict("DatabaseReachable", _truth(said.status), said.reason, message)
    return Verdict("DatabaseReachable", "False", seen.trouble.reason, seen.trouble.message)


def _schema(one: Declared, seen: RelayView) -> Verdict:
    if seen.trouble is not None and seen.trouble.reason in ("SchemaNewer", "SchemaDiffers"):
        return Verdict("SchemaCurrent", "False", seen.trouble.reason, seen.trouble.message)
    if seen.look is None:
        said = one.told.conditions.get("SchemaCurrent")
        if said is None:
            return Verdict("SchemaCurrent", "Unknown", "DatabaseUnreachable", "the database could not be asked")
        return Verdict("SchemaCurrent", _truth(said.status), said.reason)
    if seen.look.schema == "Current":
        return Verdict("SchemaCurrent", "True", "Migrated")
    status = "False" if seen.migration.status == "Unknown" else seen.migration.status
    if status == "True":  # the Job says so, and the database does not
        return Verdict("SchemaCurrent", "False", "SchemaOutdated", "the database still lacks migrations")
    return Verdict("SchemaCurrent", status, seen.migration.reason, seen.migration.message)


def _summary(one: Declared, seen: RelayView, facts: Iterable[Verdict], generation: int | None) -> Iterable[Verdict]:
    """Return Ready, and Stalled if only a person can help: the first of what is wrong, the worst first."""
    doomed = _doomed(one, seen)
    if doomed is not None:
        return stalled(*doomed)
    wrong = [fact for fact in facts if fact.status != "True" and not _is_meant(fact)]
    if not wrong or (wrong and all(fact.type == "Exposed" and fact.status == "Unknown" for fact in wrong)):
        return (_settled(one, seen, generation),)
    first = next((fact for fact in wrong if fact.status == "False"), wrong[0])
    said = one.told.conditions.get("Ready")
    if seen.keep and said is not None and said.status == "True":
        return (Verdict("Ready", "True", said.reason),)
    return (Verdict("Ready", "Unknown" if said is None else first.status, first.reason, first.message),)


def _is_meant(fact: Verdict) -> bool:
    """Return whether something is missing that the Relay does without: webhooks need no console."""
    return (fact.type, fact.reason) == ("ConsoleAvailable", "ScaledToZero")


def _doomed(one: Declared, seen: RelayView) -> tuple[str, str] | None:
    if seen.trouble is not None and seen.trouble.stalled:
        return seen.trouble.reason, seen.trouble.message
    if seen.problems:
        return seen.problems[0].reason, "; ".join(map(str, seen.problems))
    planned = seen.view.planned.told.get(one.identity) if seen.view.planned else None
    if planned is not None and planned.stalled:
        return planned.reason, planned.message
    if seen.refused:
        return seen.refused[0].reason, "; ".join(refusal.message for refusal in seen.refused)
    if seen.exposed.status == "False" and seen.exposed.reason in _EXPOSURE_STALLS:
        return seen.exposed.reason, seen.exposed.message
    return None


def _settled(one: Declared, seen: RelayView, generation: int | None) -> Verdict:
    """Return whether what is available is what is wanted, and works with the newest configuration."""
    for component in _WORKLOADS:
        found = seen.workloads[component]
        if not found.settled:
            return Verdict("Ready", "Unknown", found.reason, found.message)
    found_ready = readiness.ready(one, generation, seen.view.plane)
    if found_ready.status == "True":
        waits = f"the pods stay at version {seen.turn.version} until {seen.turn.after} has the operator's version"
        return Verdict("Ready", "True", "Available", waits if seen.turn.after else "")
    return found_ready


def _version(one: Declared, seen: RelayView) -> str | None:
    """Return the version that all pods run: the wanted one only when every rollout is over."""
    if all(seen.workloads[component].settled for component in _WORKLOADS):
        return seen.turn.version
    return one.status.get("version")


def _truth(status: str) -> Any:
    return status
