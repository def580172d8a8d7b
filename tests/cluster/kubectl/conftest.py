"""A console as a process on this host, a Service that leads the API server to it, and `kubectl kapsel` as it is run.

There is no kubelet, so the pod is played by a process: a Pod is told to have an address of this machine (no loopback
one, which Kubernetes refuses), for the API server leads to nothing but pods. The database and what is in it are made as
the tests of the console make them.
"""

import asyncio
import importlib.util
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
from onenode.control_plane import Cluster

from kapsel_verifier.note import VerifierKey

DEADLINE = 180.0
TOKEN = "a-token-of-this-test"
RELAY = "main"


def _of_console_tests() -> ModuleType:
    """Return the fixtures of the console's own tests: folders of tests are no packages."""
    path = Path(__file__).parents[2] / "integration" / "console" / "conftest.py"
    spec = importlib.util.spec_from_file_location("console_conftest", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["console_conftest"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


console_tests = _of_console_tests()
world = console_tests.world


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Kubectl:
    """Runs `kubectl kapsel`, which finds the plugin on the PATH."""

    cluster: Cluster
    namespace: str

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start `kubectl kapsel`."""
        return await self._start("kapsel", *arguments, "-n", self.namespace)

    async def __call__(self, *arguments: str) -> Ran:
        """Run `kubectl kapsel` to its end."""
        return await self._ended(await self.start(*arguments))

    async def complete(self, *words: str) -> Ran:
        """Ask kubectl how the last word goes on, as the script of a shell does."""
        return await self._ended(await self._start("__complete", *words))

    async def _start(self, *arguments: str) -> asyncio.subprocess.Process:
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        return await asyncio.create_subprocess_exec(
            str(self.cluster.kubectl_path), *arguments,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PATH": path, "KUBECONFIG": str(self.cluster.kubeconfig)},
        )  # fmt: skip

    async def _ended(self, process: asyncio.subprocess.Process) -> Ran:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE)
        assert process.returncode is not None
        return Ran(process.returncode, out.decode(), err.decode())

    def apply(self, *manifests: dict[str, Any]) -> None:
        for one in manifests:
            one["metadata"]["namespace"] = self.namespace
        self.cluster.apply(*manifests)

    @staticmethod
    def service() -> dict[str, Any]:
        """Return the Service that the operator makes, without a selector: where it leads is written here."""
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"{RELAY}-console"},
            "spec": {"ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }

    def run_pod(self, address: str, port: int) -> None:
        """Have a pod of the console that is ready at an address, to which the Service leads."""
        name = f"{RELAY}-console-1"
        self.cluster.kubectl("wait", "--for=create", "--timeout=120s", "serviceaccount/default", "-n", self.namespace)
        pod = {"containers": [{"name": "console", "image": "none"}]}
        self.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": pod})
        self.report("pod", name, phase="Running", podIP=address, podIPs=[{"ip": address}])
        target = {"kind": "Pod", "name": name, "namespace": self.namespace}
        # Endpoints and not EndpointSlices: that is what the service proxy reads.
        subset = {"addresses": [{"ip": address, "targetRef": target}], "ports": [{"name": "http", "port": port}]}
        metadata = {"name": f"{RELAY}-console"}
        self.apply({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": [subset]})

    @staticmethod
    def secret(name: str, entries: dict[str, str]) -> dict[str, Any]:
        """Return a Secret."""
        return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": entries}

    def report(self, kind: str, name: str, **status: Any) -> None:
        """Write a status, as the operator would."""
        patch = json.dumps({"status": status})
        self.cluster.kubectl(
            "patch", kind, name, "-n", self.namespace, "--subresource=status", "--type=merge", "--patch", patch
        )


@pytest.fixture
def log() -> tuple[str, str]:
    """The origin of the log in the database, and its key."""
    return console_tests.ORIGIN, VerifierKey(console_tests.ORIGIN, bytes(console_tests.SEED.verify_key)).encode()


@pytest.fixture
def kubectl(control_plane: Cluster, crds: None, namespace: str) -> Kubectl:
    """`kubectl kapsel` in a fresh namespace."""
    return Kubectl(control_plane, namespace)


@pytest.fixture
def address(control_plane: Cluster) -> str:
    """An address of this machine that the API server reaches and a pod may have."""
    if control_plane.audit_log is None:
        pytest.skip("the API server of a cluster that was given need not reach a process on this machine")
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family.name == "AF_INET" and not one.address.startswith(("127.", "169.254.")):
                return one.address
    pytest.skip("this machine has no address but 127.0.0.1, and no pod may have that one")


@pytest.fixture
async def console(database, world, address: str, tmp_path: Path) -> AsyncIterator[int]:
    """A console with a token; its port."""
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")} | {
        "KAPSEL_DATABASE_URL": database.url,
        "KAPSEL_DATABASE_SCHEMA": database.schema,
        "KAPSEL_DATABASE_ROLE": "kapsel_console",
        "KAPSEL_SEALING_KEY_FILE": str(database.sealing_key_file),
        "KAPSEL_CONSOLE_HOST": address,
        "KAPSEL_CONSOLE_PORT": "0",
        "KAPSEL_CONSOLE_TOKEN_FILE": str(token),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "kapsel_console", stderr=asyncio.subprocess.PIPE, env=environment
    )
    assert process.stderr is not None
    async with asyncio.timeout(DEADLINE):
        while (record := json.loads(await process.stderr.readline()))["message"] != "answering requests":
            pass
    yield record["port"]
    process.kill()
    await process.communicate()


@pytest.fixture
def relay(kubectl: Kubectl) -> str:
    """A Relay that no operator has looked at."""
    kubectl.apply(
        {"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "metadata": {"name": RELAY},
         "spec": {"database": {"embedded": {}}}}
    )  # fmt: skip
    return RELAY


@pytest.fixture
def exposed(kubectl: Kubectl, relay: str, address: str, console: int) -> Kubectl:
    """`kubectl kapsel` where the Relay's console can be reached through the API server."""
    token = kubectl.secret(f"{relay}-console-token", {"token": TOKEN})
    kubectl.apply(kubectl.service(), token)
    kubectl.run_pod(address, console)
    return kubectl
