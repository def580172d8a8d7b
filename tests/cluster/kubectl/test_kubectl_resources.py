"""`kubectl kapsel` on resources alone: the page, keys, replays. Nothing of it asks a console."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest


def manifest(kind: str, name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "kapsel.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def endpoint(name: str, **destination: Any) -> dict[str, Any]:
    billing = {"name": "billing", "url": "https://billing.example.com/", **destination}
    return manifest("WebhookEndpoint", name, verification={"none": {}}, destinations=[billing])


def condition(type_: str, status: str, reason: str, message: str = "") -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": now}


async def test_a_namespace_without_anything_says_so(kubectl) -> None:
    empty = await kubectl("status")
    assert (empty.code, empty.out) == (0, "")
    assert empty.err == f"There is nothing of kapsel in namespace {kubectl.namespace}.\n"


async def test_the_page_shows_what_the_api_server_has_and_its_exit_code_says_whether_all_is_well(
    kubectl, relay
) -> None:
    kubectl.apply(endpoint("orders"))
    where = kubectl.namespace
    ready = condition("Ready", "True", "Accepted")
    kubectl.report("relay", relay, observedGeneration=1, conditions=[ready], endpoints=1, pending=0)
    kubectl.report("whe", "orders", observedGeneration=1, conditions=[ready])
    well = await kubectl("status")
    assert (well.code, well.err) == (0, "")
    assert well.out.splitlines() == [
        f"✓ Relay {where}/main",
        "    1 endpoints; 0 deliveries wait",
        f"✓ WebhookEndpoint {where}/orders: well",
    ]

    stalled = condition("Stalled", "True", "RetryPolicyNotFound", "there is no RetryPolicy x")
    kubectl.report("whe", "orders", conditions=[condition("Ready", "False", "RetryPolicyNotFound"), stalled])
    ill = await kubectl("status", "-A")
    assert ill.code == 3
    assert f"✗ WebhookEndpoint {where}/orders\n  ✗ Stalled: RetryPolicyNotFound: there is no RetryPolicy x\n" in ill.out


async def test_what_a_person_may_not_list_is_left_out_and_said(kubectl, relay) -> None:
    rules = [{"apiGroups": ["kapsel.dev"], "resources": ["relays"], "verbs": ["get", "list"]}]
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "relays"}
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "somebody"}
    version = "rbac.authorization.k8s.io/v1"
    kubectl.apply(
        {"apiVersion": version, "kind": "Role", "metadata": {"name": "relays"}, "rules": rules},
        {"apiVersion": version, "kind": "RoleBinding", "metadata": {"name": "relays"}, "roleRef": role,
         "subjects": [subject]},
    )  # fmt: skip
    page = await kubectl("status", "--as", "somebody")
    assert f"Relay {kubectl.namespace}/main" in page.out
    assert "kapsel: webhookendpoints are left out, for you may not do this: " in page.err


async def test_the_key_of_an_endpoint_is_read_from_its_secret(kubectl) -> None:
    kubectl.apply(endpoint("orders"), endpoint("stock", signingKeyRef={"name": "out"}))
    kubectl.apply(manifest("SigningKey", "out", algorithm="Ed25519", source="Generate"))
    missing = await kubectl("secret", "orders")
    assert missing.code == 1
    assert "there is no Secret orders-signing yet. See what the operator waits for" in missing.err

    kubectl.apply(kubectl.secret("orders-signing", {"v1": "whsec_b25l"}))
    kubectl.apply(kubectl.secret("out-key", {"v1": "whsk_c2VjcmV0", "v1.pub": "whpk_cHVibGlj"}))
    own = await kubectl("secret", "orders")
    assert (own.code, own.out, own.err) == (0, "whsec_b25l\n", "")
    named = await kubectl("secret", "stock", "--destination", "billing")
    assert (named.code, named.out) == (0, "whpk_cHVibGlj\n")
    unknown = await kubectl("secret", "nothing")
    assert "there is no WebhookEndpoint nothing in namespace" in unknown.err


async def test_a_replay_is_made_and_waited_for(kubectl) -> None:
    kubectl.apply(endpoint("orders"))
    process = await kubectl.start("replay", "orders", "--from", "2h", "--dry-run", "--name", "again", "--wait")
    kubectl.cluster.kubectl("wait", "--for=create", "--timeout=120s", "replay/again", "-n", kubectl.namespace)
    made = kubectl.cluster.get("replay", "again", "-n", kubectl.namespace)
    assert made["spec"]["dryRun"] is True
    kubectl.report("replay", "again", observedGeneration=1, matched=12, enqueued=0)
    kubectl.report("replay", "again", conditions=[condition("Complete", "True", "DryRun", "nothing was delivered")])
    out, err = await asyncio.wait_for(process.communicate(), 240)
    assert (process.returncode, err) == (0, b"")
    lines = out.decode().splitlines()
    assert lines[0] == "replay.kapsel.dev/again created"
    assert lines[-2:] == ["12 deliveries are meant", "Complete: DryRun: nothing was delivered"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("replay", "nothing", "--from", "2h"), "there is no WebhookEndpoint nothing in namespace"),
        (("replay", "--follow", "nothing"), "there is no Replay nothing"),
        (("replay", "orders", "--from", "1h", "--to", "2h"), "from is not before to"),
    ],
)
async def test_a_replay_that_cannot_be_made_says_why(kubectl, arguments: tuple[str, ...], said: str) -> None:
    kubectl.apply(endpoint("orders"))
    refused = await kubectl(*arguments)
    assert refused.code == 1
    assert said in refused.err


async def test_a_replay_that_fails_has_an_exit_code_of_its_own(kubectl) -> None:
    kubectl.apply(endpoint("orders"))
    assert (await kubectl("replay", "orders", "--from", "2h", "--name", "again")).code == 0
    ended = [condition("Complete", "True", "Completed"), condition("Failed", "True", "DeliveriesFailed", "2 failed")]
    kubectl.report("replay", "again", matched=3, enqueued=3, delivered=1, failed=2, conditions=ended)
    failed = await kubectl("replay", "--follow", "again")
    assert failed.code == 3
    assert failed.out.splitlines() == [
        "3 deliveries are meant, 3 made anew, 1 delivered, 2 failed",
        "Failed: DeliveriesFailed: 2 failed",
    ]


async def test_a_kubeconfig_that_cannot_be_used_is_named(kubectl, tmp_path) -> None:
    unknown = await kubectl("status", "--context", "nowhere")
    assert unknown.code == 1
    assert unknown.err.startswith("kapsel: the kubeconfig cannot be used: ")
    away = tmp_path / "kubeconfig"
    away.write_text(
        json.dumps(
            {
                "apiVersion": "v1", "kind": "Config", "current-context": "x", "users": [{"name": "x", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
            }
        )
    )  # fmt: skip
    refused = await kubectl("status", "--kubeconfig", str(away))
    assert refused.err == (
        "kapsel: cannot reach the API server http://127.0.0.1:1: Connection refused. "
        "Check it with `kubectl cluster-info`, and --context.\n"
    )
