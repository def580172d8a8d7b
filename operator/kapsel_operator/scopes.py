"""Who speaks for which resource: each has one Relay whose reconcile plans it and writes its status, or none.

Pure. A Relay's plan sees the namespaces that the Relay allows. Where several Relays could speak for a key or a policy,
the one of the same namespace does, then the first by name: two that wrote one status would never come to rest.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kapsel_operator.store import Declared, essence
from kapsel_resources.inventory import Inventory
from kapsel_resources.kinds.attestation_log import AttestationLog
from kapsel_resources.kinds.core import Namespace
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.kinds.replay import Replay
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_resources.logs import belongs
from kapsel_resources.manifests import Resource
from kapsel_resources.problems import Problem
from kapsel_resources.relays import Chosen, allows, carries
from kapsel_resources.statuses import concerned


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What one Relay plans, and what it speaks for."""

    resources: tuple[Resource, ...]
    broken: frozenset[Identity]  # exist, and keep the rows that they had
    speaks_for: frozenset[Identity]
    superseded: frozenset[Identity]  # logs that the operator made, and that a declared one has replaced
    needs_log: bool  # there is no AttestationLog, and nothing that could be meant for one
    seen: Mapping[Identity, Declared] = field(default_factory=dict)  # what it speaks for, as it was when it was divided

    def is_about(self, one: Declared) -> bool:
        """Return whether a plan of this takes in what a resource declares now, so that its status may say so."""
        seen = self.seen.get(one.identity)
        return seen is not None and essence(seen) == essence(one)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A resource that no Relay speaks for, and why."""

    identity: Identity
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Scopes:
    """All resources of the cluster, divided."""

    relays: Mapping[Identity, Scope]
    orphans: tuple[Orphan, ...]


def divide(declared: Iterable[Declared], namespaces: Iterable[Namespace]) -> Scopes:
    """Divide all resources among the Relays."""
    everything = list(declared)
    labels = list(namespaces)
    whole = Inventory(
        [*labels, *(one.resource for one in everything if one.resource is not None)],
        broken=[one.identity for one in everything if one.resource is None],
        complete=True,
    )
    by_namespace: dict[str, list[Declared]] = {}
    for one in everything:
        by_namespace.setdefault(one.identity.namespace, []).append(one)
    relays = {relay.identity: relay for relay in whole.all(Relay)}
    scopes = {identity: _scope(relay, whole, by_namespace, labels) for identity, relay in relays.items()}
    speakers = _speakers(scopes, whole)
    spoken: dict[Identity, set[Identity]] = {identity: set() for identity in scopes}
    seen = {one.identity: one for one in everything}
    for resource, speaker in speakers.items():
        spoken[speaker].add(resource)
    return Scopes(
        relays={
            identity: Scope(
                resources=scope.resources,
                broken=scope.broken,
                speaks_for=frozenset(spoken[identity]),
                superseded=scope.superseded,
                needs_log=scope.needs_log,
                seen={one: seen[one] for one in spoken[identity]},
            )
            for identity, scope in scopes.items()
        },
        orphans=tuple(_orphans(everything, whole, relays, speakers)),
    )


def _scope(
    relay: Relay, whole: Inventory, by_namespace: Mapping[str, list[Declared]], labels: list[Namespace]
) -> Scope:
    chosen = Chosen(relay.identity, relay.spec)
    mine = [
        one
        for namespace, ones in by_namespace.items()
        if allows(chosen, whole, namespace)
        for one in ones
        if one.identity.kind != "Relay"
    ]
    logs = [one for one in mine if isinstance(one.resource, AttestationLog)]
    belonging = [
        one for one in logs if isinstance(one.resource, AttestationLog) and belongs(chosen, whole, one.resource) is True
    ]
    superseded = frozenset(one.identity for one in belonging if one.is_default)
    if len(superseded) == len(belonging):
        superseded = frozenset()  # there is no other
    # A paused endpoint keeps its rows as a broken one does: its manifest counts for nothing just now.
    set_aside = {one.identity for one in mine if one.resource is None or _is_paused(one)}
    resources = tuple(
        one.resource
        for one in mine
        if one.resource is not None and one.identity not in set_aside and one.identity not in superseded
    )
    inventory = Inventory([*labels, *whole.all(Relay), *resources], set_aside, complete=True)
    unclear = [one for one in mine if one.identity.kind == "AttestationLog" and one.resource is None]
    return Scope(
        resources=(*labels, *whole.all(Relay), *resources),
        broken=frozenset(set_aside) | frozenset(whole.unreadable(Relay)),
        speaks_for=frozenset(concerned(chosen, inventory)) | superseded | _paused_here(chosen, whole, mine),
        superseded=superseded,
        needs_log=not belonging and not [one for one in unclear if one.identity.namespace == relay.metadata.namespace],
    )


def _is_paused(one: Declared) -> bool:
    return one.paused and one.identity.kind == "WebhookEndpoint"


def _paused_here(chosen: Chosen, whole: Inventory, mine: Iterable[Declared]) -> frozenset[Identity]:
    return frozenset(
        one.identity
        for one in mine
        if _is_paused(one)
        and isinstance(one.resource, WebhookEndpoint)
        and carries(chosen, whole, one.identity, one.resource.spec.relay_ref) is True
    )


def _speakers(scopes: Mapping[Identity, Scope], whole: Inventory) -> dict[Identity, Identity]:
    """Return the Relay that speaks for each resource; those that none speaks for are absent."""
    found: dict[Identity, Identity] = {}
    for relay in sorted(scopes):
        guests = {one.namespace for one in scopes[relay].speaks_for if one.kind == "WebhookEndpoint"}
        for one in scopes[relay].speaks_for:
            if one.kind == "SigningKey" and not _is_trusted(relay, guests, one, whole):
                continue
            current = found.get(one)
            if current is None or (relay.namespace == one.namespace != current.namespace):
                found[one] = relay
    for replay in whole.all(Replay):
        speaker = _speaker_of_replay(replay, found, scopes, whole)
        if speaker is not None:
            found[replay.identity] = speaker
    return found


def _is_trusted(relay: Identity, guests: Iterable[str], key: Identity, whole: Inventory) -> bool:
    """Return whether a Relay may learn a key: that it lets a namespace in does not mean that anybody there goes there.

    Whoever speaks for a key that kapsel makes reads its Secret into a database of their own.
    """
    if key.namespace == relay.namespace or key.namespace in guests:
        return True
    chosen = next(Chosen(one.identity, one.spec) for one in whole.all(Relay) if one.identity == relay)
    return carries(chosen, whole, key, None) is True


def _speaker_of_replay(
    replay: Replay, found: Mapping[Identity, Identity], scopes: Mapping[Identity, Scope], whole: Inventory
) -> Identity | None:
    """A Replay belongs to whoever carries its endpoint; without one, to who would carry it."""
    namespace = replay.metadata.namespace
    endpoint = Identity("WebhookEndpoint", namespace, replay.spec.endpoint_ref.name)
    if endpoint in found:
        return found[endpoint]
    relays = {relay.identity: relay for relay in whole.all(Relay)}
    return next(
        (
            identity
            for identity in sorted(scopes, key=lambda one: (one.namespace != namespace, one))
            if allows(Chosen(identity, relays[identity].spec), whole, namespace)
        ),
        None,
    )


def _orphans(
    everything: Iterable[Declared],
    whole: Inventory,
    relays: Mapping[Identity, Relay],
    speakers: Mapping[Identity, Identity],
) -> Iterator[Orphan]:
    for one in everything:
        if one.resource is None:
            message = "; ".join(map(str, one.problems))
            yield Orphan(identity=one.identity, reason="InvalidManifest", message=message)
        elif one.identity not in speakers and one.identity.kind != "Relay":
            reason, message = _why(one.resource, whole, relays)
            yield Orphan(identity=one.identity, reason=reason, message=message)


def _why(resource: Resource, whole: Inventory, relays: Mapping[Identity, Relay]) -> tuple[str, str]:
    """Return why no Relay speaks for a resource."""
    namespace = resource.identity.namespace
    if not relays and not whole.unreadable(Relay):
        return "RelayNotFound", "there is no Relay; allowed: a Relay in this namespace, or one that allows it"
    reference = resource.spec.relay_ref if isinstance(resource, WebhookEndpoint | AttestationLog) else None
    for identity, relay in sorted(relays.items()):
        chosen = Chosen(identity, relay.spec)
        if isinstance(resource, AttestationLog):
            verdict = belongs(chosen, whole, resource)
        elif isinstance(resource, WebhookEndpoint):
            verdict = carries(chosen, whole, resource.identity, resource.spec.relay_ref)
        else:
            verdict = carries(chosen, whole, resource.identity, None)
        if isinstance(verdict, Problem):
            return verdict.reason, str(verdict)
    what = f"Relay {reference.name}" if reference else f"the Relay of the namespace {namespace}"
    return "RelayNotReadable", f"spec.relayRef: {what} has a problem of its own; allowed: a Relay without problems"
