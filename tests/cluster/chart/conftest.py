"""Releases of the chart on a control plane of their own: its definitions belong to Helm, and come and go."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from chart import CHART
from chart_tools import tool
from onenode import binaries
from onenode.control_plane import Cluster, ControlPlane
from onenode.errors import ClusterError
from onenode.processes import Processes


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """Helm on one cluster."""

    helm: Path
    cluster: Cluster

    def run(self, *arguments: object) -> str:
        """Run Helm and return what it printed; its complaint is a ClusterError."""
        command = [self.helm, *arguments, "--kubeconfig", self.cluster.kubeconfig]
        done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise ClusterError(f"helm {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def install(self, namespace: str, *arguments: object, chart: Path = CHART) -> None:
        """Install or upgrade the release `kapsel`; no kubelet runs, so there is nothing to wait for."""
        self.run("upgrade", "--install", "kapsel", chart, "--namespace", namespace, *arguments)

    def may(self, account: str, verb: str, what: str, namespace: str, name: str = "") -> bool:
        """Whether a service account or a user may do something."""
        target = f"{what}/{name}" if name else what
        answer = self.cluster.kubectl(
            "auth", "can-i", verb, target, f"--namespace={namespace}", f"--as={account}", check=False
        )
        return answer.strip().splitlines()[-1] == "yes"

    def names(self, kind: str, *arguments: object) -> set[str]:
        """Return the names of all objects of a kind."""
        listed: Any = json.loads(self.cluster.kubectl("get", kind, "-o", "json", *arguments))
        return {one["metadata"]["name"] for one in listed["items"]}


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    """A fresh control plane, whatever cluster other tests use."""
    helm = tool("helm")
    absent = binaries.missing((*binaries.CONTROL_PLANE, *binaries.CONTROL_PLANE_PACKAGES))
    if absent and os.environ.get("CI") != "true":
        pytest.skip(f"{', '.join(absent)} not found. Run `tests/cluster/cluster build` once")
    if absent:
        binaries.install(binaries.CONTROL_PLANE_PACKAGES)
        binaries.build(("kube",))
    state = tmp_path_factory.mktemp("chart")
    control_plane = ControlPlane(state, Processes(state, bound=True))
    try:
        control_plane.start()
        yield Releases(helm=helm, cluster=control_plane.cluster)
    finally:
        control_plane.stop()


@pytest.fixture
def namespaces(releases: Releases) -> Callable[..., None]:
    """Make namespaces by name, with the labels of a restricted Pod Security."""

    def make(*names: str) -> None:
        for name in names:
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            releases.cluster.apply(
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
            )

    return make
