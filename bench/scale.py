"""Measures the operator with many WebhookEndpoints: when all are Ready, how much memory it takes, what it does at rest.

Run: python bench/scale.py                     5,000 endpoints that share a signing key
     python bench/scale.py --own-keys          each with a generated key, and so a Secret, of its own
     python bench/scale.py --endpoints 500     to see that it works

A real API server, a real database and a real operator, all on this machine; kubelet and data plane are the stand-ins of
tests/cluster/operator. Every request of the operator goes through a proxy that counts it. The figures of the last run
are in bench/results/scale.json.
"""

import argparse
import asyncio
import importlib.util
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import psutil
from kubernetes.aio import config as kubernetes_config
from prometheus_client import CollectorRegistry

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_operator.apis import BY_KIND
from kapsel_operator.metrics import Metrics
from kapsel_resources.kinds.model import GROUP_VERSION

ROOT = Path(__file__).resolve().parents[1]
NAMESPACE = "default"
REST = 60.0  # seconds
ENDPOINT = BY_KIND[GROUP_VERSION, "WebhookEndpoint"]


def stand_ins() -> ModuleType:
    """Return the stand-ins of the tests: folders of tests are no packages."""
    sys.path.insert(0, str(ROOT / "tests" / "cluster"))
    spec = importlib.util.spec_from_file_location("operator_tests", ROOT / "tests/cluster/operator/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tests = stand_ins()
from faulty_proxy import FaultyProxy  # noqa: E402 - it is found where the stand-ins are
from onenode.control_plane import ControlPlane  # noqa: E402
from onenode.processes import Processes  # noqa: E402


async def measure(endpoints: int, own_keys: bool, directory: Path) -> dict[str, Any]:
    """Return the figures of one run."""
    postgres, state = EmbeddedPostgres(directory / "postgres"), directory / "control-plane"
    plane = ControlPlane(state, Processes(state, bound=True))
    postgres.start()
    plane.start()
    try:
        crds = [f"--filename={path}" for path in sorted((ROOT / "crds").glob("*.yaml"))]
        plane.cluster.kubectl("apply", "--server-side", *crds)
        plane.cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", *crds)
        api = await kubernetes_config.new_client_from_config(config_file=str(plane.cluster.kubeconfig))
        client = tests.Client(api, Metrics(CollectorRegistry()))
        try:
            async with FaultyProxy(plane.cluster.kubeconfig, directory) as proxy:
                return await _measure(endpoints, own_keys, directory, client, postgres, proxy)
        finally:
            await client.close()
    finally:
        plane.stop()
        postgres.stop()


async def _measure(
    endpoints: int, own_keys: bool, directory: Path, client: Any, postgres: EmbeddedPostgres, proxy: FaultyProxy
) -> dict[str, Any]:
    database = tests.Database(name="kapsel", url=postgres.url)
    await database.migrate()
    resources = tests.Resources(client, NAMESPACE)
    operator = tests.Operator(proxy.kubeconfig, NAMESPACE, directory)
    kubelet, data_plane = tests.Kubelet(client, NAMESPACE, [database]), tests.DataPlane(database.url)
    background = [asyncio.create_task(kubelet.run()), asyncio.create_task(data_plane.run())]
    intervals = {"operator_status_interval": 30, "operator_secrets_interval": 30}
    try:
        await resources.relay(database)
        await resources.apply("SigningKey", "out", {"algorithm": "HMAC-SHA256", "source": "Generate"})
        began = time.monotonic()
        await _declare(client, endpoints, own_keys)
        figures: dict[str, Any] = {"endpoints": endpoints, "own_keys": own_keys, "declared_s": _since(began)}

        began = time.monotonic()
        process = operator.start(**intervals)
        figures["all_loaded_s"] = await _until(began, lambda: _loaded(postgres.url, endpoints))
        figures["all_ready_s"] = await _until(began, lambda: _ready(process, endpoints))
        figures["writes_until_ready"] = _writes(proxy)
        figures |= await _rest(process, proxy, "at_rest")

        began = time.monotonic()
        await resources.endpoint("one-more")
        figures["one_more_ready_s"] = await _until(began, lambda: _ready(process, endpoints + 1))

        process.process.terminate()
        await asyncio.to_thread(process.process.wait, 60)
        proxy.passed.clear()
        began = time.monotonic()
        process = operator.start(**intervals)
        figures["restart_reconciled_s"] = await _until(began, lambda: _reconciled(process))
        figures["writes_after_restart"] = len(proxy.writes)
        figures |= await _rest(process, proxy, "after_restart")
        return figures
    finally:
        await asyncio.to_thread(operator.stop)  # it still talks to the proxy, which lives in this loop
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)


