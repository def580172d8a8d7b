"""Of two operators one works, the other takes over when it goes, and who has lost the Lease ends."""

import asyncio
from typing import Any

from faulty_proxy import FaultyProxy, matching, refusal

from kapsel_operator.apis import LEASE


async def test_a_second_operator_stands_by_and_takes_over_when_the_first_is_killed(
    operator: Any, resources: Any, database: Any, around: Any, client: Any
) -> None:
    await resources.relay(database)
    first = operator.start()
    await resources.ready("Relay", "main")
    second = operator.start()
    await resources.until(lambda: _stands_by(second))
    first.kill()
    await resources.endpoint("orders")
    await resources.ready("WebhookEndpoint", "orders")
    lease = await client.get(LEASE, resources.namespace, "kapsel-operator")
    assert lease["spec"]["holderIdentity"] == f"operator-{second.port}"
    assert lease["spec"]["leaseTransitions"] == 1

    # One that is told to stop gives the Lease back, so that nobody has to wait for it to run out.
    third = operator.start()
    await resources.until(lambda: _stands_by(third))
    second.process.terminate()
    assert await asyncio.to_thread(second.process.wait, 240) == 0
    lease = await client.get(LEASE, resources.namespace, "kapsel-operator")
    assert lease["spec"]["holderIdentity"] in ("", f"operator-{third.port}")
    await resources.until(lambda: _leads(third))


async def test_an_operator_that_cannot_renew_its_lease_ends(
    operator: Any, resources: Any, database: Any, around: Any, proxy: FaultyProxy
) -> None:
    await resources.relay(database)
    process = operator.start(kubeconfig=proxy.kubeconfig)
    await resources.ready("Relay", "main")
    proxy.fault = matching(r"/leases/", lambda: refusal(500))
    assert await asyncio.to_thread(process.process.wait, 240) == 1
    assert "LeaseLostError" in process.log.read_text()


async def _stands_by(process: Any) -> bool:
    metrics = await process.metrics()
    return metrics.get("operator_leader") == 0.0


async def _leads(process: Any) -> bool:
    metrics = await process.metrics()
    return metrics.get("operator_leader") == 1.0
