"""The one node: containerd, kubelet, scheduler, proxy and DNS beside a control plane, all on this machine.

Started by the command tests/cluster/cluster and by the fixtures of tests/cluster/node. It needs root and Linux. Its
network is a bridge without ports, to which its addresses belong, and a pair of virtual interfaces for each pod. It has
no image registry (load images first), no ingress controller, and it enforces no NetworkPolicy.
"""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from onenode import binaries
from onenode.control_plane import Cluster, ControlPlane
from onenode.errors import ClusterError
from onenode.processes import Processes
from onenode.sandbox import PAUSE, pause_image
from onenode.storage import storage

STATE: Final = Path(os.environ.get("KAPSEL_CLUSTER_STATE", "/var/lib/kapsel-cluster"))
KUBECONFIG: Final = STATE / "kubeconfig"
RUN: Final = Path("/run/kapsel-cluster")  # sockets have short paths
NODE_IP: Final = "10.250.0.1"
DNS_IP: Final = "10.96.0.10"
POD_CIDR: Final = "10.244.0.0/24"
PORT: Final = 6443
BRIDGE: Final = "kapsel0"
SOCKET: Final = RUN / "containerd.sock"
DEPENDENTS: Final = ("kube-proxy", "coredns", "kube-scheduler")


class Node:
    """The node of this machine; there can be one, however many ask for it."""

    def __init__(self, *, bound: bool) -> None:
        self._processes = Processes(STATE, bound=bound)
        self._plane = ControlPlane(STATE, self._processes, address=NODE_IP, port=PORT)

    @property
    def cluster(self) -> Cluster:
        """Return how to talk to it."""
        return self._plane.cluster

    @property
    def processes(self) -> Processes:
        """Return its processes."""
        return self._processes

    def start(self) -> None:
        """Start everything; raises ClusterError if a node runs already."""
        _require_root()
        binaries.install(binaries.CONTROL_PLANE_PACKAGES | binaries.NODE_PACKAGES)
        binaries.build()
        lock = self._lock()
        try:
            self._clear()
            self._start(lock)
        except BaseException:
            self._end()  # the logs stay
            raise
        finally:
            os.close(lock)  # etcd holds it from now on

    def stop(self) -> None:
        """Stop everything and leave nothing behind: no process, mount, network or file."""
        _require_root()
        self._end()
        self._clear()

    def _end(self) -> None:
        # No shim is left to forget: containers are killed while containerd can still clear away after them.
        self._processes.stop("kubelet")
        if self._processes.alive("containerd"):
            for container in _lines(*ctr("containers", "ls", "-q")):
                subprocess.run(ctr("tasks", "rm", "--force", container), capture_output=True, check=False)
        for name in DEPENDENTS:
            self._processes.stop(name)
        self._plane.stop()
        self._processes.stop("containerd")

    def _start(self, lock: int) -> None:
        STATE.mkdir(parents=True, exist_ok=True)
        self._network()
        self._processes.hold(lock, by="etcd")
        self._start_containerd()  # it takes a second, which the control plane takes as well
        self._plane.start()
        self._await_containerd()
        self._start_kubelet()
        self._start_rest()
        ready = ("get", "node", "node", "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}")
        self._processes.wait("kubelet", lambda: self.cluster.kubectl(*ready, check=False) == "True", 120)
        self.cluster.apply(*storage(STATE / "volumes"))

    def _lock(self) -> int:
        path = Path("/run/kapsel-cluster.lock")
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise ClusterError(
                "a node runs on this machine already, and there can be one: `tests/cluster/cluster down` ends it"
            ) from None
        return lock

    def _network(self) -> None:
        _ip("link", "add", BRIDGE, "type", "bridge")
        for address in (NODE_IP, DNS_IP):
            _ip("address", "replace", f"{address}/32", "dev", BRIDGE)
        _ip("link", "set", BRIDGE, "up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def _start_containerd(self) -> None:
        network = {
            "cniVersion": "0.4.0",
            "name": "kapsel",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": POD_CIDR}]],
                        "dataDir": str(STATE / "ipam"),
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        }
        _write(STATE / "cni" / "10-ptp.conflist", json.dumps(network))
        configuration = _write(STATE / "containerd.toml", _containerd_toml())
        pause_image()
        self._processes.spawn("containerd", "--config", configuration)

    def _await_containerd(self) -> None:
        version = ctr("version")
        self._processes.wait(
            "containerd", lambda: subprocess.run(version, capture_output=True, check=False).returncode == 0
        )
        load(PAUSE)

    def _start_kubelet(self) -> None:
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "containerRuntimeEndpoint": f"unix://{SOCKET}",
            "failSwapOn": False,
            "failCgroupV1": False,
            "clusterDNS": [DNS_IP],
            "clusterDomain": "cluster.local",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "address": NODE_IP,
            "healthzBindAddress": "127.0.0.1",
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "resolvConf": str(_write(STATE / "resolv.conf", "")),
            "syncFrequency": "10s",
            # They would stay behind; kube-proxy needs none of them.
            "makeIPTablesUtilChains": False,
            "registerNode": True,
        }
        self._processes.spawn(
            "kubelet",
            f"--config={_write(STATE / 'kubelet.json', json.dumps(configuration))}",
            f"--kubeconfig={self._plane.user('system:node:node')}",
            *("--hostname-override=node", f"--node-ip={NODE_IP}", f"--root-dir={STATE / 'kubelet'}"),
        )

    def _start_rest(self) -> None:
        scheduler, proxy = (self._plane.user(f"system:kube-{name}") for name in ("scheduler", "proxy"))
        self._processes.spawn(
            "kube-scheduler", f"--kubeconfig={scheduler}", "--leader-elect=false", "--bind-address=127.0.0.1"
        )
        self._processes.spawn(
            "kube-proxy",
            *(f"--kubeconfig={proxy}", "--proxy-mode=iptables", "--hostname-override=node"),
            *(f"--cluster-cidr={POD_CIDR}", "--conntrack-max-per-core=0"),
        )
        credentials = f"kubeconfig {self._plane.user('coredns')} kapsel"
        zone = f"kubernetes cluster.local in-addr.arpa {{\n{credentials}\npods insecure\n}}"
        self._processes.spawn(
            "coredns", "-conf", _write(STATE / "Corefile", f".:53 {{\nbind {DNS_IP}\nerrors\n{zone}\n}}\n")
        )

    def _clear(self) -> None:
        """Remove what a node leaves on the machine, also one that was killed."""
        _end_shims()
        mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
        for mount in reversed([mount for mount in mounts if mount.startswith((f"{STATE}/", f"{RUN}/"))]):
            subprocess.run(["umount", "-l", mount], check=False)
        for namespace in Path("/run/netns").glob("cni-*"):
            _ip("netns", "delete", namespace.name)
        if (binaries.BIN / "kube-proxy").exists():
            subprocess.run([binaries.BIN / "kube-proxy", "--cleanup"], capture_output=True, check=False)
        # kube-proxy forgets this chain of its own, by which every packet of the machine would go on being tracked.
        for rule in (("-D", "INPUT", "-j"), ("-D", "OUTPUT", "-j"), ("-F",), ("-X",)):
            subprocess.run(["iptables", *rule, "KUBE-FIREWALL"], capture_output=True, check=False)
        _ip("link", "delete", BRIDGE)
        shutil.rmtree(STATE, ignore_errors=True)
        shutil.rmtree(RUN, ignore_errors=True)


