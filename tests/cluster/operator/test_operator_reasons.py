"""Whatever can be wrong has a reason of its own, with the object, what is wrong, and what to do."""

import asyncio
from typing import Any

from kapsel_operator.apis import EVENT, NAMESPACE


async def test_each_fault_of_a_relay_has_its_own_reason(
    operator: Any, resources: Any, database: Any, make_database: Any
) -> None:
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
    await relay(
        "ingress", "good", exposure={"type": "Ingress", "hostname": "a.example.com", "ingressClassName": "absent"}
    )
    await relay(
        "gateway", "good", exposure={"type": "HTTPRoute", "hostname": "a.example.com", "gatewayRef": {"name": "g"}}
    )
    await relay("keda", "keda", deliverer={"autoscaling": {"type": "KEDA", "maxReplicas": 4}})
    operator.start()
    expected = {
        "no-database": "DatabaseMissing",
        "no-secret": "DatabaseSecretNotFound",
        "no-entry": "DatabaseSecretEntryNotFound",
        "no-url": "DatabaseUrlInvalid",
        "catalog": "DatabaseRefused",
        "user": "DatabaseRefused",
        "cnpg": "CnpgNotInstalled",
        "ingress": "IngressClassNotFound",
        "gateway": "GatewayNotInstalled",
        "keda": "KedaNotInstalled",
    }
    told = await asyncio.gather(
        *(resources.told("Relay", name, "Stalled", "True", reason, 120) for name, reason in expected.items())
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
    events = await client.list_all(EVENT, resources.namespace)
    assert {one["reason"] for one in events if one["type"] == "Warning"} >= set(expected.values())
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
