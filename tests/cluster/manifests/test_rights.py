"""What the accounts of a Relay's pods may do: one of them one thing, and the others nothing."""

import asyncio
import json
from typing import Any

SPEC = {"database": {"embedded": {}}}
OTHERS = ("main-receiver", "main-console", "main-migrate", "main-postgres")

Rule = tuple[str, str, str]


def allowed(control_plane: Any, namespace: str, account: str) -> set[Rule]:
    """Return verb, resource and name of all that an account may do there beyond what every account may."""
    mine, everybody = (rules(control_plane, namespace, name) for name in (account, "nobody-in-particular"))
    assert everybody  # the question itself, for one: so an empty answer is an answer
    return mine - everybody


def rules(control_plane: Any, namespace: str, account: str) -> set[Rule]:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    impersonated = f"--as=system:serviceaccount:{namespace}:{account}"
    answer = control_plane.kubectl(
        "create", "--validate=false", impersonated, "-o", "json", "-f", "-", input=json.dumps(review)
    )
    return {
        (verb, resource, name)
        for rule in json.loads(answer)["status"]["resourceRules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", ["*"])
    }


async def come_true(control_plane: Any, namespace: str, account: str, expected: set[Rule]) -> None:
    """Wait until the API server has heard of all rights, which it does a moment after they were given."""
    async with asyncio.timeout(240):
        while not expected <= await asyncio.to_thread(rules, control_plane, namespace, account):
            await asyncio.sleep(0.2)


FENCE = {
    ("get", "attestationlogs/status", "main"),
    ("patch", "attestationlogs/status", "main"),
    ("create", "events", "*"),
}


async def test_the_account_of_the_attestor_may_keep_its_fence_and_nothing_else(
    make_shop: Any, control_plane: Any
) -> None:
    shop = await make_shop(SPEC)
    await shop.apply()
    await come_true(control_plane, shop.namespace, "main-deliverer", FENCE)
    assert allowed(control_plane, shop.namespace, "main-deliverer") == FENCE


async def test_accounts_of_other_pods_may_do_nothing(make_shop: Any, control_plane: Any) -> None:
    shop = await make_shop(SPEC)
    await shop.apply()
    for account in OTHERS:
        assert allowed(control_plane, shop.namespace, account) == set(), account


async def test_the_attestor_writes_the_status_of_its_log_and_of_no_other(make_shop: Any, control_plane: Any) -> None:
    shop = await make_shop(SPEC)
    await shop.apply()
    other = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "AttestationLog", "spec": {}}
    await shop.cluster.apply({**other, "metadata": {"name": "other", "namespace": shop.namespace}})
    await come_true(control_plane, shop.namespace, "main-deliverer", FENCE)
    account = f"--as=system:serviceaccount:{shop.namespace}:main-deliverer"
    fence = json.dumps({"status": {"fence": {"origin": "o", "treeSize": 1, "rootHash": "ab" * 32, "timestampMs": 1}}})
    patch = ("patch", "attestationlog", "-n", shop.namespace, account, "--type=merge", "-p")
    control_plane.kubectl(*patch, fence, "--subresource=status", "main")
    for refused in ((fence, "--subresource=status", "other"), ('{"metadata":{"labels":{"a":"b"}}}', "main")):
        assert "Forbidden" in control_plane.kubectl(*patch, *refused, check=False)


async def test_the_role_lies_where_the_log_lies_and_survives_the_garbage_collector(
    make_shop: Any, make_namespace: Any
) -> None:
    """An owner in another namespace would be none to the garbage collector."""
    shop, elsewhere = await make_shop(SPEC), make_namespace()
    log = await shop.cluster.apply(
        {
            "apiVersion": "kapsel.dev/v1alpha1",
            "kind": "AttestationLog",
            "metadata": {"name": "theirs", "namespace": elsewhere},
            "spec": {},
        }
    )
    facts = type(shop.facts.log)(namespace=elsewhere, name="theirs", uid=log["metadata"]["uid"])
    applied = await shop.knowing(log=facts).apply()
    roles = [one["metadata"] for one in applied if one["kind"] in ("Role", "RoleBinding")]
    assert {role["namespace"] for role in roles} == {elsewhere}
    assert {owner["kind"] for role in roles for owner in role["ownerReferences"]} == {"AttestationLog"}
