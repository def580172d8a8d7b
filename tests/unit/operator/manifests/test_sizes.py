"""How many pods there are, who may say so, and what protects them."""

from typing import Any

import pytest

from kapsel_operator.manifests.build import build

DATABASE = {"database": {"secretRef": {"name": "database"}}}
SCALED = {"autoscaling": {"minReplicas": 3, "maxReplicas": 9}}


def made(relay: Any, facts: Any, receiver: dict[str, Any], **known: Any) -> dict[str, Any]:
    found = build(relay({"receiver": receiver, **DATABASE}), facts(**known))
    return {one["kind"]: one for one in found if one["metadata"]["name"] == "main-receiver"}


@pytest.mark.parametrize(("receiver", "count"), [({}, 2), ({"replicas": 5}, 5), ({"replicas": 0}, 0)])
def test_a_fixed_number_is_sent(relay: Any, facts: Any, receiver: dict[str, Any], count: int) -> None:
    assert made(relay, facts, receiver)["Deployment"]["spec"]["replicas"] == count


def test_with_an_autoscaler_no_number_is_sent(relay: Any, facts: Any) -> None:
    assert "replicas" not in made(relay, facts, SCALED)["Deployment"]["spec"]


def test_a_number_that_is_still_the_operators_is_sent_until_the_autoscaler_takes_over(relay: Any, facts: Any) -> None:
    assert made(relay, facts, SCALED, replicas={"receiver": 4})["Deployment"]["spec"]["replicas"] == 4


@pytest.mark.parametrize(
    ("receiver", "protected"),
    [
        ({"replicas": 0}, False),
        ({"replicas": 1}, False),
        ({"replicas": 2}, True),
        (SCALED, True),
        ({"autoscaling": {"minReplicas": 1, "maxReplicas": 9}}, False),
    ],
)
def test_a_budget_is_there_for_several_pods_and_never_keeps_a_node_from_being_drained(
    relay: Any, facts: Any, receiver: dict[str, Any], protected: bool
) -> None:
    budget = made(relay, facts, receiver).get("PodDisruptionBudget")
    assert (budget is not None) is protected
    if budget is not None:
        assert budget["spec"]["maxUnavailable"] == 1
        assert "minAvailable" not in budget["spec"]


def test_cpu_is_measured_in_kapsels_container_whatever_else_the_pod_holds(relay: Any, facts: Any) -> None:
    spec = made(relay, facts, {"autoscaling": {"maxReplicas": 9, "targetCPUUtilization": 60}})[
        "HorizontalPodAutoscaler"
    ]["spec"]
    (metric,) = spec["metrics"]
    assert metric["containerResource"]["container"] == "receiver"
    assert metric["containerResource"]["target"] == {"type": "Utilization", "averageUtilization": 60}
    assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 9)


def test_keda_asks_the_deliverers_for_the_age_without_any_credential(relay: Any, facts: Any) -> None:
    scaling = {"autoscaling": {"type": "KEDA", "maxReplicas": 9, "targetAge": "2500ms"}}
    found = build(relay({"deliverer": scaling, **DATABASE}), facts())
    (scaled,) = [one for one in found if one["kind"] == "ScaledObject"]
    (trigger,) = scaled["spec"]["triggers"]
    assert "authenticationRef" not in trigger
    assert trigger["metadata"] == {
        "url": "http://main-deliverer.shop.svc.cluster.local:9090/metrics",
        "format": "prometheus",
        "valueLocation": "delivery_oldest_due_age_seconds",
        "targetValue": "2.5",
    }
