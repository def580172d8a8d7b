"""From a manifest to Ready, and back: only when running pods have loaded what was declared."""

import asyncio
from typing import Any

from kapsel_resources.kinds.model import GROUP_VERSION


async def test_ready_means_that_running_pods_have_loaded_this_generation(
    operator: Any, resources: Any, database: Any, around: Any, control_plane: Any
) -> None:
    _, plane = around
    await resources.relay(database)
    await resources.endpoint("orders")
    operator.start()
    await asyncio.to_thread(
        control_plane.kubectl,
        "wait", "--for=condition=Ready", "--timeout=240s", "-n", resources.namespace, "relay/main", "whe/orders",
    )  # fmt: skip
    relay, endpoint = await resources.get("Relay", "main"), await resources.get("WebhookEndpoint", "orders")
    assert relay["status"]["observedGeneration"] == relay["metadata"]["generation"]
    assert relay["status"]["endpoints"] == 1
    ingest = f"{relay['status']['address']['url']}/ingest/{endpoint['status']['id']}"
    assert endpoint["status"]["address"]["url"] == ingest
    assert await names(database) == ["orders"]

    # A process that stays behind keeps what was declared since from being Ready, and nothing else.
    plane.frozen = 1
    await resources.endpoint("late")
    told = await resources.told("WebhookEndpoint", "late", "Ready", "Unknown", "Loading")
    assert told["message"].startswith("4 of 4 processes have not loaded generation 2")
    assert (await resources.condition("WebhookEndpoint", "orders"))["status"] == "True"
    plane.frozen = None
    await resources.ready("WebhookEndpoint", "late")

    # What is deleted is gone from the rows; its neighbours stay.
    await resources.delete("WebhookEndpoint", "orders")
    await resources.until(lambda: _is(names(database), ["late"]))


async def test_a_paused_endpoint_keeps_its_rows_and_a_paused_relay_everything(
    operator: Any, resources: Any, database: Any, around: Any
) -> None:
    await resources.relay(database)
    await resources.endpoint("orders")
    operator.start()
    await resources.ready("WebhookEndpoint", "orders")
    await resources.ready("Relay", "main")
    await resources.annotate("WebhookEndpoint", "orders", "disabled")
    await resources.told("WebhookEndpoint", "orders", "Paused", "True", "Disabled")
    await resources.endpoint("orders", destinations=[{"name": "other", "url": "https://other.example.com/"}])
    await resources.annotate("Relay", "main", "disabled")
    await resources.told("Relay", "main", "Paused", "True", "Disabled")
    assert (await resources.condition("Relay", "main"))["status"] == "True"
    await resources.endpoint("late")
    await resources.told("WebhookEndpoint", "late", "Ready", "Unknown", "Paused")
    await resources.delete("Service", "main-console")
    await resources.annotate("Relay", "main", None)
    await resources.until(lambda: resources.find("Service", "main-console"))
    await resources.ready("Relay", "main")
    assert await resources.condition("Relay", "main", "Paused") == {}
    await resources.ready("WebhookEndpoint", "late")
    await resources.delete("WebhookEndpoint", "late")
    await resources.until(lambda: _is(names(database), ["orders"]))
    query = "SELECT name FROM destinations WHERE deleted_at IS NULL"
    assert [row["name"] for row in await database.fetch(query)] == ["one"]
    await resources.annotate("WebhookEndpoint", "orders", None)
    await resources.until(lambda: _is(names(database, query), ["other"]))


async def test_what_belongs_to_a_relay_goes_with_it_and_its_data_stays(
    operator: Any, resources: Any, database: Any, around: Any
) -> None:
    await resources.relay(database)
    await resources.endpoint("orders")
    operator.start()
    await resources.ready("Relay", "main")
    await resources.delete("Relay", "main")
    await resources.told("WebhookEndpoint", "orders", "Ready", "False", "RelayNotFound")
    await resources.until(lambda: _is(resources.find("Deployment", "main-receiver"), None))
    assert await resources.find("Secret", "main-sealing-key")
    assert await resources.find("AttestationLog", "main")
    assert await names(database) == ["orders"]
    await resources.relay(database)  # again, and it goes on where it stopped
    await resources.ready("WebhookEndpoint", "orders")
    assert len(await database.fetch("SELECT FROM endpoints")) == 1


