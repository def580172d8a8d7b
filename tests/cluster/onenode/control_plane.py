"""A control plane: etcd, kube-apiserver and kube-controller-manager, as many on a machine as one likes.

Started by the fixtures of tests/cluster, one a session, on 127.0.0.1 with ports the kernel picks; and by the node,
which needs one at an address that its pods reach. What runs nowhere here is a kubelet: pods stay Pending.
"""

import json
import socket
import ssl
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from onenode import pki
from onenode.binaries import program
from onenode.errors import ClusterError
from onenode.processes import Processes

SERVICE_CIDR: Final = "10.96.0.0/16"
SERVICE_IP: Final = "10.96.0.1"  # of the Service `kubernetes`, the first of the range
LOOPBACK: Final = "127.0.0.1"
TRIES: Final = 3  # between picking a port and listening on it, somebody else may take it

USERS: Final = {  # and the group of each
    "admin": "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
    "system:node:node": "system:nodes",
    "system:kube-proxy": "system:node-proxier",
    "coredns": "system:masters",
}
# Who wrote what, for tests that count writes: a line each, without bodies. What Kubernetes does by itself is left out.
AUDIT: Final = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
        {"level": "None", "users": ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]},
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster that runs, whoever started it."""

    kubeconfig: Path
    kubectl_path: Path
    audit_log: Path | None = None  # one JSON object a line for each write; only of a control plane started here

    def kubectl(self, *arguments: object, input: str | None = None, check: bool = True) -> str:  # noqa: A002 - as subprocess
        """Run kubectl and return what it printed; its complaint is the error, or with check=False the answer."""
        command = [str(self.kubectl_path), "--kubeconfig", str(self.kubeconfig), *map(str, arguments)]
        done = subprocess.run(command, input=input, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise ClusterError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout if done.returncode == 0 else done.stdout + done.stderr

    def get(self, *arguments: object) -> dict[str, object]:
        """Return an object, or a List of them, as `kubectl get ... -o json` prints it."""
        answer: dict[str, object] = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return answer

    def apply(self, *manifests: object) -> None:
        """Apply these objects by server-side apply, as a person would."""
        text = json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=text)


class ControlPlane:
    """One control plane, its state in `state` and everything of it on `address`."""

    def __init__(self, state: Path, processes: Processes, *, address: str = LOOPBACK, port: int = 0) -> None:
        self.state = state
        self._processes = processes
        self._address = address
        self._port = port
        self._pki = state / "pki"
        self.cluster = Cluster(
            kubeconfig=state / "kubeconfig", kubectl_path=program("kubectl"), audit_log=state / "logs" / "audit.log"
        )

    def start(self) -> None:
        """Start everything and return once the API answers."""
        self.state.mkdir(parents=True, exist_ok=True)
        pki.certificates(self._pki, [self._address, SERVICE_IP, LOOPBACK])
        tokens = pki.tokens(self._pki, USERS)
        for attempt in range(1, TRIES + 1):
            try:
                etcd = self._start_etcd()
                server = self._start_server(etcd)
                break
            except ClusterError:
                self.stop()
                if attempt == TRIES:
                    raise
        for user, token in tokens.items():
            pki.kubeconfig(self.user(user), server=server, ca=self._pki / "ca.crt", user=user, token=token)
        self._start_controllers()

    def stop(self) -> None:
        """Stop everything; the state stays."""
        for name in ("kube-controller-manager", "kube-apiserver", "etcd"):
            self._processes.stop(name)

    def user(self, name: str) -> Path:
        """Return the kubeconfig of one of the users."""
        return self.cluster.kubeconfig if name == "admin" else self.state / f"{name.replace(':', '-')}.kubeconfig"

    def _start_etcd(self) -> str:
        client, peer = (f"http://{LOOPBACK}:{free_port()}" for _ in range(2))
        listen = [f"--listen-client-urls={client}", f"--listen-peer-urls={peer}"]
        advertise = [f"--advertise-client-urls={client}", f"--initial-advertise-peer-urls={peer}"]
        # The cluster lives no longer than the machine is up, so nothing need reach the disk.
        storage = [f"--data-dir={self.state / 'etcd'}", "--unsafe-no-fsync", f"--initial-cluster=default={peer}"]
        self._processes.spawn("etcd", *listen, *advertise, *storage)
        self._processes.wait("etcd", lambda: urllib.request.urlopen(f"{client}/health", timeout=2).status == 200)
        return client

    def _start_server(self, etcd: str) -> str:
        port = self._port or free_port(self._address)
        policy = self.state / "audit.json"
        policy.write_text(json.dumps(AUDIT))
        pki_files, service_account = self._pki, self._pki / "sa.key"
        # A Service cannot lead to a loopback address, and without nodes nobody asks for it.
        reconciler = ["--endpoint-reconciler-type=none"] if self._address == LOOPBACK else []
        self._processes.spawn(
            "kube-apiserver",
            *(f"--etcd-servers={etcd}", f"--secure-port={port}", *reconciler),
            *(f"--bind-address={self._address}", f"--advertise-address={self._address}"),
            *(f"--tls-cert-file={pki_files}/api.crt", f"--tls-private-key-file={pki_files}/api.key"),
            *(f"--client-ca-file={pki_files}/ca.crt", f"--token-auth-file={pki_files}/tokens.csv"),
            *("--authorization-mode=Node,RBAC", "--allow-privileged=true", f"--cert-dir={self._pki}"),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            *(f"--service-account-key-file={service_account}", f"--service-account-signing-key-file={service_account}"),
            *(f"--service-cluster-ip-range={SERVICE_CIDR}", "--enable-admission-plugins=NodeRestriction"),
            *(f"--audit-policy-file={policy}", f"--audit-log-path={self.cluster.audit_log}"),
            "--kubelet-preferred-address-types=InternalIP",
        )
        url = f"https://{self._address}:{port}"
        trust = ssl.create_default_context(cafile=str(self._pki / "ca.crt"))
        ready = f"{url}/readyz"
        self._processes.wait(
            "kube-apiserver", lambda: urllib.request.urlopen(ready, context=trust, timeout=2).status == 200
        )
        return url

    def _start_controllers(self) -> None:
        self._processes.spawn(
            "kube-controller-manager",
            f"--kubeconfig={self.user('system:kube-controller-manager')}",
            *(f"--root-ca-file={self._pki}/ca.crt", f"--service-account-private-key-file={self._pki}/sa.key"),
            *("--use-service-account-credentials=true", "--leader-elect=false"),
            *(f"--cluster-signing-cert-file={self._pki}/ca.crt", f"--cluster-signing-key-file={self._pki}/ca.key"),
            "--secure-port=0",
        )


def free_port(address: str = LOOPBACK) -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])
