"""From a manifest to Ready: only when running pods have loaded what was declared."""

from typing import Any


async def test_a_relay_and_its_endpoints_become_ready_when_pods_have_loaded_them(
    operator: Any, resources: Any, database: Any, around: Any
) -> None:
    resources.relay(database)
    resources.endpoint("orders")
    process = operator.start()
    try:
        await resources.ready("webhookendpoint", "orders")
        await resources.ready("relay", "main")
    finally:
        print(process.log.read_text()[-6000:])
    print(resources.get("webhookendpoint", "orders")["status"])
    print(resources.get("relay", "main")["status"])
    print(resources.cluster.kubectl("get", "kapsel,deploy,job,svc,secret", "-n", resources.namespace))
