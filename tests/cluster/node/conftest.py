"""kapsel on a real node: the image built and loaded, the chart installed, and pods that can be broken.

README.md of the folder above says how to run these: they need a node, which needs root, or a cluster that is given and
has the image.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from onenode import binaries, images, installation
from onenode import node as machine
from onenode.control_plane import Cluster

ROOT = Path(__file__).resolve().parents[3]
GIVEN = "KAPSEL_TEST_KUBECONFIG"
WANTED = "KAPSEL_TEST_NODE"


@pytest.fixture(scope="session")
def on_this_machine() -> bool:
    """Whether pods and this process reach each other directly."""
    return os.environ.get(GIVEN, str(machine.KUBECONFIG)) == str(machine.KUBECONFIG)


@pytest.fixture(scope="session")
def node() -> Iterator[Cluster]:
    """A cluster with a node that has the image of this checkout."""
    given = os.environ.get(GIVEN)
    if given:
        yield Cluster(kubeconfig=Path(given).resolve(), kubectl_path=binaries.program("kubectl"))
        return
    if os.environ.get(WANTED) != "1" and os.environ.get("CI") != "true":
        pytest.skip(f"a node needs root and changes the network of this machine: run `make e2e`, or set {GIVEN}")
    started = machine.Node(bound=True)
    started.start()
    try:
        images.build_and_load(installation.image(), ROOT / "Containerfile", ROOT)
        yield started.cluster
    finally:
        started.stop()


@pytest.fixture(scope="session")
def kapsel(node: Cluster) -> Cluster:
    """The cluster, with the chart installed; Secrets are read often, so that tests need not wait."""
    installation.install(node, "operator.secretsInterval=2", "operator.statusInterval=2")
    return node


@pytest.fixture(scope="session")
def quickstart(kapsel: Cluster) -> Cluster:
    """The cluster, with examples/quickstart applied and ready."""
    installation.quickstart(kapsel)
    return kapsel


@pytest.fixture
def reach(node: Cluster, on_this_machine: bool) -> Iterator[Callable[[str, str], str]]:
    """Return the URL of a Service, (namespace, name), for this process."""
    with ExitStack() as stack:

        def url(namespace: str, service: str) -> str:
            if on_this_machine:
                place = "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}"
                return "http://" + node.kubectl("get", "service", service, "-n", namespace, "-o", place)
            command = [node.kubectl_path, "--kubeconfig", node.kubeconfig, "port-forward", "-n", namespace]
            forward = subprocess.Popen([*command, f"service/{service}", ":http"], stdout=subprocess.PIPE, text=True)
            stack.enter_context(forward)
            stack.callback(forward.terminate)
            assert forward.stdout is not None
            found = re.search(r"127\.0\.0\.1:\d+", forward.stdout.readline())
            assert found is not None
            return f"http://{found[0]}"

        yield url
