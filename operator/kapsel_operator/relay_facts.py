"""What the builders of manifests need to know of a Relay, and what became of what they built. Pure."""

from dataclasses import replace
from typing import Any, Final

from kapsel_operator.apply import Refusal
from kapsel_operator.databases import Trouble
from kapsel_operator.gather import Look, Surroundings, secret_digest
from kapsel_operator.manifests import address, build, names, observed
from kapsel_operator.manifests.build import Key
from kapsel_operator.manifests.facts import Component, Facts, Image, Log, Schema
from kapsel_operator.manifests.generated_secrets import SEALING_KEY_ENTRY
from kapsel_operator.manifests.migration_jobs import migration_job_name
from kapsel_operator.planned import Planned
from kapsel_operator.relay_status import RelayView
from kapsel_operator.scopes import Scope
from kapsel_operator.settings import OperatorSettings
from kapsel_operator.statuses import View
from kapsel_operator.store import Declared, Store
from kapsel_operator.upgrades import Turn, turn
from kapsel_resources.kinds.core import Secret
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.relay import Relay

COMPONENTS: Final[tuple[Component, ...]] = ("receiver", "deliverer", "console")
_ROUTES: Final = {"Ingress": "networking.k8s.io/v1", "HTTPRoute": "gateway.networking.k8s.io/v1"}


def facts(
    one: Declared,
    relay: Relay,
    around: Surroundings,
    settings: OperatorSettings,
    *,
    look: Look | None,
    trouble: Trouble | None,
    log: Log | None,
    store: Store,
) -> Facts:
    """Return the facts about the surroundings of a Relay."""
    database = around.database
    if database is not None and look is not None:
        database = replace(database, roles=look.roles)
    return Facts(
        owner_uid=one.uid,
        image=Image(
            repository=settings.operator_image_repository,
            version=turn(one, store.all("Relay"), settings.operator_version).version,
            operator_version=settings.operator_version,
            pull_policy=settings.operator_image_pull_policy,
            pull_secrets=settings.image_pull_secrets,
        ),
        operator_namespace=settings.operator_namespace,
        database=database,
        schema=_schema(look, trouble),
        sealing_key_digest=_sealing_key_digest(relay, around),
        log=log,
        capabilities=around.capabilities,
        cluster_domain=settings.operator_cluster_domain,
        # Pods have addresses of one kind, those of the operator and those of a Relay.
        listen_host="::" if ":" in settings.health_host else "0.0.0.0",  # noqa: S104 - pods are reached from outside
        replicas=_owned_replicas(relay, store),
    )


def log_of(scope: Scope, planned: Planned | None, store: Store) -> Log | None:
    """Return the AttestationLog whose status is the fence: the planned one, or the one that will be."""
    row = planned.log if planned else None
    if row is not None:
        identities = [Identity("AttestationLog", row.namespace, row.name)]
    else:
        identities = sorted(
            one for one in scope.speaks_for if one.kind == "AttestationLog" and one not in scope.superseded
        )
    found = store.find(identities[0]) if identities else None
    # One that merely has the name of the planned one is the fence of another log.
    if found is None or (found.resource is not None and found.identity not in scope.speaks_for):
        return None
    return Log(namespace=found.identity.namespace, name=found.identity.name, uid=found.uid)


def url(relay: Relay, facts: Facts, around: Surroundings, store: Store) -> str | None:
    """Return where the receivers are reached."""
    return address.url(relay, facts, service=_receiver_service(relay, store), gateway=around.gateway)


def relay_view(
    relay: Relay,
    facts: Facts,
    around: Surroundings,
    store: Store,
    *,
    view: View,
    look: Look | None,
    trouble: Trouble | None,
    keep: bool,
    refused: list[Refusal],
    endpoints: int,
    unhealthy: int,
) -> RelayView:
    """Return all that the status of a Relay is decided from."""
    namespace = relay.metadata.namespace
    workloads = {
        component: observed.workload(
            relay, component, store.owned(Key("apps/v1", "Deployment", namespace, _name(relay, component)))
        )
        for component in COMPONENTS
    }
    job = None
    if facts.database is not None:
        job = store.owned(Key("batch/v1", "Job", namespace, migration_job_name(relay, facts, facts.database)))
    return RelayView(
        view=view,
        trouble=trouble,
        keep=keep,
        look=look,
        migration=observed.migration(job),
        workloads=workloads,
        exposed=observed.exposed(
            relay,
            facts,
            service=_receiver_service(relay, store),
            route=_route(relay, around, store),
            ingress_classes=around.ingress_classes,
            gateway_exists=around.gateway_exists,
        ),
        problems=build.problems(relay, facts),
        refused=tuple(refused),
        turn=_turn(relay, facts, store),
        endpoints=endpoints,
        unhealthy=unhealthy,
    )


def _turn(relay: Relay, facts: Facts, store: Store) -> Turn:
    one = store.find(relay.identity)
    after = turn(one, store.all("Relay"), facts.image.operator_version).after if one else None
    return Turn(facts.image.version, after)


def _schema(look: Look | None, trouble: Trouble | None) -> Schema:
    if trouble is not None and trouble.reason in ("SchemaNewer", "SchemaDiffers"):
        return "Newer"
    return "Unknown" if look is None else look.schema


def _sealing_key_digest(relay: Relay, around: Surroundings) -> str | None:
    if not isinstance(around.sealing_key, Secret):
        return None
    text = around.sealing_key.entries.get(SEALING_KEY_ENTRY, b"").decode(errors="replace")
    return secret_digest(text, relay.identity)


def _owned_replicas(relay: Relay, store: Store) -> dict[Component, int]:
    found: dict[Component, int] = {}
    for component in COMPONENTS:
        deployment = store.owned(Key("apps/v1", "Deployment", relay.metadata.namespace, _name(relay, component)))
        count = None if deployment is None else observed.owned_replicas(deployment)
        if count is not None:
            found[component] = count
    return found


def _receiver_service(relay: Relay, store: Store) -> dict[str, Any] | None:
    return store.owned(Key("v1", "Service", relay.metadata.namespace, _name(relay, "receiver")))


def _route(relay: Relay, around: Surroundings, store: Store) -> dict[str, Any] | None:
    kind = relay.spec.exposure.type
    if kind not in _ROUTES:
        return None
    key = Key(_ROUTES[kind], kind, relay.metadata.namespace, _name(relay, "receiver"))
    return store.owned(key) or around.optional.get(key)


def _name(relay: Relay, component: str) -> str:
    return names.object_name(relay.metadata.name, component)