async def test_a_generated_key_is_in_a_secret_and_comes_back_from_it_when_the_database_is_lost(
    operator: Any, resources: Any, make_database: Any, database: Any, around: Any
) -> None:
    kubelet, plane = around
    await resources.relay(database)
    await resources.apply("SigningKey", "out", {"algorithm": "Ed25519", "source": "Generate"})
    await resources.endpoint("orders")
    operator.start()
    await resources.ready("SigningKey", "out")
    await resources.until(lambda: resources.find("Secret", "orders-signing"))
    status = (await resources.get("SigningKey", "out"))["status"]
    before = await resources.get("Secret", "out-key")
    assert sorted(before["data"]) == ["v1", "v1.pub"]
    assert before["metadata"]["ownerReferences"][0]["name"] == "out"
    assert status["publicKey"].startswith("whpk_")

    other = await make_database()
    kubelet.databases.append(other)
    plane.url = other.url
    await resources.secret("main-database", uri=other.url)
    await resources.until(lambda: _is(count(other), 2))
    assert (await resources.get("Secret", "out-key"))["data"] == before["data"]
    assert (await resources.get("SigningKey", "out"))["status"]["publicKey"] == status["publicKey"]


async def test_a_declared_log_takes_the_place_of_the_one_that_was_made_for_the_relay(
    operator: Any, resources: Any, database: Any, around: Any
) -> None:
    await resources.relay(database)
    operator.start()
    await resources.ready("AttestationLog", "main")
    made = await resources.get("AttestationLog", "main")
    assert made["status"]["origin"] == f"kapsel.local/{resources.namespace}/main"
    assert "ownerReferences" not in made["metadata"]
    await resources.apply("AttestationLog", "ours", {"origin": "log.example.com/orders"})
    await resources.ready("AttestationLog", "ours")
    await resources.told("AttestationLog", "main", "Ready", "False", "Superseded")
    assert (await resources.get("AttestationLog", "ours"))["status"]["publicKey"].startswith("log.example.com/orders+")


async def test_the_attestor_and_the_operator_write_one_status_and_leave_each_other_alone(
    operator: Any, resources: Any, database: Any, around: Any, client: Any
) -> None:
    await resources.relay(database)
    operator.start()
    await resources.ready("AttestationLog", "main")
    fence = {"origin": "o", "treeSize": 1, "rootHash": "00" * 32, "timestampMs": 1}
    condition = {
        "type": "LogConsistent",
        "status": "True",
        "reason": "Consistent",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    log = {
        "apiVersion": GROUP_VERSION,
        "kind": "AttestationLog",
        "metadata": {"name": "main", "namespace": resources.namespace},
        "status": {"fence": fence, "conditions": [condition]},
    }
    path = f"/apis/{GROUP_VERSION}/namespaces/{resources.namespace}/attestationlogs/main/status"
    await client._apply(path, log, "kapsel-attestor")
    await resources.apply("AttestationLog", "main", {"publication": {"interval": "5s"}})
    generation = (await resources.get("AttestationLog", "main"))["metadata"]["generation"]

    async def observed() -> bool:
        return bool((await resources.get("AttestationLog", "main"))["status"]["observedGeneration"] == generation)

    await resources.until(observed)
    status = (await resources.get("AttestationLog", "main"))["status"]
    assert status["fence"] == fence
    assert {one["type"] for one in status["conditions"]} == {"Ready", "LogConsistent"}


async def names(database: Any, query: str = "SELECT name FROM endpoints WHERE deleted_at IS NULL ORDER BY name") -> Any:
    return [row["name"] for row in await database.fetch(query)]


async def count(database: Any) -> int:
    if not await database.fetch("SELECT FROM pg_tables WHERE schemaname = 'kapsel' AND tablename = 'keys'"):
        return 0  # the Job has not made the tables yet
    return len(await database.fetch("SELECT FROM keys WHERE name IN ('generated/out', 'endpoint/orders')"))


async def _is(found: Any, expected: Any) -> bool:
    return bool(await found == expected)
