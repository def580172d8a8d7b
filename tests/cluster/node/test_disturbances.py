"""Things go wrong while webhooks flow, and afterwards every one of them is accounted for.

One Relay serves all of these tests, and its account is of everything since its beginning. The destination is this
process, so these run where pods reach it: on the node of this machine.
"""

import asyncio
import base64
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
import pytest_asyncio
from onenode import installation
from onenode import node as machine
from onenode.control_plane import Cluster
from traffic import manifests
from traffic.accounts import account, settled
from traffic.destination import Destination
from traffic.producer import Producer

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS = 300
NAMESPACE = "busy"
DEPLOYMENTS = ("receiver", "deliverer", "console")
SMALL = {"requests": {"cpu": "10m", "memory": "64Mi"}}  # there is one node, and all of it must fit
RELAY = {
    "database": {"embedded": {}},
    "egress": {"allowedCIDRs": [f"{machine.NODE_IP}/32"], "allowHTTP": True},
    **{component: {"resources": SMALL} for component in (*DEPLOYMENTS, "attestor")},
}


@dataclass(kw_only=True)
class Busy:
    """A Relay under load."""

    cluster: Cluster
    producer: Producer
    destination: Destination

    async def kubectl(self, *arguments: str) -> str:
        return await asyncio.to_thread(self.cluster.kubectl, *arguments, "-n", NAMESPACE)

    async def pods(self, component: str) -> list[dict[str, Any]]:
        """Return the pods of a component that are not on their way out."""
        label = f"app.kubernetes.io/component={component}"
        found = json.loads(await self.kubectl("get", "pods", "-l", label, "-o", "json"))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    async def rolled_out(self) -> None:
        for component in DEPLOYMENTS:
            await self.kubectl("rollout", "status", f"deployment/main-{component}", f"--timeout={SECONDS}s")

    async def more(self, count: int = 100) -> None:
        """Wait until so many more webhooks were accepted."""
        enough = len(self.producer.accepted) + count
        async with asyncio.timeout(SECONDS):
            while len(self.producer.accepted) < enough:
                await asyncio.sleep(0.05)

    async def accounted(self) -> None:
        """Wait until everything has ended, and hold it against what was accepted."""
        connection = await self.connection()
        try:
            await settled(connection)
            await account(connection, self.producer.accepted, self.destination)
        finally:
            await connection.close()

    async def connection(self) -> asyncpg.Connection:
        encoded = await self.kubectl("get", "secret", "main-postgres", "-o", "jsonpath={.data.uri}")
        url = urlsplit(base64.b64decode(encoded).decode())
        async with asyncio.timeout(SECONDS):
            while True:
                with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    address = await self.kubectl("get", "pod", "main-postgres-0", "-o", "jsonpath={.status.podIP}")
                    there = url._replace(netloc=f"{url.username}:{url.password}@{address}:{url.port}").geturl()
                    return await asyncpg.connect(there, server_settings={"search_path": "kapsel"}, timeout=5)
                await asyncio.sleep(0.2)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def busy(kapsel: Cluster, on_this_machine: bool) -> AsyncIterator[Busy]:
    if not on_this_machine:
        pytest.skip("pods of this cluster do not reach the destination in this process: run `make e2e`")
    destination = Destination(machine.NODE_IP)
    await destination.start()
    kapsel.kubectl("create", "namespace", NAMESPACE)
    kapsel.apply(*manifests(NAMESPACE, destination.url, RELAY))
    wait = ("wait", "--for=condition=Ready", f"--timeout={SECONDS}s", "-n", NAMESPACE)
    await asyncio.to_thread(kapsel.kubectl, *wait, "relay/main", "webhookendpoint/in")
    address = ("get", "service", "main-receiver", "-n", NAMESPACE, "-o", "jsonpath={.spec.clusterIP}")
    producer = Producer(f"http://{kapsel.kubectl(*address)}/ingest/{NAMESPACE}/in")
    yield Busy(cluster=kapsel, producer=producer, destination=destination)
    kapsel.kubectl("delete", "namespace", NAMESPACE, f"--timeout={SECONDS}s")
    await destination.stop()


async def test_a_rolling_update_refuses_nothing_and_loses_nothing(busy: Busy) -> None:
    before = {pod["metadata"]["uid"] for component in DEPLOYMENTS for pod in await busy.pods(component)}
    changed = {
        name: {"podTemplate": {"metadata": {"annotations": {"example.com/rolled": "1"}}}} for name in DEPLOYMENTS
    }
    async with busy.producer.under_load():
        await busy.more()
        await busy.kubectl("patch", "relay", "main", "--type=merge", "-p", json.dumps({"spec": changed}))
        async with asyncio.timeout(SECONDS):
            while before & {pod["metadata"]["uid"] for name in DEPLOYMENTS for pod in await busy.pods(name)}:
                await asyncio.sleep(0.2)
        await busy.rolled_out()
        await busy.more()
    await busy.accounted()
    # An idle connection may be closed just as the next request sets out: HTTP leaves that to whoever sends it again.
    # What the sender sees of it depends on how far it had come.
    closed = {"ServerDisconnectedError", "ClientOSError", "ClientConnectionResetError"}
    assert set(busy.producer.troubles) <= closed