def ctr(*arguments: object) -> list[str]:
    """Return the command line of containerd's own client."""
    return ["ctr", "--address", str(SOCKET), "--namespace", "k8s.io", *map(str, arguments)]


def load(archive: Path) -> None:
    """Load an OCI or docker archive into the node."""
    done = subprocess.run(ctr("images", "import", archive), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"{archive} cannot be loaded: {done.stderr.strip() or done.stdout.strip()}")


def _containerd_toml() -> str:
    return f"""version = 2
root = "{STATE}/containerd"
state = "{RUN}/containerd"
[grpc]
  address = "{SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{STATE}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""


def _end_shims() -> None:
    """Kill what containerd of a killed node left running: its shims name the socket, and end their containers."""
    for shim in _ours(Path("/proc").glob("[0-9]*")):
        group = Path(f"/proc/{shim}/task/{shim}/children").read_text().split()
        for pid in (*group, str(shim)):
            subprocess.run(["kill", "-KILL", pid], capture_output=True, check=False)
    deadline = time.monotonic() + 5
    while _ours(Path("/proc").glob("[0-9]*")) and time.monotonic() < deadline:
        time.sleep(0.05)


def _ours(processes: Iterable[Path]) -> list[int]:
    found = []
    for process in processes:
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if command[0].endswith(b"containerd-shim-runc-v2") and str(SOCKET).encode() in command:
            found.append(int(process.name))
    return found


def _ip(*arguments: str) -> None:
    # What is there already, or gone already, is as it should be.
    subprocess.run(["ip", *arguments], capture_output=True, check=False)


def _lines(*command: str) -> list[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError("the node needs root: run it with sudo, or use kind (make e2e-kind)")
