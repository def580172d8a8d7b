"""What somebody changes comes back, what is somebody else's stays, and at rest nothing is written at all."""

import asyncio
from typing import Any

from faulty_proxy import FaultyProxy

from kapsel_operator.apis import BY_KIND

DEPLOYMENT = BY_KIND["apps/v1", "Deployment"]
LOOKS = 4  # reconciles of a Relay, which come each second, without a write: however slow the machine is


async def test_objects_that_are_changed_or_deleted_come_back_and_foreign_fields_stay(
    operator: Any, resources: Any, database: Any, around: Any, client: Any
) -> None:
    await resources.relay(database)
    operator.start()
    await resources.ready("Relay", "main")
    for kind, name in (
        ("Service", "main-receiver"),
        ("NetworkPolicy", "main-deliverer"),
        ("Deployment", "main-console"),
    ):
        uid = (await resources.get(kind, name))["metadata"]["uid"]
        await resources.delete(kind, name)
        await resources.until(lambda k=kind, n=name, u=uid: _is_another(resources.find(k, n), u))
    metadata = {"labels": {"team": "shop", "app.kubernetes.io/part-of": "ours"}, "annotations": {"note": "kept"}}
    await client.merge(
        DEPLOYMENT,
        resources.namespace,
        "main-receiver",
        {"metadata": metadata, "spec": {"replicas": 7, "paused": True}},
    )

    async def healed() -> Any:
        found = await resources.get("Deployment", "main-receiver")
        right = found["metadata"]["labels"]["app.kubernetes.io/part-of"] == "kapsel" and found["spec"]["replicas"] == 2
        return found if right else None

    found = await resources.until(healed)
    assert found["metadata"]["labels"]["team"] == "shop"
    assert found["metadata"]["annotations"]["note"] == "kept"
    assert found["spec"]["paused"] is True
    # A status that somebody writes over is put right too.
    await client.patch_status(
        BY_KIND["kapsel.dev/v1alpha1", "Relay"], resources.namespace, "main", {"version": "0.0.0", "conditions": []}
    )
    await client.merge(DEPLOYMENT, resources.namespace, "main-receiver", {"spec": {"paused": None}})
    await resources.ready("Relay", "main")
    assert (await resources.get("Relay", "main"))["status"]["version"] != "0.0.0"


async def test_the_number_of_pods_is_the_autoscalers_and_survives_the_change_to_it(
    operator: Any, resources: Any, database: Any, around: Any, client: Any
) -> None:
    await resources.relay(database, deliverer={"replicas": 3})
    operator.start()
    await resources.ready("Relay", "main")
    await resources.relay(database, deliverer={"autoscaling": {"minReplicas": 2, "maxReplicas": 9}})
    await resources.until(lambda: resources.find("HorizontalPodAutoscaler", "main-deliverer"))
    assert (await resources.get("Deployment", "main-deliverer"))["spec"]["replicas"] == 3
    scale = {"spec": {"replicas": 6}}
    path = DEPLOYMENT.path(resources.namespace, "main-deliverer", "scale")
    await client._request("PATCH", path, body=scale, content_type="application/merge-patch+json")
    await resources.relay(database, deliverer={"autoscaling": {"minReplicas": 2, "maxReplicas": 8}})

    async def scaled() -> bool:
        autoscaler = await resources.get("HorizontalPodAutoscaler", "main-deliverer")
        return bool(autoscaler["spec"]["maxReplicas"] == 8)

    await resources.until(scaled)
    assert (await resources.get("Deployment", "main-deliverer"))["spec"]["replicas"] == 6
    await resources.relay(database)  # and without an autoscaler it goes, and the default number is back
    await resources.until(lambda: _is_gone(resources.find("HorizontalPodAutoscaler", "main-deliverer")))

    async def default() -> bool:
        return bool((await resources.get("Deployment", "main-deliverer"))["spec"]["replicas"] == 2)

    await resources.until(default)


async def test_nothing_is_written_at_rest_nor_after_a_restart(
    operator: Any, resources: Any, database: Any, around: Any, proxy: FaultyProxy
) -> None:
    await resources.relay(database)
    await resources.apply("SigningKey", "out", {"algorithm": "Ed25519", "source": "Generate"})
    await resources.apply("RetryPolicy", "patient", {"maxAttempts": 20})
    for number in range(5):
        await resources.endpoint(f"endpoint-{number}")
    first = operator.start(kubeconfig=proxy.kubeconfig)
    await resources.ready("Relay", "main")
    for kind, name in (("WebhookEndpoint", "endpoint-4"), ("SigningKey", "out"), ("RetryPolicy", "patient")):
        await resources.ready(kind, name)
    await _comes_to_rest(first, proxy)
    generation = await database.fetch("SELECT generation FROM configuration")
    assert proxy.passed, "the operator did not even look"
    first.process.terminate()
    await asyncio.to_thread(first.process.wait, 240)
    proxy.passed.clear()
    second = operator.start(kubeconfig=proxy.kubeconfig)
    await resources.until(lambda: _has_reconciled(second, 3))
    assert [(one.method, one.path, one.body) for one in proxy.writes] == []
    assert await database.fetch("SELECT generation FROM configuration") == generation


async def _comes_to_rest(process: Any, proxy: FaultyProxy) -> None:
    """Return when an operator has looked some times and written nothing."""
    async with asyncio.timeout(240):
        while True:
            proxy.passed.clear()
            begun = await _reconciles(process)  # 0 if it did not answer
            while not await _has_reconciled(process, begun + LOOKS):
                await asyncio.sleep(0.2)
            if begun and not proxy.writes:
                return


async def _has_reconciled(process: Any, count: float) -> bool:
    return await _reconciles(process) >= count


async def _reconciles(process: Any) -> float:
    """Return how often an operator has reconciled Relays, by its metrics."""
    metrics: dict[str, float] = await process.metrics()
    return sum(
        value for name, value in metrics.items() if name.startswith("operator_reconciles_total{") and "Relay" in name
    )


async def _is_another(finding: Any, uid: str) -> bool:
    found = await finding
    return found is not None and found["metadata"]["uid"] != uid


async def _is_gone(finding: Any) -> bool:
    return await finding is None
