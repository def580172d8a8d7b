"""`kapsel smoke` on a real API server: what it says when a part is missing, and that it leaves nothing behind."""

import json
import subprocess
import sys
import time
from typing import Any

from onenode.control_plane import Cluster

MADE = "relays,webhookendpoints,signingkeys,attestationlogs,secrets"


def start(cluster: Cluster, namespace: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "kapsel_cli", "smoke", "--address", "127.0.0.1", "--port", "0", "-n", namespace]
    return subprocess.Popen(
        [*command, "--kubeconfig", str(cluster.kubeconfig), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def names(cluster: Cluster, namespace: str) -> set[str]:
    listed: Any = json.loads(cluster.kubectl("get", MADE, "-n", namespace, "-o", "json"))
    return {f"{one['kind']}/{one['metadata']['name']}" for one in listed["items"]}


def say_ready(cluster: Cluster, kind: str, name: str, namespace: str) -> None:
    """Be the operator."""
    generation: Any = cluster.get(kind, name, "-n", namespace)["metadata"]
    now = "2026-01-01T00:00:00Z"
    ready = {"type": "Ready", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": now}
    status = {"observedGeneration": generation["generation"], "conditions": [ready]}
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    cluster.kubectl("patch", kind, name, "-n", namespace, *patch)


def relay(namespace: str, **spec: object) -> dict[str, object]:
    return {
        "apiVersion": "kapsel.dev/v1alpha1",
        "kind": "Relay",
        "metadata": {"name": "main", "namespace": namespace},
        "spec": {"database": {"secretRef": {"name": "postgres"}}, **spec},
    }


def test_without_an_operator_it_says_so_and_takes_its_relay_away_again(
    control_plane: Cluster, crds: None, namespace: str
) -> None:
    process = start(control_plane, namespace, "--timeout", "10")
    said, complaint = process.communicate(timeout=500)
    assert process.returncode == 1, said + complaint
    assert "relays/kapsel-smoke is Ready (it has no status: no operator looks at this namespace)" in complaint
    assert names(control_plane, namespace) == set()


def test_a_relay_that_may_not_deliver_to_it_is_named_with_the_remedy(
    control_plane: Cluster, crds: None, namespace: str
) -> None:
    control_plane.apply(relay(namespace))
    process = start(control_plane, namespace, "--relay", f"{namespace}/main", "--timeout", "60")
    _, complaint = process.communicate(timeout=500)
    assert process.returncode == 1
    assert (
        f"Relay {namespace}/main does not deliver here: its egress does not allow plain http to 127.0.0.1" in complaint
    )
    assert "smoke.destination" in complaint
    assert names(control_plane, namespace) == {"Relay/main"}


def test_with_a_relay_that_no_receiver_serves_it_gets_as_far_as_the_webhook(
    control_plane: Cluster, crds: None, namespace: str
) -> None:
    control_plane.apply(relay(namespace, egress={"allowedCIDRs": ["127.0.0.1/32"], "allowHTTP": True}))
    say_ready(control_plane, "relay", "main", namespace)
    process = start(control_plane, namespace, "--relay", f"{namespace}/main", "--timeout", "45")
    while "WebhookEndpoint/kapsel-smoke" not in names(control_plane, namespace):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    assert names(control_plane, namespace) >= {"SigningKey/kapsel-smoke", "Secret/kapsel-smoke"}
    say_ready(control_plane, "webhookendpoint", "kapsel-smoke", namespace)
    said, complaint = process.communicate(timeout=500)
    assert process.returncode == 1
    assert "webhookendpoints/kapsel-smoke is Ready" in said
    assert f"a receiver takes the webhook (cannot reach http://main-receiver.{namespace}.svc" in complaint
    assert names(control_plane, namespace) == {"Relay/main"}


def test_a_test_that_is_stopped_takes_what_it_made_along(control_plane: Cluster, crds: None, namespace: str) -> None:
    process = start(control_plane, namespace, "--timeout", "60")
    while "Relay/kapsel-smoke" not in names(control_plane, namespace):
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.terminate()
    process.communicate(timeout=500)
    assert process.returncode == 130
    assert names(control_plane, namespace) == set()