async def _declare(client: Any, endpoints: int, own_keys: bool) -> None:
    reference = {} if own_keys else {"signingKeyRef": {"name": "out"}}
    slots = asyncio.Semaphore(16)

    async def declare(number: int) -> None:
        url = f"https://customer-{number}.example.com/hooks"
        async with slots:
            await client.create(
                ENDPOINT,
                NAMESPACE,
                {
                    "apiVersion": GROUP_VERSION,
                    "kind": "WebhookEndpoint",
                    "metadata": {"name": f"endpoint-{number:05}", "namespace": NAMESPACE},
                    "spec": {
                        "verification": {"none": {}},
                        "destinations": [{"name": "billing", "url": url, **reference}],
                    },
                },
            )

    await asyncio.gather(*(declare(number) for number in range(endpoints)))


async def _loaded(url: str, endpoints: int) -> bool:
    connection = await asyncpg.connect(url, server_settings={"search_path": "kapsel"})
    try:
        return bool(await connection.fetchval("SELECT count(*) FROM endpoints") == endpoints)
    finally:
        await connection.close()


async def _ready(process: Any, endpoints: int) -> bool:
    metrics = await process.metrics()
    return bool(metrics.get('operator_resources{kind="WebhookEndpoint",ready="True"}') == endpoints)


async def _reconciled(process: Any) -> bool:
    metrics = await process.metrics()
    return any("reconciles_total" in name and 'kind="Relay"' in name and value >= 1 for name, value in metrics.items())


async def _rest(process: Any, proxy: FaultyProxy, when: str) -> dict[str, Any]:
    """Measure an operator that has nothing to do."""
    await asyncio.sleep(REST / 4)  # so that what was under way is done
    proxy.passed.clear()
    measured = psutil.Process(process.process.pid)
    before, began = measured.cpu_times(), time.monotonic()
    await asyncio.sleep(REST)
    after, seconds = measured.cpu_times(), time.monotonic() - began
    used = after.user + after.system - before.user - before.system
    return {
        f"rss_mib_{when}": measured.memory_info().rss >> 20,
        f"cpu_percent_{when}": round(100 * used / seconds, 2),
        f"writes_{when}": len(proxy.writes),
        f"requests_per_minute_{when}": round(len(proxy.passed) * 60 / seconds),
    }


def _writes(proxy: FaultyProxy) -> dict[str, int]:
    counted = Counter(f"{one.method} {_what(one.path)}" for one in proxy.writes)
    return dict(counted.most_common())


def _what(path: str) -> str:
    parts = path.partition("?")[0].split("/")
    kind = parts[parts.index("namespaces") + 2] if "namespaces" in parts else parts[-1]
    return f"{kind}/status" if parts[-1] == "status" else kind


async def _until(began: float, condition: Any) -> float:
    async with asyncio.timeout(900):
        while not await condition():  # noqa: ASYNC110 - what is waited for is in another process
            await asyncio.sleep(0.5)
    return _since(began)


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)


def main() -> None:
    """Measure, print, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--endpoints", type=int, default=5000)
    parser.add_argument("--own-keys", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kapsel-scale-") as directory:
        figures = asyncio.run(measure(arguments.endpoints, arguments.own_keys, Path(directory)))
    text = json.dumps(figures, indent=2)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "scale.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
