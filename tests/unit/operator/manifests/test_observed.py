"""What became of a Relay's objects, from the objects as a cluster shows them."""

from typing import Any

import pytest

from kapsel_operator.manifests.observed import exposed, migration, owned_replicas, workload


def deployment(wanted: int = 2, generation: int = 3, observed: int = 3, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "main-receiver", "generation": generation},
        "spec": {"replicas": wanted},
        "status": {"observedGeneration": observed, **status},
    }


def counts(replicas: int, updated: int, available: int) -> dict[str, Any]:
    missing = {} if available == replicas else {"unavailableReplicas": replicas - available}
    return {"replicas": replicas, "updatedReplicas": updated, "availableReplicas": available, **missing}


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


STUCK = condition("Progressing", "False", "ProgressDeadlineExceeded", "ReplicaSet has timed out progressing.")
REFUSED = condition("ReplicaFailure", "True", "FailedCreate", "pods is forbidden: exceeded quota")


@pytest.mark.parametrize(
    ("found", "status", "reason", "settled"),
    [
        (None, "False", "NotCreated", False),
        (deployment() | {"status": {}}, "Unknown", "RollingOut", False),
        (deployment(**counts(2, 2, 2)), "True", "Available", True),
        (deployment(observed=2, **counts(2, 2, 2)), "True", "RollingOut", False),
        (deployment(**counts(3, 1, 2)), "True", "RollingOut", False),
        (deployment(**counts(2, 2, 1)), "True", "RollingOut", False),
        (deployment(**counts(2, 2, 0)), "False", "PodsNotReady", False),
        (deployment(**counts(2, 2, 0), conditions=[STUCK]), "False", "RolloutStuck", False),
        (deployment(**counts(3, 1, 2), conditions=[STUCK]), "True", "RolloutStuck", False),
        (deployment(conditions=[REFUSED]), "False", "PodsRefused", False),
        (deployment(wanted=0, **counts(0, 0, 0)), "False", "ScaledToZero", True),
    ],
)
def test_a_workload_is_available_as_long_as_any_pod_works_and_settled_when_all_are_the_wanted_ones(
    relay: Any, found: dict[str, Any] | None, status: str, reason: str, settled: bool
) -> None:
    seen = workload(relay(), "receiver", found)
    assert (seen.status, seen.reason, seen.settled) == (status, reason, settled)


def test_pods_that_do_not_come_are_told_with_the_command_that_shows_why(relay: Any) -> None:
    seen = workload(relay(), "receiver", deployment(conditions=[REFUSED]))
    assert "exceeded quota" in seen.message
    assert "0 of 2 pods" in seen.message
    assert "kubectl get pods -n shop -l app.kubernetes.io/name=kapsel,app.kubernetes.io/instance=main" in seen.message


def managed(manager: str, *, replicas: bool = True, subresource: str = "") -> dict[str, Any]:
    fields = {"f:spec": {"f:replicas": {}} if replicas else {"f:template": {}}}
    return {"manager": manager, "fieldsV1": fields, **({"subresource": subresource} if subresource else {})}


@pytest.mark.parametrize(
    ("entries", "owned"),
    [
        ([managed("kapsel-operator")], 4),
        ([managed("kapsel-operator", replicas=False), managed("kube-controller-manager", subresource="scale")], None),
        ([managed("kubectl")], None),
        ([], None),
    ],
)
def test_replicas_are_the_operators_until_somebody_else_has_set_them(entries: list[Any], owned: int | None) -> None:
    found = {"metadata": {"managedFields": entries}, "spec": {"replicas": 4}}
    assert owned_replicas(found) == owned


def job(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "main-migrate-1", "namespace": "shop"}, "status": status}


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        (None, "Unknown", "SchemaOutdated"),
        (job(), "Unknown", "Migrating"),
        (job(active=1, failed=2), "Unknown", "Migrating"),
        (job(conditions=[condition("Complete", "True")]), "True", "Migrated"),
        (job(conditions=[condition("Failed", "True", "BackoffLimitExceeded")]), "False", "MigrationFailed"),
    ],
)
def test_a_migration_is_at_work_done_or_failed(found: dict[str, Any] | None, status: str, reason: str) -> None:
    seen = migration(found)
    assert (seen.status, seen.reason) == (status, reason)
    if status == "False":
        assert "kubectl logs -n shop job/main-migrate-1" in seen.message


ADDRESS = {"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}
INGRESS = {"type": "Ingress", "hostname": "h.example.com", "ingressClassName": "nginx"}
PLAIN_INGRESS = {"type": "Ingress", "hostname": "h.example.com"}
ROUTE = {"type": "HTTPRoute", "hostname": "h.example.com", "gatewayRef": {"name": "public"}}


def parents(*conditions: dict[str, str], name: str = "public") -> dict[str, Any]:
    return {"status": {"parents": [{"parentRef": {"name": name}, "conditions": list(conditions)}]}}


ACCEPTED = condition("Accepted", "True")
RESOLVED = condition("ResolvedRefs", "True")
NOT_ALLOWED = condition("Accepted", "False", "NotAllowedByListeners", "the Gateway takes no routes of this namespace")


@pytest.mark.parametrize(
    ("exposure", "seen", "status", "reason"),
    [
        ({}, {"service": None}, "False", "NotCreated"),
        ({}, {}, "True", "InsideTheCluster"),
        ({"type": "LoadBalancer"}, {}, "False", "LoadBalancerPending"),
        ({"type": "LoadBalancer"}, {"service": ADDRESS}, "True", "LoadBalancerReady"),
        (INGRESS, {"ingress_classes": {"traefik": True}}, "False", "IngressClassNotFound"),
        (PLAIN_INGRESS, {"ingress_classes": {"traefik": False}}, "False", "IngressClassNotFound"),
        (PLAIN_INGRESS, {"ingress_classes": {"traefik": True}, "route": ADDRESS}, "True", "IngressReady"),
        (INGRESS, {"ingress_classes": {"nginx": False}}, "Unknown", "IngressPending"),
        (INGRESS, {"ingress_classes": None}, "Unknown", "IngressPending"),
        (ROUTE, {"capabilities": frozenset()}, "False", "GatewayNotInstalled"),
        (ROUTE, {"gateway_exists": False}, "False", "GatewayNotFound"),
        (ROUTE, {"route": {}}, "False", "RoutePending"),
        (ROUTE, {"route": parents(ACCEPTED, RESOLVED, name="another")}, "False", "RoutePending"),
        (ROUTE, {"route": parents(NOT_ALLOWED, RESOLVED)}, "False", "RouteRefused"),
        (ROUTE, {"route": parents(ACCEPTED)}, "False", "RouteRefused"),
        (ROUTE, {"route": parents(ACCEPTED, RESOLVED)}, "True", "RouteAccepted"),
    ],
)
def test_a_relay_is_exposed_when_those_who_expose_it_say_so(
    relay: Any, facts: Any, exposure: dict[str, Any], seen: dict[str, Any], status: str, reason: str
) -> None:
    known = {"capabilities": seen.pop("capabilities")} if "capabilities" in seen else {}
    found = exposed(relay({"exposure": exposure}), facts(**known), **{"service": {}, **seen})
    assert (found.status, found.reason) == (status, reason)
    assert found.message


def test_what_a_controller_refuses_a_route_for_is_told_in_its_words(relay: Any, facts: Any) -> None:
    found = exposed(relay({"exposure": ROUTE}), facts(), service={}, route=parents(NOT_ALLOWED, RESOLVED))
    assert "takes no routes of this namespace" in found.message
