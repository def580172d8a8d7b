"""What one plan of a Relay came to, as later reconciles need it: without secrets, and with what it was made from.

A plan costs time and memory, so it is made again only when something of what it was made from has changed, or a key is
due. All of it can be lost; then it is made again, with the same result.
"""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from kapsel_operator.scopes import Scope
from kapsel_operator.secret_reader import Found, Name
from kapsel_resources.keys import is_generated, signing_key_of
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint
from kapsel_resources.plan import Plan
from kapsel_resources.statuses import Status
from kapsel_store.overview import Generations
from kapsel_store.rows import Algorithm, Configuration, KeyRow, LogRow

LONGEST: Final = timedelta(hours=1)  # a plan is made again after that in any case


@dataclass(frozen=True, slots=True)
class DestinationView:
    """One destination as its endpoint's status needs it."""

    id: UUID
    name: str
    suspend: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointView:
    """One endpoint as its status needs it."""

    id: UUID
    paths: tuple[Literal["Id", "Name"], ...]
    destinations: tuple[DestinationView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """One version of a key, its public half at most."""

    version: int
    algorithm: Algorithm
    public: bytes | None
    not_before: datetime
    not_after: datetime | None

    def state(self, now: datetime, newest_live: int) -> Literal["Next", "Live", "Retiring"] | None:
        """Return where the version is; None when it is over."""
        if self.not_before > now:
            return "Next"
        if self.not_after is not None and self.not_after <= now:
            return None
        return "Live" if self.version == newest_live else "Retiring"


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What a plan was made from."""

    scope: Scope
    secrets: Mapping[Name, Found]
    url: str
    generation: int  # of the configuration after it was applied

    def holds(self, scope: Scope, secrets: Mapping[Name, Found], url: str, generation: int) -> bool:
        """Return whether a plan from these would be the same; what has changed is another object in the cache."""
        return (
            self.generation == generation
            and self.url == url
            and (self.scope is scope or _is_same(self.scope, scope))
            and self.secrets == secrets
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a plan came to."""

    basis: Basis
    until: datetime  # a key is due then
    told: Mapping[Identity, Status]
    endpoints: Mapping[Identity, EndpointView]
    keys: Mapping[tuple[str, str], tuple[KeyView, ...]]  # by the namespace and the name in the rows
    log: LogRow | None
    generations: Generations
    users: Mapping[Identity, tuple[UUID, ...]] = field(default_factory=dict)  # of a RetryPolicy: endpoints


def planned(plan: Plan, basis: Basis, generations: Generations, now: datetime) -> Planned:
    """Return what later reconciles need of a plan."""
    configuration = plan.configuration
    views = _endpoints(configuration)
    return Planned(
        basis=basis,
        until=_until(configuration.keys, now),
        told={status.resource: status for status in plan.statuses if status.resource in basis.scope.speaks_for},
        endpoints=views,
        keys=_keys(configuration.keys),
        log=configuration.log,
        generations=generations,
        users=_users(basis.scope, views),
    )


def newest_live(versions: Sequence[KeyView], now: datetime) -> int | None:
    """Return the newest version that is live."""
    live = [one.version for one in versions if one.not_before <= now and (one.not_after is None or now < one.not_after)]
    return max(live, default=None)


def versions_of(planned: Planned, key: Identity) -> tuple[KeyView, ...]:
    """Return the versions of a SigningKey, by whichever of its forms anybody uses."""
    for (namespace, name), versions in planned.keys.items():
        if namespace == key.namespace and signing_key_of(name) == key.name:
            return versions
    return ()


def key_generation(planned: Planned, key: Identity) -> int | None:
    """Return since which generation a SigningKey is what it is."""
    found = [
        generation
        for (namespace, name), generation in planned.generations.keys.items()
        if namespace == key.namespace and signing_key_of(name) == key.name
    ]
    return max(found, default=None)


def generated(configuration: Configuration) -> dict[Identity, list[KeyRow]]:
    """Return the versions of keys that kapsel has made, by the resource in whose Secret people find them."""
    found: dict[Identity, list[KeyRow]] = {}
    for row in configuration.keys:
        kind, _, name = row.name.partition("/")
        owner = {"generated": "SigningKey", "endpoint": "WebhookEndpoint"}.get(kind)
        if owner is not None and is_generated(row.name):
            found.setdefault(Identity(owner, row.namespace, name), []).append(row)
    return found


def _endpoints(configuration: Configuration) -> dict[Identity, EndpointView]:
    destinations: dict[UUID, list[DestinationView]] = {}
    for row in configuration.destinations:
        view = DestinationView(row.id, row.name, row.suspend)
        destinations.setdefault(row.endpoint_id, []).append(view)
    return {
        Identity("WebhookEndpoint", row.namespace, row.name): EndpointView(
            id=row.id,
            paths=row.paths,
            destinations=tuple(sorted(destinations.get(row.id, ()), key=lambda view: view.name)),
        )
        for row in configuration.endpoints
    }


def _keys(rows: Sequence[KeyRow]) -> dict[tuple[str, str], tuple[KeyView, ...]]:
    found: dict[tuple[str, str], list[KeyView]] = {}
    for row in rows:
        view = KeyView(
            version=row.version,
            algorithm=row.algorithm,
            public=row.public,
            not_before=row.not_before,
            not_after=row.not_after,
        )
        found.setdefault((row.namespace, row.name), []).append(view)
    return {where: tuple(sorted(views, key=lambda view: view.version)) for where, views in found.items()}


def _until(rows: Sequence[KeyRow], now: datetime) -> datetime:
    """Return when a version becomes live or is over: then there is another plan."""
    due = [moment for row in rows for moment in (row.not_before, row.not_after) if moment is not None and moment > now]
    return min([now + LONGEST, *due])


def _users(scope: Scope, views: Mapping[Identity, EndpointView]) -> dict[Identity, tuple[UUID, ...]]:
    """Return the endpoints that have a destination with each RetryPolicy, once for each such destination."""
    found: dict[Identity, list[UUID]] = {}
    for one in scope.resources:
        if not isinstance(one, WebhookEndpoint) or one.identity not in views:
            continue
        for destination in one.spec.destinations:
            if destination.retry_policy_ref is not None:
                policy = Identity("RetryPolicy", one.metadata.namespace, destination.retry_policy_ref.name)
                found.setdefault(policy, []).append(views[one.identity].id)
    return {policy: tuple(users) for policy, users in found.items()}


def _is_same(old: Scope, new: Scope) -> bool:
    return (
        len(old.resources) == len(new.resources)
        and all(map(operator.is_, old.resources, new.resources))
        and old.broken == new.broken
        and old.speaks_for == new.speaks_for
    )