@pytest.mark.parametrize("component", [*DEPLOYMENTS, "postgres"])
async def test_a_pod_that_is_taken_away_loses_nothing(busy: Busy, component: str) -> None:
    async with busy.producer.under_load():
        await busy.more()
        victim = (await busy.pods(component))[0]["metadata"]
        await busy.kubectl("delete", "pod", victim["name"], "--force", "--grace-period=0")
        await replaced(busy, component, victim["uid"])
        await busy.more()
    await busy.accounted()


@pytest.mark.parametrize("container", [*DEPLOYMENTS, "attestor", "postgres"])
async def test_a_process_that_is_killed_loses_nothing(busy: Busy, container: str) -> None:
    component = "deliverer" if container == "attestor" else container
    async with busy.producer.under_load():
        await busy.more()
        pod = (await busy.pods(component))[0]
        was = restarts(pod, container)
        os.kill(process(pod, container), signal.SIGKILL)
        async with asyncio.timeout(SECONDS):
            while not await back(busy, pod, container, was + 1):
                await asyncio.sleep(0.2)
        await busy.more()
    await busy.accounted()


async def test_the_operator_may_be_gone_and_makes_up_for_it_without_touching_a_pod(busy: Busy) -> None:
    operator = ("scale", "deployment/kapsel", "-n", installation.NAMESPACE)
    before = await identities(busy)
    busy.cluster.kubectl(*operator, "--replicas=0")
    await asyncio.to_thread(
        busy.cluster.kubectl,
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "app.kubernetes.io/component=operator",
        "-A",
        "--timeout=240s",
    )
    try:
        async with busy.producer.under_load():
            await busy.more()
            patch = {"spec": {"maxBodyBytes": 4096}}
            await busy.kubectl("patch", "webhookendpoint", "in", "--type=merge", "-p", json.dumps(patch))
            await busy.more()
        await busy.accounted()
    finally:
        busy.cluster.kubectl(*operator, "--replicas=2")
    observed = "--for=jsonpath={.status.observedGeneration}=2"
    await busy.kubectl("wait", observed, "webhookendpoint/in", f"--timeout={SECONDS}s")
    await busy.kubectl("wait", "--for=condition=Ready", "webhookendpoint/in", f"--timeout={SECONDS}s")
    assert await answer(busy, b" " * 5000) == 413
    assert await identities(busy) == before


async def test_a_secret_that_changes_is_taken_up_without_a_restart(busy: Busy) -> None:
    before = await identities(busy)
    await busy.kubectl("patch", "secret", "in", "-p", json.dumps({"stringData": {"github": "another one"}}))
    renewed = Producer(busy.producer.url, "another one")
    async with asyncio.timeout(180), aiohttp.ClientSession() as session:
        while not renewed.accepted:
            # As long as the old one is in force the answer is 401, which a producer takes for its own fault.
            with suppress(AssertionError):
                await renewed.send(session, len(busy.producer.accepted))
            await asyncio.sleep(0.2)
    busy.producer.accepted |= renewed.accepted
    await busy.accounted()
    assert await identities(busy) == before


async def identities(busy: Busy) -> set[tuple[str, int]]:
    """Return which containers run, and how often each was started anew."""
    pods = [pod for component in (*DEPLOYMENTS, "postgres") for pod in await busy.pods(component)]
    return {(status["containerID"], status["restartCount"]) for pod in pods for status in statuses(pod)}


def statuses(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod["status"].get("initContainerStatuses", ()), *pod["status"].get("containerStatuses", ())]


def restarts(pod: dict[str, Any], container: str) -> int:
    return int(next(status["restartCount"] for status in statuses(pod) if status["name"] == container))


def process(pod: dict[str, Any], container: str) -> int:
    """Return the process id, on this machine, of the first process of a container."""
    identifier = next(status["containerID"] for status in statuses(pod) if status["name"] == container)
    tasks = subprocess.run(machine.ctr("tasks", "ls"), capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in tasks.splitlines()]
    return next(int(row[1]) for row in rows if row[0] == identifier.removeprefix("containerd://"))


async def back(busy: Busy, pod: dict[str, Any], container: str, restarted: int) -> bool:
    component = pod["metadata"]["labels"]["app.kubernetes.io/component"]
    (now,) = [one for one in await busy.pods(component) if one["metadata"]["uid"] == pod["metadata"]["uid"]]
    ready = next(status["ready"] for status in statuses(now) if status["name"] == container)
    return restarts(now, container) >= restarted and ready


async def replaced(busy: Busy, component: str, uid: str) -> None:
    """Wait until a pod is gone and all others of its component are ready."""
    async with asyncio.timeout(SECONDS):
        while True:
            pods = await busy.pods(component)
            if pods and all(pod["metadata"]["uid"] != uid and ready(pod) for pod in pods):
                return
            await asyncio.sleep(0.2)


def ready(pod: dict[str, Any]) -> bool:
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True"


async def answer(busy: Busy, body: bytes) -> int:
    async with aiohttp.ClientSession() as session, session.post(busy.producer.url, data=body) as told:
        return told.status
