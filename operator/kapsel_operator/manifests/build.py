"""All objects of one Relay, in the order in which they are applied."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Final, NamedTuple, get_args

from kapsel_operator.manifests import deployments, network_policies, overlay, roles, services
from kapsel_operator.manifests.autoscalers import autoscaler
from kapsel_operator.manifests.disruption_budgets import disruption_budget
from kapsel_operator.manifests.embedded_postgres import postgres_service, postgres_stateful_set
from kapsel_operator.manifests.facts import Capability, Component, Database, Facts, Manifest
from kapsel_operator.manifests.migration_jobs import migration_job
from kapsel_operator.manifests.routes import route
from kapsel_operator.manifests.service_accounts import service_account
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.problems import Path, Problem
from kapsel_resources.reasons import Reason

COMPONENTS: Final[tuple[Component, ...]] = get_args(Component)


class Key(NamedTuple):
    """Which object: enough to find it in a cluster."""

    api_version: str
    kind: str
    namespace: str
    name: str


def key_of(manifest: Manifest) -> Key:
    """Return which object a manifest is about."""
    metadata = manifest["metadata"]
    return Key(manifest["apiVersion"], manifest["kind"], metadata["namespace"], metadata["name"])


def build(relay: Relay, facts: Facts) -> tuple[Manifest, ...]:
    """Return the objects to apply now, in order; an owned object that is neither here nor held is to be deleted."""
    return (
        *_accounts(relay, facts),
        *(_policies(relay, facts) if relay.spec.network_policy == "Enabled" else ()),
        *_services(relay, facts),
        *_disruption_budgets(relay, facts),
        *_ways_in(relay, facts),
        *(_database(relay, facts, facts.database) if facts.database is not None else ()),
        *(_migration(relay, facts, facts.database) if facts.database and facts.schema == "Outdated" else ()),
        *(_workloads(relay, facts, facts.database) if facts.database and facts.deployable else ()),
    )


def held(relay: Relay, facts: Facts) -> frozenset[Key]:
    """Return what must not be applied now, and must not be deleted either.

    While the database, the sealing key or the schema is missing, Deployments stay as they are: the old version goes on
    until the new one can start, and the policies of its pods leave open the way to the database that it works with. A
    migration Job that has done its work stays until its time to live is over.
    """
    # What they would look like does not matter: only their names do.
    database = facts.database or Database(secret="unknown", key="unknown", digest="")  # noqa: S106 - a name
    possible = [*_database(relay, facts, database), *_workloads(relay, facts, database)]
    if relay.spec.network_policy == "Enabled":
        possible += _policies(relay, replace(facts, database=database))
    if facts.database is not None:
        possible += _migration(relay, facts, facts.database)
    return frozenset(map(key_of, possible)) - frozenset(map(key_of, build(relay, facts)))


def problems(relay: Relay, facts: Facts) -> tuple[Problem, ...]:
    """Return what the Relay asks for and does not get, each with what to do; all the rest is built."""
    return (*_missing_apis(relay, facts), *_refused(relay, facts))


def _accounts(relay: Relay, facts: Facts) -> Iterator[Manifest]:
    for component in (*COMPONENTS, "migrate"):
        yield service_account(relay, facts, component)
    if _is_embedded(relay):
        yield service_account(relay, facts, "postgres")
    if facts.log is not None:
        yield roles.attestor_role(relay, facts, facts.log)
        yield roles.attestor_role_binding(relay, facts, facts.log)


def _policies(relay: Relay, facts: Facts) -> Iterator[Manifest]:
    if network_policies.leads_to_database(relay, facts):
        yield network_policies.receiver_policy(relay, facts)
        yield network_policies.deliverer_policy(relay, facts)
        yield network_policies.console_policy(relay, facts)
        yield network_policies.migrate_policy(relay, facts)
    if _is_embedded(relay):
        yield network_policies.postgres_policy(relay, facts)


def _services(relay: Relay, facts: Facts) -> Iterator[Manifest]:
    yield services.receiver_service(relay, facts)
    yield services.deliverer_service(relay, facts)
    yield services.console_service(relay, facts)
    if _is_embedded(relay):
        yield postgres_service(relay, facts)


def _disruption_budgets(relay: Relay, facts: Facts) -> Iterator[Manifest]:
    for component in COMPONENTS:
        budget = disruption_budget(relay, facts, component)
        if budget is not None:
            yield budget


def _ways_in(relay: Relay, facts: Facts) -> Iterator[Manifest]:
    found = route(relay, facts)
    if found is not None:
        yield found


def _database(relay: Relay, facts: Facts, database: Database) -> Iterator[Manifest]:
    if relay.spec.database is not None and relay.spec.database.embedded is not None:
        yield postgres_stateful_set(relay, facts, database, relay.spec.database.embedded)


def _migration(relay: Relay, facts: Facts, database: Database) -> Iterator[Manifest]:
    yield migration_job(relay, facts, database)


def _workloads(relay: Relay, facts: Facts, database: Database) -> Iterator[Manifest]:
    for component in COMPONENTS:
        yield deployments.deployment(relay, facts, component, database)
        scaling = deployments.workload_of(relay, component).autoscaling
        found = None if scaling is None else autoscaler(relay, facts, component, scaling)
        if found is not None:
            yield found


def _is_embedded(relay: Relay) -> bool:
    return relay.spec.database is not None and relay.spec.database.embedded is not None


def _missing_apis(relay: Relay, facts: Facts) -> Iterator[Problem]:
    for component in COMPONENTS:
        scaling = deployments.workload_of(relay, component).autoscaling
        if scaling is not None and scaling.type == "KEDA" and Capability.KEDA not in facts.capabilities:
            wrong = f"this cluster has no KEDA, so there are {scaling.min_replicas} pods"
            allowed = "install KEDA, or use the type HPA"
            yield _problem(relay, (component, "autoscaling", "type"), "KedaNotInstalled", wrong, allowed)
    if relay.spec.exposure.type == "HTTPRoute" and Capability.GATEWAY not in facts.capabilities:
        wrong = "this cluster has no Gateway API, so nothing outside reaches the receivers"
        allowed = "install the Gateway API, or expose the Relay in another way"
        yield _problem(relay, ("exposure", "type"), "GatewayNotInstalled", wrong, allowed)
    database = relay.spec.database
    if database and database.cnpg_cluster_ref and Capability.CNPG not in facts.capabilities:
        wrong = "this cluster does not know the kind Cluster of CloudNativePG"
        allowed = "install CloudNativePG, or use another database"
        yield _problem(relay, ("database", "cnpgClusterRef"), "CnpgNotInstalled", wrong, allowed)


def _refused(relay: Relay, facts: Facts) -> Iterator[Problem]:
    database = facts.database or Database(secret="unknown", key="unknown", digest="")  # noqa: S106 - a name
    for component in COMPONENTS:
        added = deployments.workload_of(relay, component).pod_template
        if added is None:
            continue
        template = deployments.template(relay, facts, component, database)
        for refused in overlay.merge(template, added).refused:
            path = (component, "podTemplate", *refused.path)
            yield _problem(relay, path, "PodTemplateInvalid", refused.wrong, refused.allowed)


def _problem(relay: Relay, path: Path, reason: Reason, wrong: str, allowed: str) -> Problem:
    return Problem(resource=relay.identity, path=("spec", *path), reason=reason, wrong=wrong, allowed=allowed)
