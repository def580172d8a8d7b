"""The clusters that tests run on: a control plane a session, a namespace a test.

README.md beside this file says how to get one and what each fixture gives.
"""

import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from kubernetes.aio import client as kubernetes_api
from kubernetes.aio import config as kubernetes_config
from onenode import binaries
from onenode.control_plane import Cluster, ControlPlane
from onenode.processes import Processes

ROOT = Path(__file__).resolve().parents[2]
GIVEN = "KAPSEL_TEST_KUBECONFIG"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the very end what did not run: a green line must not hide it."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "tests/cluster/" in report.nodeid]
    if skipped:
        terminalreporter.section("cluster tests were skipped", sep="!", red=True)
        terminalreporter.line(f"{len(skipped)} tests that need a Kubernetes API server did not run.")
        for reason in sorted({str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)}):
            terminalreporter.line(reason.removeprefix("Skipped: "))


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster of $KAPSEL_TEST_KUBECONFIG, or a control plane of this session's own; it dies with the session."""
    given = os.environ.get(GIVEN)
    if given:
        yield _given(Path(given))
        return
    _get_ready()
    state = tmp_path_factory.mktemp("control-plane")
    control_plane = ControlPlane(state, Processes(state, bound=True))
    try:
        control_plane.start()
        yield control_plane.cluster
    finally:
        control_plane.stop()


@pytest.fixture(scope="session")
def crds(control_plane: Cluster) -> None:
    """The definitions of crds/ are installed and served."""
    files = sorted((ROOT / "crds").glob("*.yaml"))
    assert files, "crds/ is empty: make crds writes it"
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", *(f"--filename={file}" for file in files))
    control_plane.kubectl("wait", "--for=condition=Established", "--timeout=180s", *(f"--filename={f}" for f in files))


@pytest.fixture
def make_namespace(control_plane: Cluster) -> Iterator[Callable[[], str]]:
    """Make fresh namespaces, as many as a test needs; they are deleted after it."""
    made: list[str] = []

    def make() -> str:
        made.append(f"test-{secrets.token_hex(5)}")
        control_plane.kubectl("create", "namespace", made[-1])
        return made[-1]

    yield make
    if made:
        control_plane.kubectl("delete", "namespace", "--wait=false", *made)


@pytest.fixture
def namespace(make_namespace: Callable[[], str]) -> str:
    """A fresh namespace."""
    return make_namespace()


@pytest.fixture
async def api(control_plane: Cluster) -> AsyncIterator[kubernetes_api.ApiClient]:
    """A client of `kubernetes.aio` that may do everything."""
    client = await kubernetes_config.new_client_from_config(config_file=str(control_plane.kubeconfig))
    yield client
    await client.close()


def _given(kubeconfig: Path) -> Cluster:
    kubectl = shutil.which("kubectl") or binaries.BIN / "kubectl"
    return Cluster(kubeconfig=kubeconfig.resolve(), kubectl_path=Path(kubectl))


def _get_ready() -> None:
    """Have all programs of a control plane, or skip and say what is missing and what to do."""
    absent = binaries.missing((*binaries.CONTROL_PLANE, *binaries.CONTROL_PLANE_PACKAGES))
    if not absent:
        return
    if os.environ.get("CI") == "true":
        binaries.install(binaries.CONTROL_PLANE_PACKAGES)
        binaries.build(("kube",))
        return
    pytest.skip(
        f"{', '.join(absent)} not found. Run `tests/cluster/cluster build` once (Linux with Go, about 10 minutes), "
        f"or set {GIVEN} to the kubeconfig of a cluster that tests may change"
    )
