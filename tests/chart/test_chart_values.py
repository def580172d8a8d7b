"""What Helm renders from values, and which values it refuses with which words."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chart import CHART, KUBERNETES

Render = Callable[..., list[dict[str, Any]]]

REFUSED = {
    "unknownValue=1": "additional properties 'unknownValue' not allowed",
    "image.pullpolicy=Always": "at '/image': additional properties 'pullpolicy' not allowed",
    "operator.worker=3": "at '/operator': additional properties 'worker' not allowed",
    "serviceMonitor.intervall=1m": "at '/serviceMonitor': additional properties 'intervall' not allowed",
    "resources.limit.cpu=1": "at '/resources': additional properties 'limit' not allowed",
    "prometheusRule.thresholds.age=1": "at '/prometheusRule/thresholds': additional properties 'age' not allowed",
    "replicas=two": "at '/replicas': got string, want integer",
    "operator.workers=0": "at '/operator/workers': minimum: got 0, want 1",
    "operator.logLevel=loud": "at '/operator/logLevel': value must be one of 'debug', 'info', 'warning', 'error'",
    "image.pullPolicy=Sometimes": "value must be one of 'Always', 'IfNotPresent', 'Never'",
    "image.repository=kapsel:1.2": "at '/image/repository': 'kapsel:1.2' does not match pattern",
    "watchNamespaces=shop": "at '/watchNamespaces': got string, want array",
    "watchNamespaces={Shop}": "at '/watchNamespaces/0': 'Shop' does not match pattern",
    "crds.keep=never": "at '/crds/keep': got string, want boolean",
    "podMonitor.interval=soon": "at '/podMonitor/interval': 'soon' does not match pattern",
    "smoke.relay=main": "at '/smoke/relay': 'main' does not match pattern",
    "serviceMonitor.enabled=true,metrics.service.enabled=false": (
        "serviceMonitor.enabled needs metrics.service.enabled: a ServiceMonitor finds the operator through its Service."
    ),
    "podDisruptionBudget.minAvailable=1,podDisruptionBudget.maxUnavailable=1": "exclude each other: set one of them",
    "operator.drainTimeout=60": "terminationGracePeriodSeconds (35) must be more than operator.drainTimeout (60)",
    "watchNamespaces={stage},smoke.relay=shop/main": "the operator does not watch that namespace",
}


@pytest.mark.parametrize("values", sorted(path.name for path in (CHART / "ci").glob("*-values.yaml")))
def test_the_chart_is_fine_with_values_of_every_kind(helm: Path, render: Render, values: str) -> None:
    file = CHART / "ci" / values
    command = [helm, "lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", file]
    subprocess.run(command, check=True, capture_output=True)
    assert any(one["kind"] == "Deployment" for one in render("--values", file))


@pytest.mark.parametrize("values", REFUSED)
def test_values_without_a_meaning_are_refused_in_words_that_name_them(render: Render, values: str) -> None:
    with pytest.raises(subprocess.CalledProcessError) as refused:
        render("--set", values)
    assert REFUSED[values] in refused.value.stderr


def test_a_kubernetes_without_native_sidecars_is_refused(helm: Path) -> None:
    command = [helm, "template", "kapsel", CHART, "--kube-version", "1.28.9"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert "chart requires kubeVersion: >= 1.31.0-0 which is incompatible with Kubernetes v1.28.9" in done.stderr


def test_no_object_of_the_chart_has_a_finalizer_or_a_hook_that_deletes(render: Render) -> None:
    """So an uninstall has nothing to wait for. The only hooks are those of the test."""
    rendered = render("--values", CHART / "ci/monitoring-values.yaml")
    assert [one["metadata"]["name"] for one in rendered if "finalizers" in one["metadata"]] == []
    hooks = {one["metadata"].get("annotations", {}).get("helm.sh/hook") for one in rendered}
    assert hooks == {None, "test"}


def test_every_pod_of_the_chart_is_restricted(render: Render) -> None:
    rendered = render()
    pods = [one["spec"]["template"]["spec"] for one in rendered if one["kind"] == "Deployment"]
    pods += [one["spec"] for one in rendered if one["kind"] == "Pod"]
    assert len(pods) == 2
    for pod in pods:
        assert pod["enableServiceLinks"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }


def test_no_role_may_touch_secrets_in_all_namespaces_once_there_are_namespaces_to_watch(render: Render) -> None:
    rendered = render("--set", "watchNamespaces={shop}")
    rules = [rule for one in rendered if one["kind"] == "ClusterRole" for rule in one["rules"]]
    assert rules
    assert not any("secrets" in rule["resources"] or "*" in rule["resources"] for rule in rules)
