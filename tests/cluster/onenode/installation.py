"""kapsel on a cluster as a user installs it: the image, the chart, and examples/quickstart.

Called by the command tests/cluster/cluster and by the fixtures of tests/cluster/node. It is what docs/install.md tells,
on whichever cluster it is given.
"""

import re
import subprocess
from pathlib import Path
from typing import Final

from onenode.binaries import program
from onenode.control_plane import Cluster
from onenode.errors import ClusterError

ROOT: Final = Path(__file__).resolve().parents[3]
REPOSITORY: Final = "localhost/kapsel"
NAMESPACE: Final = "kapsel-system"
RELEASE: Final = "kapsel"
EXAMPLE: Final = ROOT / "examples" / "quickstart"
INSTALL_SECONDS: Final = 180
READY_SECONDS: Final = 300


def version() -> str:
    """Return the version of this checkout, which is the tag of its image."""
    found = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    if found is None:
        raise ClusterError("pyproject.toml names no version")
    return found[1]


def image() -> str:
    """Return the name of the image of this checkout."""
    return f"{REPOSITORY}:{version()}"


def install(cluster: Cluster, *values: str) -> None:
    """Install the chart, or bring an installed one up to date, and wait until the operator is ready."""
    settings = [f"--set={value}" for value in values]
    where = ("--namespace", NAMESPACE, "--create-namespace")
    wait = ("--wait", "--timeout", f"{INSTALL_SECONDS}s")
    helm(cluster, "upgrade", "--install", RELEASE, ROOT / "charts" / "kapsel", *where, *wait, *settings)


def quickstart(cluster: Cluster) -> None:
    """Apply examples/quickstart as it is, and wait until its Relay is ready."""
    cluster.kubectl("apply", "-f", EXAMPLE)
    ready = ("--for=condition=Ready", f"--timeout={READY_SECONDS}s")
    cluster.kubectl("wait", *ready, "relay/main", "-n", "shop")
    cluster.kubectl("wait", *ready, "webhookendpoint", "--all", "-n", "shop")


def helm(cluster: Cluster, *arguments: object) -> str:
    """Run helm and return what it printed."""
    command = [str(program("helm")), "--kubeconfig", str(cluster.kubeconfig), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"helm {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
