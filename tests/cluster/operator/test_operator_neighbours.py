"""What has the name that something of kapsel's would have, and is somebody else's, stays as it is."""

from typing import Any


async def test_a_signing_key_takes_no_secret_that_has_the_name_of_its_own(
    operator: Any, resources: Any, database: Any, around: Any
) -> None:
    await resources.relay(database)
    await resources.secret("theirs-key", password="a secret of somebody else")
    operator.start()
    await resources.ready("Relay", "main")
    sealing = await resources.get("Secret", "main-sealing-key")
    theirs = await resources.get("Secret", "theirs-key")
    for name in ("main-sealing", "theirs", "ours"):
        await resources.apply("SigningKey", name, {"algorithm": "Ed25519", "source": "Generate"})
    await resources.ready("SigningKey", "ours")
    told = await resources.told("SigningKey", "theirs", "Stalled", "True", "NameTaken")
    assert f"the Secret {resources.namespace}/theirs-key, which is somebody else's" in told["message"]
    await resources.told("SigningKey", "main-sealing", "Stalled", "True", "NameTaken")
    assert await resources.get("Secret", "main-sealing-key") == sealing
    assert await resources.get("Secret", "theirs-key") == theirs


async def test_a_relay_takes_no_log_of_another_relay_that_has_its_name(
    operator: Any, resources: Any, database: Any, make_database: Any, around: Any
) -> None:
    kubelet, _ = around
    other = await make_database()
    kubelet.databases.append(other)
    await resources.apply("AttestationLog", "main", {"relayRef": {"name": "other"}})
    await resources.relay(other, "other")
    operator.start()
    await resources.told("AttestationLog", "main", "Ready", "Unknown", "NoAttestor")
    await resources.relay(database)
    told = await resources.told("Relay", "main", "Stalled", "True", "NameTaken")
    assert "spec.relayRef names this Relay" in told["message"]
    assert (await resources.get("AttestationLog", "main"))["spec"]["relayRef"] == {"name": "other"}
    template = (await resources.get("Deployment", "main-deliverer"))["spec"]["template"]["spec"]
    assert "initContainers" not in template  # without a log of its own there is no attestor
    await resources.apply("AttestationLog", "mine", {"relayRef": {"name": "main"}})
    await resources.until(lambda: _without_condition(resources, "Relay", "main", "Stalled"))


async def _without_condition(resources: Any, kind: str, name: str, which: str) -> bool:
    return await resources.condition(kind, name, which) == {}
