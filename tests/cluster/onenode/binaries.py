"""The programs a cluster is made of: Debian's packages, and Go programs built once into a cache.

Called by everything that starts a process. What is built is pinned by the modules under tools/; a binary that is in the
cache is taken as it is.
"""

import fcntl
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from onenode.errors import ClusterError

TOOLS: Final = Path(__file__).resolve().parent.parent / "tools"
CACHE: Final = Path(os.environ.get("KAPSEL_CLUSTER_CACHE", Path.home() / ".cache/kapsel-cluster"))
BIN: Final = CACHE / "bin"
KUBERNETES: Final = "v1.34.4"
PATH: Final = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # where Debian keeps what only root runs

CONTROL_PLANE: Final = ("kube-apiserver", "kube-controller-manager", "kubectl")
# The directory of a module under tools/, and the programs it makes with the package of each.
MODULES: Final = {
    "kube": {
        name: f"k8s.io/kubernetes/cmd/{name}" for name in (*CONTROL_PLANE, "kube-scheduler", "kube-proxy", "kubelet")
    },
    "coredns": {"coredns": "github.com/coredns/coredns"},
    "helm": {"helm": "helm.sh/helm/v3/cmd/helm"},
    "helm-unittest": {"helm-unittest": "github.com/helm-unittest/helm-unittest/cmd/helm-unittest"},
    "promtool": {"promtool": "github.com/prometheus/prometheus/cmd/promtool"},
}
# Rules are judged without a network: leaving out how Prometheus finds targets in clouds halves that build.
TAGS: Final = {"promtool": "remove_all_sd"}
GO_REMEDY: Final = "Install Go (https://go.dev/dl) and run tests/cluster/cluster build once"

# A program that tells whether its package is there, and the packages.
CONTROL_PLANE_PACKAGES: Final = {"etcd": "etcd-server", "openssl": "openssl", "setpriv": "util-linux"}
NODE_PACKAGES: Final = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "gcc": "gcc libc6-dev",
}
IMAGE_PACKAGES: Final = {"buildah": "buildah", "debootstrap": "debootstrap"}


def program(name: str) -> Path:
    """Return where a program is: in the cache, or on the machine."""
    cached = BIN / name
    if cached.exists():
        return cached
    found = shutil.which(name, path=PATH)
    if found is None:
        raise ClusterError(f"{name} is not installed: {GO_REMEDY}")
    return Path(found)


def missing(names: tuple[str, ...]) -> list[str]:
    """Return which of these programs are neither in the cache nor on the machine."""
    return [name for name in names if not (BIN / name).exists() and shutil.which(name, path=PATH) is None]


def install(packages: dict[str, str]) -> None:
    """Install Debian's packages for those programs that are not there."""
    absent = [package for name, package in packages.items() if shutil.which(name, path=PATH) is None]
    if not absent:
        return
    names = " ".join(absent).split()
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise ClusterError(f"install {', '.join(names)} first: only root can, and only on Debian does this command")
    quiet = {"stdout": subprocess.DEVNULL, "env": os.environ | {"DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *names], check=True, **quiet)  # type: ignore[call-overload]


def build(modules: tuple[str, ...] = tuple(MODULES)) -> None:
    """Build what the cache lacks of these modules; one build at a time, however many ask."""
    with _lock():
        for module in modules:
            absent = [name for name in MODULES[module] if not (BIN / name).exists()]
            if absent:
                print(f"building {', '.join(absent)} (once)", file=sys.stderr)
                _build(module, absent)


def _build(module: str, names: list[str]) -> None:
    if shutil.which("go") is None:
        raise ClusterError(f"{', '.join(names)} must be built. {GO_REMEDY}")
    flags = "-s -w"
    if module == "kube":
        version = ("k8s.io/component-base/version.gitVersion", "k8s.io/client-go/pkg/version.gitVersion")
        flags += "".join(f" -X {variable}={KUBERNETES}" for variable in version)
    packages = [MODULES[module][name] for name in names]
    # Built aside and renamed: a build that was interrupted leaves nothing that looks finished.
    unfinished = CACHE / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    how = ["-trimpath", "-tags", TAGS.get(module, ""), "-ldflags", flags]
    command = ["go", "build", *how, "-o", f"{unfinished}/", *packages]
    subprocess.run(command, check=True, cwd=TOOLS / module, env=os.environ | {"CGO_ENABLED": "0"})
    for made in unfinished.iterdir():
        made.rename(BIN / made.name)
    unfinished.rmdir()


@contextmanager
def _lock() -> Iterator[None]:
    BIN.mkdir(parents=True, exist_ok=True)
    with (CACHE / "build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def architecture() -> str:
    """Return this machine's architecture as image manifests name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
