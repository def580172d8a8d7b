"""What stays and what goes when things are removed. The last of these tests takes the operator away: keep it last."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import pytest
from onenode import installation
from onenode.control_plane import Cluster

from kapsel_cli import providers
from kapsel_cli.demo_webhooks import webhooks
from kapsel_store.rows import Verification

pytestmark = pytest.mark.timeout(900)

SHOP = ("-n", "shop")


def post(ingest: str) -> str:
    """Post one webhook and return its event's id."""
    one = webhooks(installation.EXAMPLE)[0]
    headers = providers.headers(Verification(scheme=one.scheme), one.webhook)
    request = urllib.request.Request(f"{ingest}/ingest/shop/{one.endpoint}", one.webhook.body, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return str(json.loads(answer.read())["id"])


def event_is_stored(cluster: Cluster, event: str) -> bool:
    command = [sys.executable, "-P", "-m", "kapsel_cli.kubectl", "get", "events", event, *SHOP]
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 0


def pods(cluster: Cluster) -> set[str]:
    return set(cluster.kubectl("get", "pods", *SHOP, "-o", "jsonpath={.items[*].metadata.uid}").split())


def test_a_relay_that_is_deleted_leaves_its_data_to_the_next_of_its_name(
    quickstart: Cluster, reach: Callable[[str, str], str]
) -> None:
    event = post(reach("shop", "main-receiver"))
    quickstart.kubectl("delete", "relay", "main", *SHOP, "--timeout=180s")
    workloads = ("deployments", "statefulsets", "jobs", "services")
    label = "app.kubernetes.io/instance=main"
    for kind in workloads:
        quickstart.kubectl("wait", "--for=delete", kind, "-l", label, *SHOP, "--timeout=240s")
    quickstart.kubectl("wait", "--for=delete", "pods", "-l", label, *SHOP, "--timeout=240s")
    quickstart.kubectl("get", *SHOP, "secret/main-sealing-key", "secret/main-postgres", "pvc/data-main-postgres-0")
    installation.quickstart(quickstart)
    assert event_is_stored(quickstart, event)


def test_without_the_operator_webhooks_flow_on_and_a_namespace_can_go(
    quickstart: Cluster, reach: Callable[[str, str], str]
) -> None:
    before = pods(quickstart)
    installation.helm(quickstart, "uninstall", "kapsel", "-n", installation.NAMESPACE, "--wait", "--timeout", "240s")
    left = quickstart.kubectl("get", "all", "-n", installation.NAMESPACE, "-o", "name", check=False)
    assert "deployment" not in left
    # Taking the definitions away would take every Relay of the cluster with them.
    assert "relays.kapsel.dev" in quickstart.kubectl("get", "crds", "-o", "name")
    assert event_is_stored(quickstart, post(reach("shop", "main-receiver")))
    assert pods(quickstart) == before
    quickstart.kubectl("delete", "namespace", "shop", "--timeout=240s")
