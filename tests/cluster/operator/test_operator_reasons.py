"""Whatever can be wrong has a reason of its own, with the object, what is wrong, and what to do."""

import asyncio
from typing import Any

from aiohttp import web
from faulty_proxy import FaultyProxy, Passed, matching, refusal

from kapsel_operator.apis import EVENT, NAMESPACE


async def test_each_fault_of_a_relay_has_its_own_reason(
    operator: Any, resources: Any, database: Any, make_database: Any, proxy: FaultyProxy
) -> None:
    # Tests beside this one may have installed what this cluster is to lack.
    proxy.fault = matching(r"GET /apis/(keda[.]sh|gateway[.]networking[.]k8s[.]io|postgresql[.]cnpg[.]io)$", not_found)
    await database.migrate()
    newer = "INSERT INTO migrations (number, name, checksum) VALUES (9999, '9999_later.sql', '\\x00')"
    good = database.url
    await resources.secret("dead", uri="postgresql://kapsel:secret@127.0.0.1:1/kapsel")
    await resources.secret("nonsense", uri="not a url")
    await resources.secret("entry", other=good)
    await resources.secret("catalog", uri=good.replace(database.name, "no_such_database"))
    await resources.secret("user", uri=good.replace("user=postgres", "user=nobody"))

    async def relay(name: str, secret: str | None = None, **spec: Any) -> None:
        named = {"database": {"secretRef": {"name": secret}}} if secret else {}
        await resources.apply("Relay", name, {**named, **spec})

    await relay("no-database")
    await relay("no-secret", "absent")
    await relay("no-entry", "entry")
    await relay("no-url", "nonsense")
    await relay("dead", "dead")
    await relay("catalog", "catalog")
    await relay("user", "user")
    await relay("cnpg", database={"cnpgClusterRef": {"name": "pg"}})
    await resources.secret("pooler", uri="postgresql://kapsel:secret@127.0.0.1:1/kapsel")
    await relay("no-direct", database={"secretRef": {"name": "pooler", "directRef": {"name": "absent-too"}}})
    await relay("no-direct-entry", database={"secretRef": {"name": "pooler", "directRef": {"name": "entry"}}})
    await relay("no-direct-url", database={"secretRef": {"name": "pooler", "directRef": {"name": "nonsense"}}})
    for name in ("ingress", "gateway", "keda"):  # each on a database of its own
        other = await make_database()
        await other.migrate()
        await resources.secret(name, uri=other.url)
    await relay(
        "ingress", "ingress", exposure={"type": "Ingress", "hostname": "a.example.com", "ingressClassName": "absent"}
    )
    await relay(
        "gateway", "gateway", exposure={"type": "HTTPRoute", "hostname": "a.example.com", "gatewayRef": {"name": "g"}}
    )
    await relay("keda", "keda", deliverer={"autoscaling": {"type": "KEDA", "maxReplicas": 4}})
    operator.start(kubeconfig=proxy.kubeconfig)
    expected = {
        "no-database": "DatabaseMissing",
        "no-secret": "DatabaseSecretNotFound",
        "no-entry": "DatabaseSecretEntryNotFound",
        "no-url": "DatabaseUrlInvalid",
        "catalog": "DatabaseRefused",
        "user": "DatabaseRefused",
        "cnpg": "CnpgNotInstalled",
        "no-direct": "DatabaseSecretNotFound",
        "no-direct-entry": "DatabaseSecretEntryNotFound",
        "no-direct-url": "DatabaseUrlInvalid",
        "ingress": "IngressClassNotFound",
        "gateway": "GatewayNotInstalled",
        "keda": "KedaNotInstalled",
    }
    told = await asyncio.gather(
        *(resources.told("Relay", name, "Stalled", "True", reason) for name, reason in expected.items())
    )
    assert all(one["message"] for one in told)
    assert not any("secret@" in one["message"] or "postgresql://postgres" in one["message"] for one in told)
    dead = await resources.told("Relay", "dead", "DatabaseReachable", "False", "DatabaseUnreachable")
    assert "127.0.0.1" in dead["message"]
    assert await resources.condition("Relay", "dead", "Stalled") == {}  # it may come back by itself
    for name in expected:
        assert (await resources.condition("Relay", name))["status"] == "False"
    # What can be mended is noticed without anybody touching the Relay.
    await resources.secret("absent", uri=good)
    await resources.told("Relay", "no-secret", "DatabaseReachable", "True", "Connected")
    await database.fetch(newer)
    await resources.told("Relay", "no-secret", "SchemaCurrent", "False", "SchemaNewer")
    await resources.told("Relay", "no-secret", "Stalled", "True", "SchemaNewer")


async def test_the_operator_goes_to_postgres_itself_besides_a_pooler_and_pods_get_both_ways(
    operator: Any, resources: Any, database: Any, around: Any
) -> None:
    await resources.secret(
        "pooler", uri="postgresql://kapsel:secret@127.0.0.1:1/kapsel"
    )  # which the operator never asks
    await resources.secret("pg-app", url=database.url)
    direct = {"name": "pg-app", "key": "url"}
    await resources.apply("Relay", "main", {"database": {"secretRef": {"name": "pooler", "directRef": direct}}})
    operator.start()
    await resources.ready("Relay", "main")
    template = (await resources.get("Deployment", "main-deliverer"))["spec"]["template"]["spec"]
    for container in (*template["containers"], *template["initContainers"]):
        env = {one["name"]: one.get("value") for one in container["env"]}
        assert env["KAPSEL_DATABASE_URL_FILE"] == "/etc/kapsel/database-url"
        assert env["KAPSEL_DATABASE_DIRECT_URL_FILE"] == "/etc/kapsel/database-direct-url"


