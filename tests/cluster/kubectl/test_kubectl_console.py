"""`kubectl kapsel` asks a console through the API server, with the rights of whoever runs it."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kapsel_verifier.note import VerifierKey

DOCS = Path(__file__).parents[3] / "docs"
READER, NOBODY = "reader@example.com", "nobody@example.com"


def rbac(verb: str) -> list[dict[str, Any]]:
    """Return the role of docs/rbac.md with this verb for the proxy, and its binding to a reader."""
    (text,) = re.findall(r"```yaml\n(.*?)```", (DOCS / "rbac.md").read_text(encoding="utf-8"), re.DOTALL)
    role = yaml.safe_load(text)
    role["rules"][-1]["verbs"] = [verb]
    subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": READER}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]}
    binding = {"apiVersion": role["apiVersion"], "kind": "RoleBinding", "metadata": {"name": "asks-console"}}
    return [role, {**binding, "roleRef": reference, "subjects": [subject]}]


async def test_lists_and_single_items_come_through_the_service_proxy(exposed, world) -> None:
    (event,) = await world.put()
    events = await exposed("events", "--endpoint", "shop/orders")
    assert (events.code, events.err) == (0, "")
    assert str(event.id) in events.out
    one = await exposed("get", "event", str(event.id), "-o", "json")
    assert json.loads(one.out)["endpoint"] == "shop/orders"
    waiting = await exposed("deliveries", "--state", "pending", "-o", "json")
    assert [item["event_id"] for item in json.loads(waiting.out)["items"]] == [str(event.id)]
    assert "shop/orders" in (await exposed("endpoints", "-o", "wide")).out


async def test_a_change_is_asked_for_through_the_service_proxy(exposed, world) -> None:
    (event,) = await world.put()
    delivery = str(event.deliveries[0].id)
    cancelled = await exposed("cancel", delivery)
    assert (cancelled.code, cancelled.out) == (0, f"delivery {delivery} is cancelled\n")
    again = await exposed("retry", delivery)
    assert (again.code, f"replays {delivery}" in again.out) == (0, True)


async def test_attempts_are_followed(exposed, world) -> None:
    await world.put()
    (attempt,) = await world.attempt()
    process = await exposed.start("tail", "--endpoint", "shop/orders")
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 240)
    assert str(attempt.id) in line.decode()
    process.terminate()
    await process.communicate()


async def test_a_problem_is_said_in_the_words_of_the_plugin(exposed) -> None:
    unknown = await exposed("get", "event", "0190f5fe-7c00-7a00-8000-000000000001")
    assert unknown.code == 1
    assert unknown.err.endswith("List them with `kubectl kapsel get events`.\n")
    here = await exposed("events", "--endpoint", "orders")  # of the namespace, as with kubectl
    assert f"there is no endpoint {exposed.namespace}/orders" in here.err


async def test_a_proof_is_verified_with_the_key_of_the_log_or_a_pinned_one(exposed, world, log, tmp_path: Path) -> None:
    attempts = await world.delivered()
    origin, vkey = log
    exposed.apply(
        {"apiVersion": "kapsel.dev/v1alpha1", "kind": "AttestationLog", "metadata": {"name": "log"},
         "spec": {"origin": origin}}
    )  # fmt: skip
    attempt, kept = str(attempts[0].id), tmp_path / "proof.json"

    unknown = await exposed("verify", attempt)
    assert unknown.code == 1
    assert f"no AttestationLog here names a key for the log {origin}. Give a key" in unknown.err

    exposed.report("attestationlog", "log", origin=origin, publicKey=vkey)
    told = await exposed("verify", attempt, "-f", str(kept))
    assert (told.code, told.err) == (0, "")
    assert told.out.startswith("Proof verified successfully!\n")
    assert f"{vkey}, by the word of AttestationLog {exposed.namespace}/log" in told.out
    assert json.loads(kept.read_bytes())["leaf_index"] == 0

    pinned = await exposed("verify", attempt, "--public-key", vkey)
    assert pinned.code == 0
    assert pinned.out.splitlines()[-1].split() == ["Key", "yours"]

    other = VerifierKey(origin, bytes(range(1, 33))).encode()
    refused = await exposed("verify", attempt, "--public-key", other)
    assert (refused.code, refused.out) == (20, "")
    assert refused.err.startswith("kapsel: no trusted key has signed the checkpoint")


async def test_the_role_of_the_documentation_is_enough_to_read_and_not_to_change(exposed, world) -> None:
    (event,) = await world.put()
    exposed.apply(*rbac("get"))
    await has_heard_of_the_binding(exposed, READER)
    read = await exposed("events", "--as", READER)
    assert (read.code, read.err) == (0, "")
    change = await exposed("cancel", str(event.deliveries[0].id), "--as", READER)
    assert change.code == 1
    assert f"kapsel: you may not reach the console of Relay {exposed.namespace}/main: " in change.err
    assert 'cannot create resource "services/proxy"' in change.err
    assert "for the role edit, or one that allows just this" in change.err


async def has_heard_of_the_binding(exposed: Any, user: str) -> None:
    """Wait until the API server knows of a right that was given, which it does a moment later."""
    asked = ("auth", "can-i", "list", "relays", f"--as={user}", "-n", exposed.namespace)
    async with asyncio.timeout(240):
        while not (await asyncio.to_thread(exposed.cluster.kubectl, *asked, check=False)).strip().endswith("yes"):
            await asyncio.sleep(0.2)


async def test_who_has_no_right_is_told_which_one(exposed) -> None:
    refused = await exposed("events", "--as", NOBODY)
    assert refused.code == 1
    assert 'cannot list resource "relays"' in refused.err
    refused = await exposed("events", "--relay", "main", "--as", NOBODY)
    assert 'cannot get resource "secrets"' in refused.err
    assert "Ask whoever gives rights in this namespace for the role view, edit or admin." in refused.err


async def test_a_console_without_pods_a_service_or_a_token_is_told_apart(kubectl, relay, address) -> None:
    missing = await kubectl("events")
    assert missing.code == 1
    assert f"Relay {kubectl.namespace}/main has no console yet: there is no Secret main-console-token." in missing.err
    kubectl.apply(kubectl.secret("main-console-token", {"token": "x" * 32}))
    missing = await kubectl("events")
    assert f"Relay {kubectl.namespace}/main has no console: " in missing.err
    assert f"See why with `kubectl kapsel status -n {kubectl.namespace}`." in missing.err
    nobody = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "main-console"}}
    kubectl.apply(kubectl.service(), nobody)
    missing = await kubectl("events")
    assert f"no pod of the console of Relay {kubectl.namespace}/main answers: no endpoints available" in missing.err
    assert "app.kubernetes.io/instance=main,app.kubernetes.io/component=console`." in missing.err
    kubectl.run_pod(address, 1)
    missing = await kubectl("events")
    assert f"no pod of the console of Relay {kubectl.namespace}/main answers: error trying to reach" in missing.err


async def test_a_token_that_is_rotated_is_said_to_need_a_moment(exposed) -> None:
    exposed.apply(exposed.secret("main-console-token", {"token": "another-token-of-this-test"}))
    refused = await exposed("events")
    assert refused.code == 1
    assert "the token is none of this console's; it may have been rotated. Try again in a minute" in refused.err


async def test_kubectl_completes_what_the_plugin_has(kubectl) -> None:
    completed = await kubectl.complete("kapsel", "st")
    assert completed.out.splitlines()[0] == "status\twhat is wrong, and what to do about it"


@pytest.mark.parametrize("relays", [[], ["one", "two"]], ids=["none", "two"])
async def test_which_relay_is_meant_has_to_be_clear(kubectl, relays: list[str]) -> None:
    for name in relays:
        kubectl.apply(
            {"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "metadata": {"name": name},
             "spec": {"database": {"embedded": {}}}}
        )  # fmt: skip
    unclear = await kubectl("events")
    assert unclear.code == 1
    if relays:
        names = ", ".join(f"{kubectl.namespace}/{name}" for name in relays)
        assert f"uses 2 Relays. Say which one with --relay: {names}." in unclear.err
    else:
        assert f"namespace {kubectl.namespace} has no Relay. Choose another with -n" in unclear.err
