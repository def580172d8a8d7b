"""The control plane that the other tests stand on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from kubernetes.aio import client as kubernetes_api
from onenode.control_plane import Cluster
from onenode.processes import Processes

CLUSTER = Path(__file__).resolve().parents[1]

STARTER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from onenode.processes import Processes
processes = Processes(Path(sys.argv[2]), bound=True)
processes.spawn("sleep", "600")
print("started", flush=True)
sys.stdin.read()
"""


async def test_a_namespace_is_fresh_and_its_owner_may_do_everything(
    api: kubernetes_api.ApiClient, namespace: str
) -> None:
    core = kubernetes_api.CoreV1Api(api)
    await core.create_namespaced_config_map(namespace, {"metadata": {"name": "one"}, "data": {"a": "b"}})
    found = await core.list_namespaced_config_map(namespace)
    assert "one" in [item.metadata.name for item in found.items]


def test_what_an_owner_leaves_behind_is_collected(control_plane: Cluster, namespace: str) -> None:
    """Tests of owner references need the garbage collector, which is a controller, not the API server."""
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner", "namespace": namespace}}
    control_plane.apply(owner)
    uid = control_plane.kubectl("get", "configmap", "owner", "-n", namespace, "-o", "jsonpath={.metadata.uid}")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    metadata = {"name": "owned", "namespace": namespace, "ownerReferences": [reference]}
    control_plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    control_plane.kubectl("delete", "configmap", "owner", "-n", namespace)
    control_plane.kubectl("wait", "--for=delete", "configmap/owned", "-n", namespace, "--timeout=180s")


def test_the_audit_log_tells_every_write_and_no_read(control_plane: Cluster, namespace: str) -> None:
    if control_plane.audit_log is None:
        pytest.skip("a cluster that was given has an audit log of its own")
    control_plane.kubectl("create", "configmap", "written", "-n", namespace)
    control_plane.kubectl("get", "configmap", "written", "-n", namespace)
    whole = (line for line in control_plane.audit_log.read_text().splitlines(keepends=True) if line.endswith("\n"))
    lines = [json.loads(line) for line in whole]
    ours = [line for line in lines if line["objectRef"].get("name") == "written"]
    assert [(line["verb"], line["user"]["username"]) for line in ours] == [("create", "admin")]


def test_processes_die_with_a_session_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", STARTER, str(CLUSTER), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        assert starter.stdout.readline() == "started\n"
        pid = int((tmp_path / "pids" / "sleep").read_text().split()[0])
        descriptor = os.pidfd_open(pid)
        starter.kill()
    processes = Processes(tmp_path, bound=True)
    deadline = time.monotonic() + 240
    while processes.alive("sleep"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.close(descriptor)


def test_a_record_of_a_process_that_is_gone_hits_no_stranger(tmp_path: Path) -> None:
    """The id of a dead process may by now be another's, here our own."""
    (tmp_path / "pids").mkdir()
    (tmp_path / "pids" / "etcd").write_text(f"{os.getpid()} 1")
    processes = Processes(tmp_path, bound=True)
    assert not processes.alive("etcd")
    processes.stop("etcd", signal.SIGKILL)
