"""What a newcomer does, on a real node: install, apply examples/quickstart unchanged, post, prove."""

import base64
import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from onenode import installation
from onenode.control_plane import Cluster

from kapsel_cli import providers
from kapsel_cli.demo_webhooks import webhooks
from kapsel_store.rows import Verification

pytestmark = pytest.mark.timeout(900)

FINAL = {"delivered", "exhausted", "cancelled"}
SECONDS = 240


def ask(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `kubectl kapsel` for the namespace of the example."""
    command = [sys.executable, "-P", "-m", "kapsel_cli.kubectl", *arguments, "-n", "shop"]
    environment = {"KUBECONFIG": str(cluster.kubeconfig), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def items(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    done = ask(cluster, "get", kind, "-o", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["items"]  # type: ignore[no-any-return]


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=120) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


def test_webhooks_are_answered_delivered_and_proven_to_somebody_outside(
    quickstart: Cluster, reach: Callable[[str, str], str], tmp_path: Path
) -> None:
    ingest = reach("shop", "main-receiver")
    for one in webhooks(installation.EXAMPLE):
        headers = providers.headers(Verification(scheme=one.scheme), one.webhook)
        assert post(f"{ingest}/ingest/shop/{one.endpoint}", one.webhook.body, headers) == one.status, one.what

    deadline = time.monotonic() + SECONDS
    while {delivery["state"] for delivery in items(quickstart, "deliveries")} - FINAL:
        assert time.monotonic() < deadline, items(quickstart, "deliveries")
        time.sleep(0.5)
    ended = {(one["endpoint"], one["destination"]): one["state"] for one in items(quickstart, "deliveries")}
    assert ended == {
        ("shop/github-orders", "billing"): "delivered",
        ("shop/stripe-payments", "ledger"): "delivered",
        ("shop/stripe-payments", "mailer"): "delivered",
        ("shop/partner-stock", "warehouse"): "delivered",
        ("shop/github-archive", "gone"): "exhausted",
    }

    # An auditor has the key from the cluster, by way of whoever may read it there, and never from the proof.
    key = quickstart.kubectl("get", "attestationlog/shop", "-n", "shop", "-o", "jsonpath={.status.publicKey}")
    of_each_outcome = {attempt["outcome"]: attempt for attempt in items(quickstart, "attempts")}
    assert set(of_each_outcome) == {"delivered", "refused", "unreachable"}
    for attempt in of_each_outcome.values():
        proof = ask(quickstart, "proof", attempt["id"], "--wait")
        assert proof.returncode == 0, proof.stderr
        genuine, forged = tmp_path / "proof.json", tmp_path / "forged.json"
        genuine.write_text(proof.stdout)
        forged.write_text(with_another_leaf(proof.stdout))
        verified = verify(genuine, key)
        assert verified.returncode == 0, verified.stderr
        assert attempt["id"] in verified.stdout
        assert verify(forged, key).returncode >= 10


def test_the_status_of_every_resource_says_what_runs(quickstart: Cluster) -> None:
    told = ask(quickstart, "status").stdout
    assert "✓ Relay shop/main" in told
    assert "✓ 4 of SigningKey: well" in told
    relay = quickstart.get("relay", "main", "-n", "shop")
    status: Any = relay["status"]
    assert status["version"] == installation.version()
    assert status["endpoints"] == 4
    assert {one["type"]: one["status"] for one in status["conditions"]}["Ready"] == "True"


def test_no_pod_needs_more_than_the_restricted_level_of_pod_security(quickstart: Cluster) -> None:
    label = ("pod-security.kubernetes.io/enforce=restricted", "--overwrite", "--dry-run=server")
    for namespace in ("shop", installation.NAMESPACE):
        command = [quickstart.kubectl_path, "--kubeconfig", quickstart.kubeconfig, "label", "namespace", namespace]
        told = subprocess.run([*command, *label], capture_output=True, text=True, check=True)
        assert told.stderr == ""  # where the server says which pods violate it


def test_helm_test_sends_a_webhook_through_and_verifies_its_proof(kapsel: Cluster) -> None:
    told = installation.helm(kapsel, "test", "kapsel", "-n", installation.NAMESPACE, "--timeout", "240s")
    assert "Phase:          Succeeded" in told


def with_another_leaf(proof: str) -> str:
    """Return a proof whose leaf tells of another endpoint: one byte is another."""
    document = json.loads(proof)
    leaf = base64.b64decode(document["leaf_b64"])
    document["leaf_b64"] = base64.b64encode(leaf.replace(b'"attempt":', b'"bttempt":')).decode()
    assert document["leaf_b64"] != base64.b64encode(leaf).decode()
    return json.dumps(document, separators=(",", ":"))


def verify(proof: Path, key: str) -> subprocess.CompletedProcess[str]:
    """Check a proof with nothing but the file and the key."""
    program = Path(sys.executable).with_name("kapsel-verify")
    return subprocess.run(
        [program, "--proof", str(proof), "--public-key", key], capture_output=True, text=True, check=False
    )
