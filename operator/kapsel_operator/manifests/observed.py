"""What became of the objects of a Relay: conditions read from objects as the cluster shows them. Pure, like `build`.

Whoever writes the status of a Relay calls these, and adds what only it knows: types, times and generations.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kapsel_operator.manifests import names
from kapsel_operator.manifests.address import balancer_hosts
from kapsel_operator.manifests.facts import Capability, Component, Facts, Manifest
from kapsel_operator.manifests.names import MANAGER
from kapsel_resources.kinds.exposure import Exposure
from kapsel_resources.kinds.relay import Relay


@dataclass(frozen=True, slots=True)
class Seen:
    """What a condition says. Unknown: those who would know have not said it."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str
    settled: bool = True  # nothing is under way; a rollout that goes on is not settled, though pods may be available


def workload(relay: Relay, component: Component, deployment: Manifest | None) -> Seen:
    """Return whether pods of a component are there to work, and whether all of them are the ones that are wanted."""
    if deployment is None:
        return Seen("False", "NotCreated", f"there is no Deployment of the {component} yet", settled=False)
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    available = status.get("availableReplicas", 0)
    if status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0):
        return Seen(
            "True" if available else "Unknown",
            "RollingOut",
            f"the rollout of the {component} has just begun",
            settled=False,
        )
    counted = f"{available} of {wanted} pods are available"
    look = f"look at `{_kubectl(relay, component)}`"
    settled = _is_settled(status, wanted)
    if wanted == 0:
        return Seen("False", "ScaledToZero", "there are to be no pods", settled=settled)
    if settled:
        return Seen("True", "Available", counted)
    reason, why = _trouble(status)
    if available == 0:
        return Seen("False", reason or "PodsNotReady", f"{counted}{why}; {look}", settled=False)
    return Seen("True", reason or "RollingOut", f"{counted}{why}; {look}", settled=False)


def _is_settled(status: Mapping[str, Any], wanted: int) -> bool:
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return counts == [wanted] * 3 and not status.get("unavailableReplicas")


def _trouble(status: Mapping[str, Any]) -> tuple[str, str]:
    """Return why a rollout does not go on, if the Deployment says so."""
    failed = _condition(status, "ReplicaFailure")
    if failed.get("status") == "True":
        return "PodsRefused", f"; the cluster refuses more: {failed.get('message', '')}"
    if _condition(status, "Progressing").get("reason") == "ProgressDeadlineExceeded":
        return "RolloutStuck", "; the rollout has made no progress for ten minutes"
    return "", ""


def _kubectl(relay: Relay, component: str) -> str:
    selector = ",".join(f"{key}={value}" for key, value in names.selector(relay, component).items())
    return f"kubectl get pods -n {relay.metadata.namespace} -l {selector}"


def owned_replicas(deployment: Manifest) -> int | None:
    """Return the number of replicas if the operator set it last, so that leaving it out would reset it.

    What an autoscaler has set since belongs to the autoscaler, and stays whatever the operator applies.
    """
    for entry in deployment["metadata"].get("managedFields", ()):
        fields = entry.get("fieldsV1", {}).get("f:spec", {})
        if entry.get("manager") == MANAGER and not entry.get("subresource") and "f:replicas" in fields:
            return int(deployment["spec"].get("replicas", 1))
    return None


def migration(job: Manifest | None) -> Seen:
    """Return how the migration Job is doing."""
    if job is None:
        return Seen("Unknown", "SchemaOutdated", "the migration is about to begin", settled=False)
    status, name = job.get("status", {}), job["metadata"]["name"]
    if _condition(status, "Complete").get("status") == "True":
        return Seen("True", "Migrated", f"Job {name} has finished")
    failed = _condition(status, "Failed")
    if failed.get("status") == "True":
        log = f"kubectl logs -n {job['metadata']['namespace']} job/{name}"
        why = failed.get("message") or failed.get("reason", "")
        return Seen("False", "MigrationFailed", f"Job {name} has failed: {why}; `{log}` says more")
    tries = f" (failed {status['failed']} times so far)" if status.get("failed") else ""
    return Seen("Unknown", "Migrating", f"Job {name} is at work{tries}", settled=False)


def exposed(
    relay: Relay,
    facts: Facts,
    *,
    service: Manifest | None,
    route: Manifest | None = None,
    ingress_classes: Mapping[str, bool] | None = None,
    gateway_exists: bool | None = None,
) -> Seen:
    """Return whether webhooks can come in the way that the Relay says.

    `route` is its Ingress or HTTPRoute. `ingress_classes` are those of the cluster, each with whether it is the default
    one; None, as with `gateway_exists`: nobody may tell.
    """
    if service is None:
        return Seen("False", "NotCreated", "there is no Service of the receivers yet", settled=False)
    exposure = relay.spec.exposure
    match exposure.type:
        case "LoadBalancer":
            return _balanced(service)
        case "Ingress":
            return _ingress(exposure, route, ingress_classes)
        case "HTTPRoute":
            return _http_route(exposure, facts, route, gateway_exists)
        case _:
            return Seen("True", "InsideTheCluster", "reached from within the cluster")


def _balanced(service: Manifest) -> Seen:
    hosts = ", ".join(balancer_hosts(service))
    if hosts:
        return Seen("True", "LoadBalancerReady", f"the load balancer has the address {hosts}")
    wrong = "the cluster has given the load balancer no address; one without a cloud needs a controller for that"
    return Seen("False", "LoadBalancerPending", wrong, settled=False)


def _ingress(exposure: Exposure, route: Manifest | None, classes: Mapping[str, bool] | None) -> Seen:
    name = exposure.ingress_class_name
    if classes is not None and name is not None and name not in classes:
        known = ", ".join(sorted(classes)) or "none"
        return Seen("False", "IngressClassNotFound", f"there is no IngressClass {name}; those that exist: {known}")
    if classes is not None and name is None and not any(classes.values()):
        wrong = "no IngressClass of this cluster is the default one: set exposure.ingressClassName"
        return Seen("False", "IngressClassNotFound", wrong)
    hosts = ", ".join(balancer_hosts(route))
    if hosts:
        return Seen("True", "IngressReady", f"the ingress controller answers at {hosts}")
    # Some controllers serve an Ingress and never say so: that is no reason to call it broken.
    return Seen("Unknown", "IngressPending", "no ingress controller has put an address into the status of the Ingress")


def _http_route(exposure: Exposure, facts: Facts, route: Manifest | None, gateway_exists: bool | None) -> Seen:
    if Capability.GATEWAY not in facts.capabilities:
        return Seen("False", "GatewayNotInstalled", "this cluster does not know the kind HTTPRoute")
    gateway = exposure.gateway_ref.name if exposure.gateway_ref else ""
    if gateway_exists is False:
        return Seen("False", "GatewayNotFound", f"there is no Gateway {gateway}")
    parents = (route or {}).get("status", {}).get("parents") or ()
    mine = [one for one in parents if one.get("parentRef", {}).get("name") == gateway]
    if not mine:
        waits = f"no controller has said anything of the HTTPRoute for Gateway {gateway}"
        return Seen("False", "RoutePending", waits, settled=False)
    for wanted in ("Accepted", "ResolvedRefs"):
        for one in mine:
            found = _condition(one, wanted)
            if found.get("status") != "True":
                said = found.get("message") or found.get("reason") or "nothing"
                return Seen("False", "RouteRefused", f"{wanted} is not true; the controller says: {said}")
    return Seen("True", "RouteAccepted", f"Gateway {gateway} has taken the HTTPRoute")


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next((one for one in status.get("conditions") or () if one["type"] == kind), {})
    return found