async def test_a_cluster_of_cloudnativepg_says_why_it_cannot_be_used(
    operator: Any, resources: Any, database: Any, around: Any, proxy: FaultyProxy
) -> None:
    found: dict[str, Any] | None = None

    def cloudnativepg(passed: Passed) -> Any:
        if passed.path == "/apis/postgresql.cnpg.io":
            return web.json_response({"kind": "APIGroup"})
        if passed.path.startswith("/apis/postgresql.cnpg.io/v1/"):
            return not_found() if found is None else web.json_response(found)
        return None

    proxy.fault = cloudnativepg
    await resources.apply("Relay", "main", {"database": {"cnpgClusterRef": {"name": "pg"}}})
    operator.start(kubeconfig=proxy.kubeconfig)
    await resources.told("Relay", "main", "Stalled", "True", "CnpgClusterNotFound")
    found = {"kind": "Cluster", "status": {"phase": "Setting up primary"}}
    told = await resources.told("Relay", "main", "DatabaseReachable", "False", "CnpgClusterNotReady")
    assert "Setting up primary" in told["message"]
    assert await resources.condition("Relay", "main", "Stalled") == {}
    await resources.secret("pg-app", uri=database.url)
    found = {"kind": "Cluster", "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    await resources.ready("Relay", "main")


async def test_each_fault_of_a_resource_has_its_own_reason(
    operator: Any, resources: Any, database: Any, around: Any, client: Any
) -> None:
    await database.migrate()
    await resources.relay(database)
    destination = {"name": "one", "url": "https://example.com/"}
    await resources.endpoint("policy", destinations=[{**destination, "retryPolicyRef": {"name": "absent"}}])
    await resources.endpoint("key", destinations=[{**destination, "signingKeyRef": {"name": "absent"}}])
    await resources.endpoint("secret", verification={"bearer": {"secretRef": {"name": "absent"}}})
    await resources.endpoint("plain", destinations=[{"name": "one", "url": "http://example.com/"}])
    await resources.endpoint("relay", relayRef={"name": "absent"})
    await resources.apply(
        "SigningKey", "in", {"algorithm": "HMAC-SHA256", "source": "Secret", "secretRef": {"name": "absent"}}
    )
    operator.start()
    expected = {
        ("WebhookEndpoint", "policy"): "RetryPolicyNotFound",
        ("WebhookEndpoint", "key"): "SigningKeyNotFound",
        ("WebhookEndpoint", "secret"): "SecretNotFound",
        ("WebhookEndpoint", "plain"): "PlainHTTP",
        ("WebhookEndpoint", "relay"): "RelayNotFound",
        ("SigningKey", "in"): "SecretNotFound",
    }
    await asyncio.gather(
        *(resources.told(kind, name, "Stalled", "True", reason) for (kind, name), reason in expected.items())
    )

    async def warned() -> bool:  # an Event follows the condition that it tells of
        events = await client.list_all(EVENT, resources.namespace)
        return {one["reason"] for one in events if one["type"] == "Warning"} >= set(expected.values())

    await resources.until(warned)
    # Each is mended by what its message asks for, and nobody touches the resource itself.
    await resources.apply("RetryPolicy", "absent", {})
    await resources.apply("SigningKey", "absent", {"algorithm": "HMAC-SHA256", "source": "Generate"})
    await resources.secret("absent", token="a-token-that-is-long-enough")
    for name in ("policy", "key", "secret"):
        await resources.ready("WebhookEndpoint", name)
    await resources.ready("SigningKey", "in")
    await resources.ready("RetryPolicy", "absent")
    assert (await resources.get("RetryPolicy", "absent"))["status"]["users"] == 1
    assert await resources.condition("WebhookEndpoint", "policy", "Stalled") == {}


async def test_only_a_namespace_that_the_relay_allows_may_use_it(
    operator: Any, resources: Any, database: Any, around: Any, make_namespace: Any, client: Any
) -> None:
    await database.migrate()
    guest = type(resources)(client, make_namespace())
    await resources.relay(
        database, allowedNamespaces={"from": "Selector", "selector": {"matchLabels": {"kapsel": "yes"}}}
    )
    reference = {"name": "main", "namespace": resources.namespace}
    await guest.endpoint("orders", relayRef=reference)
    operator.start(watch=f"{resources.namespace},{guest.namespace}")
    await guest.told("WebhookEndpoint", "orders", "Stalled", "True", "NotAllowed")
    await client.merge(NAMESPACE, "", guest.namespace, {"metadata": {"labels": {"kapsel": "yes"}}})
    await guest.ready("WebhookEndpoint", "orders")
    await client.merge(NAMESPACE, "", guest.namespace, {"metadata": {"labels": {"kapsel": None}}})
    await guest.told("WebhookEndpoint", "orders", "Ready", "False", "NotAllowed")

    async def removed() -> bool:
        return not await database.fetch("SELECT FROM endpoints WHERE deleted_at IS NULL")

    await resources.until(removed)


async def test_a_relay_for_which_the_api_server_takes_nothing_says_why(
    operator: Any, resources: Any, database: Any, around: Any, proxy: FaultyProxy
) -> None:
    proxy.fault = matching(r"POST .*/secrets$", lambda: refusal(403))
    await resources.relay(database)
    operator.start(kubeconfig=proxy.kubeconfig)
    told = await resources.told("Relay", "main", "Stalled", "True", "RequestRefused")
    assert f"POST /api/v1/namespaces/{resources.namespace}/secrets: 403" in told["message"]
    proxy.fault = lambda _: None
    await resources.ready("Relay", "main")
    assert await resources.condition("Relay", "main", "Stalled") == {}


def not_found() -> web.Response:
    return refusal(404)
