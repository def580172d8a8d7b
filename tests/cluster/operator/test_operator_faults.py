"""An API server that fails, watches that tell nothing, and an operator that dies: all of it ends where it should."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from faulty_proxy import FaultyProxy, Passed, matching, refusal

CONVERGED = 10.0  # seconds without a write
MORTAL = 600.0  # seconds: an operator that dies some sixty times before it comes to rest


async def test_errors_of_the_api_server_are_waited_out(
    operator: Any, resources: Any, database: Any, around: Any, proxy: FaultyProxy
) -> None:
    await resources.relay(database)
    await resources.endpoint("orders")
    faults = [
        matching(r"PATCH .*/deployments/", lambda: refusal(500), times=2),
        matching(r"PATCH .*/services/", lambda: refusal(429, **{"Retry-After": "1"}), times=2),
        matching(r"PATCH .*/status", lambda: refusal(409), times=2),
        matching(r"POST .*/secrets", lambda: refusal(503), times=1),
        matching(r"GET .*/webhookendpoints.*limit", lambda: refusal(500), times=1),
        matching(r"GET .*/relays.*watch=true", lambda: refusal(410), times=2),
        matching(r"GET .*/secrets/main-database", lambda: refusal(504), times=1),
    ]
    proxy.fault = lambda passed: next((found for fault in faults if (found := fault(passed)) is not None), None)
    process = operator.start(kubeconfig=proxy.kubeconfig, operator_audit_interval=2)
    await resources.ready("Relay", "main")
    await resources.ready("WebhookEndpoint", "orders")
    await resources.until(lambda: _counts_as_ready(process, "WebhookEndpoint"))
    measured = await process.metrics()
    assert measured['operator_watch_events_total{kind="Relay"}'] >= 1
    assert measured['operator_writes_total{kind="Deployment",verb="apply"}'] >= 1
    assert measured['operator_reconcile_duration_seconds_count{kind="Relay"}'] >= 1
    assert not [line for line in process.lines("error") if "which is a bug" in line["message"]]


async def test_what_happens_while_the_watches_tell_nothing_is_found_afterwards(
    operator: Any, resources: Any, database: Any, around: Any, proxy: FaultyProxy
) -> None:
    await resources.relay(database)
    await resources.endpoint("stays")
    await resources.endpoint("goes")
    operator.start(kubeconfig=proxy.kubeconfig, operator_audit_interval=2)
    await resources.ready("WebhookEndpoint", "goes")
    await resources.ready("Relay", "main")
    # Blind: events are swallowed, so what was deleted meanwhile is in no event that ever comes.
    proxy.blind = True
    proxy.passed.clear()
    proxy.drop_watches()
    await resources.until(lambda: _watches_endpoints(proxy))
    await resources.delete("WebhookEndpoint", "goes")
    await resources.endpoint("comes")
    await resources.until(lambda: _has_not_heard_of(proxy, "comes"))
    proxy.blind = False
    proxy.fault = matching(r"watch=true", _gone, times=20)
    proxy.drop_watches()
    await resources.ready("WebhookEndpoint", "comes")

    async def only_those_that_are_there() -> bool:
        rows = await database.fetch("SELECT name FROM endpoints WHERE deleted_at IS NULL ORDER BY name")
        return [row["name"] for row in rows] == ["comes", "stays"]

    await resources.until(only_those_that_are_there)
    await resources.delete("Service", "main-console")
    await resources.until(lambda: resources.find("Service", "main-console"))


async def test_an_operator_that_is_killed_after_any_write_leaves_what_the_next_one_finishes(
    operator: Any, resources: Any, database: Any, around: Any, proxy: FaultyProxy
) -> None:
    """One life after the other, each killed one write later than the one before, until one comes to rest."""
    await resources.relay(database)
    await resources.apply("SigningKey", "out", {"algorithm": "Ed25519", "source": "Generate"})
    await resources.endpoint("orders")
    lives, key = 0, None
    while True:
        lives += 1
        process = operator.start(kubeconfig=proxy.kubeconfig, operator_lease=f"life-{lives}")
        proxy.after_write = _killer(process, lives)
        if await _rests(process, proxy):
            proxy.after_write = lambda _: None  # on a slow machine it may have more to write all the same
            break
        key = key or await resources.find("Secret", "out-key")
        assert lives < 60, "it never came to rest"
    await resources.ready("Relay", "main")
    await resources.ready("WebhookEndpoint", "orders")
    assert lives > 3, "nobody was killed"
    # However often it died, there is one of each, and the first key is still the key.
    assert len(await database.fetch("SELECT FROM keys WHERE name = 'generated/out'")) == 1
    assert len(await database.fetch("SELECT FROM endpoints")) == 1
    assert key is None or (await resources.get("Secret", "out-key"))["data"] == key["data"]


@pytest.mark.timeout(1200)
async def test_an_operator_that_is_killed_at_any_await_leaves_what_the_next_one_finishes(
    operator: Any, resources: Any, database: Any, around: Any, proxy: FaultyProxy, tmp_path: Path
) -> None:
    """One life after the other, each killed in another place, until a reconcile waits nowhere that has not killed."""
    await resources.relay(database)
    await resources.apply("SigningKey", "out", {"algorithm": "Ed25519", "source": "Generate"})
    await resources.endpoint("orders")
    places = tmp_path / "places"
    process = operator.start(
        kubeconfig=proxy.kubeconfig, program=(Path(__file__).with_name("mortal.py"), places), drain_timeout=5
    )
    key = await resources.until(lambda: resources.find("Secret", "out-key"), MORTAL)
    await resources.until(lambda: _has_come_to_rest(process), MORTAL)
    await resources.ready("Relay", "main")
    await resources.ready("WebhookEndpoint", "orders")
    deaths = [place.split()[-1].partition(":")[0] for place in places.read_text().splitlines()]
    assert set(deaths) >= {"cluster.py", "configure.py", "gather.py", "secret_reader.py"}, deaths
    assert len(await database.fetch("SELECT FROM keys WHERE name = 'generated/out'")) == 1
    assert len(await database.fetch("SELECT FROM endpoints")) == 1
    assert (await resources.get("Secret", "out-key"))["data"] == key["data"]


async def _watches_endpoints(proxy: FaultyProxy) -> bool:
    return any(one.is_watch and "/webhookendpoints" in one.path for one in proxy.passed)


async def _has_not_heard_of(proxy: FaultyProxy, name: str) -> bool:
    return f'"name":"{name}"'.encode() in b"".join(proxy.swallowed)


def _gone() -> web.Response:
    """Return a watch as it begins when what it would tell is forgotten."""
    status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    return web.json_response({"type": "ERROR", "object": status})


def _killer(process: Any, after: int) -> Callable[[Passed], None]:
    left = [after]

    def kill(_: Passed) -> None:
        left[0] -= 1
        if left[0] == 0:
            process.process.send_signal(signal.SIGKILL)

    return kill


async def _has_come_to_rest(process: Any) -> bool:
    """Whether the life that goes on has reconciled some times."""
    metrics = await process.metrics()
    return any(name.startswith("operator_reconciles_total{") and value > 3 for name, value in metrics.items())


async def _rests(process: Any, proxy: FaultyProxy) -> bool:
    """Wait until a process has died, or has written nothing for a while."""
    loop = asyncio.get_running_loop()
    seen, since = len(proxy.writes), loop.time()
    while process.process.poll() is None:
        await asyncio.sleep(0.1)
        if len(proxy.writes) != seen:
            seen, since = len(proxy.writes), loop.time()
        if loop.time() - since > CONVERGED and await _has_come_to_rest(process):
            return True
    return False


async def _counts_as_ready(process: Any, kind: str) -> bool:
    metrics = await process.metrics()
    return metrics.get(f'operator_resources{{kind="{kind}",ready="True"}}') == 1
