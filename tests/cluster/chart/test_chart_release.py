"""The life of a release on a real API server: installed twice, upgraded, rolled back, uninstalled, and what stays."""

import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chart import CHART, ROOT
from onenode.errors import ClusterError

from .conftest import Releases

KINDS = {f"{path.stem}.kapsel.dev" for path in (ROOT / "crds").glob("*.yaml")}
POLICY = {
    "apiVersion": "kapsel.dev/v1alpha1",
    "kind": "RetryPolicy",
    "metadata": {"name": "patient", "namespace": "shop"},
    "spec": {"maxAttempts": 3},
}


def wait_until(is_so: Callable[[], bool], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)


def deployment(releases: Releases) -> Any:
    return releases.cluster.get("deployment", "kapsel", "-n", "kapsel-system")


def test_a_release_lives_and_dies_without_taking_what_people_declared(
    releases: Releases, namespaces: Callable[..., None]
) -> None:
    """One story, for each step needs the one before it."""
    namespaces("kapsel-system", "shop")

    releases.install("kapsel-system")
    assert releases.names("crd") >= KINDS
    releases.cluster.kubectl("wait", "--for=condition=Established", *(f"crd/{name}" for name in KINDS))
    wait_until(lambda: len(releases.names("pods", "-n", "kapsel-system")) == 2, "a restricted namespace has the pods")
    releases.cluster.apply(POLICY)
    uid = releases.cluster.get("retrypolicy", "patient", "-n", "shop")["metadata"]["uid"]  # type: ignore[index]

    first = deployment(releases)["metadata"]["generation"]
    releases.install("kapsel-system")
    assert deployment(releases)["metadata"]["generation"] == first, "installing it twice changes nothing"

    releases.install("kapsel-system", "--set", "replicas=3,operator.workers=8")
    assert deployment(releases)["spec"]["replicas"] == 3
    releases.run("rollback", "kapsel", "1", "--namespace", "kapsel-system")
    assert deployment(releases)["spec"]["replicas"] == 2

    releases.run("uninstall", "kapsel", "--namespace", "kapsel-system", "--wait", "--timeout", "300s")
    assert releases.names("crd") >= KINDS
    kept = releases.cluster.get("retrypolicy", "patient", "-n", "shop")
    assert kept["metadata"]["uid"] == uid  # type: ignore[index]
    left = "deployments,services,serviceaccounts,roles,rolebindings,networkpolicies,poddisruptionbudgets"
    selector = "app.kubernetes.io/instance=kapsel"
    assert releases.names(left, "-A", "-l", selector) == set()
    assert releases.names("clusterroles,clusterrolebindings", "-l", selector) == set()

    releases.install("kapsel-system")  # takes the definitions up again
    assert deployment(releases)["spec"]["replicas"] == 2
    releases.run("uninstall", "kapsel", "--namespace", "kapsel-system")

    releases.cluster.kubectl("delete", "namespace", "shop", "kapsel-system", "--wait=false")
    wait_until(
        lambda: not {"shop", "kapsel-system"} & releases.names("namespaces"),
        "namespaces go after the operator, for nothing has a finalizer",
        seconds=400,
    )


def test_definitions_go_with_the_release_when_that_is_asked_for(
    releases: Releases, namespaces: Callable[..., None]
) -> None:
    namespaces("kapsel-system")
    releases.install("kapsel-system", "--set", "crds.keep=false")
    releases.run("uninstall", "kapsel", "--namespace", "kapsel-system", "--wait")
    wait_until(lambda: not KINDS & releases.names("crd"), "the definitions are gone")


def test_an_upgrade_brings_the_definitions_up_to_date_and_a_rollback_brings_them_back(
    releases: Releases, namespaces: Callable[..., None], tmp_path: Path
) -> None:
    """Helm's own directory crds/ would have left them as they were."""
    newer = tmp_path / "kapsel"
    shutil.copytree(CHART, newer)
    definition = newer / "files/crds/retrypolicies.yaml"
    definition.write_text(definition.read_text().replace("    categories:\n", "    categories:\n    - newer\n"))

    def categories() -> list[str]:
        crd: Any = releases.cluster.get("crd", "retrypolicies.kapsel.dev")
        return list(crd["spec"]["names"]["categories"])

    namespaces("kapsel-system")
    releases.install("kapsel-system", "--set", "crds.keep=false")
    assert categories() == ["kapsel"]
    releases.install("kapsel-system", "--set", "crds.keep=false", chart=newer)
    assert categories() == ["newer", "kapsel"]
    releases.run("rollback", "kapsel", "--namespace", "kapsel-system")
    assert categories() == ["kapsel"]
    releases.run("uninstall", "kapsel", "--namespace", "kapsel-system", "--wait")


def test_a_second_release_leaves_the_definitions_to_the_first(
    releases: Releases, namespaces: Callable[..., None]
) -> None:
    namespaces("one", "two")
    releases.install("one")
    with pytest.raises(ClusterError, match="cannot be imported into the current release"):
        releases.install("two")
    releases.install("two", "--set", "crds.enabled=false,watchNamespaces={two}")
    releases.run("uninstall", "kapsel", "--namespace", "two")
    assert releases.names("crd") >= KINDS
    releases.run("uninstall", "kapsel", "--namespace", "one")


def test_an_operator_of_all_namespaces_may_read_a_secret_by_name_and_list_none(
    releases: Releases, namespaces: Callable[..., None]
) -> None:
    namespaces("rights", "shop")
    releases.install("rights", "--set", "crds.enabled=false")
    account = "system:serviceaccount:rights:kapsel"
    wait_until(lambda: releases.may(account, "get", "secrets", "shop"), "its rights are known")
    assert not releases.may(account, "list", "secrets", "shop")
    assert not releases.may(account, "watch", "secrets", "shop")
    assert not releases.may(account, "create", "pods", "shop")
    assert not releases.may(account, "update", "relays", "shop")
    assert not releases.may(account, "create", "clusterroles", "shop")
    releases.run("uninstall", "kapsel", "--namespace", "rights")


def test_an_operator_of_some_namespaces_has_no_right_in_the_others(
    releases: Releases, namespaces: Callable[..., None]
) -> None:
    namespaces("rights", "shop", "stage")
    releases.install("rights", "--set", "crds.enabled=false,watchNamespaces={shop}")
    account = "system:serviceaccount:rights:kapsel"
    for verb, what in (("get", "secrets"), ("create", "deployments.apps"), ("list", "relays.kapsel.dev")):
        wait_until(lambda verb=verb, what=what: releases.may(account, verb, what, "shop"), "its rights are known")
        assert not releases.may(account, verb, what, "stage")
        assert not releases.may(account, verb, what, "rights")
    for verb, what, where in (("update", "leases.coordination.k8s.io", "rights"), ("list", "namespaces", "")):
        wait_until(
            lambda verb=verb, what=what, where=where: releases.may(account, verb, what, where), "its rights are known"
        )
    releases.run("uninstall", "kapsel", "--namespace", "rights")


def test_the_test_of_the_release_may_touch_its_own_objects_and_no_secret_of_others(
    releases: Releases, namespaces: Callable[..., None]
) -> None:
    namespaces("kapsel-system", "shop")
    command = ("template", "kapsel", CHART, "--namespace", "kapsel-system", "--kube-version", "1.34.0")
    rendered = releases.run(*command, "--show-only", "templates/tests/smoke.yaml")
    releases.cluster.kubectl("apply", "-f", "-", input=rendered)
    account = "system:serviceaccount:kapsel-system:kapsel-smoke"
    for verb, name in (("create", ""), ("delete", "kapsel-smoke")):
        wait_until(
            lambda verb=verb, name=name: releases.may(account, verb, "relays.kapsel.dev", "kapsel-system", name),
            "its rights are known",
        )
    assert not releases.may(account, "delete", "relays.kapsel.dev", "kapsel-system", "main")
    assert releases.may(account, "get", "secrets", "kapsel-system", "kapsel-smoke-console-token")
    assert not releases.may(account, "get", "secrets", "kapsel-system", "kapsel")
    assert not releases.may(account, "list", "secrets", "kapsel-system")
    assert not releases.may(account, "create", "relays.kapsel.dev", "shop")
    pod: Any = releases.cluster.get("pod", "kapsel-smoke", "-n", "kapsel-system")
    assert pod["spec"]["restartPolicy"] == "Never", "a restricted namespace takes the pod"


def test_those_who_view_edit_and_administer_a_namespace_get_their_share(
    releases: Releases, namespaces: Callable[..., None]
) -> None:
    namespaces("kapsel-system", "shop")
    releases.install("kapsel-system", "--set", "crds.enabled=false")
    for role in ("view", "edit", "admin"):
        releases.cluster.apply(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "RoleBinding",
                "metadata": {"name": role, "namespace": "shop"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": f"{role}-user"}],
            }
        )
    allowed = {
        "view": {"list": {"relays", "webhookendpoints"}, "create": set()},
        "edit": {"list": {"relays", "webhookendpoints"}, "create": {"webhookendpoints"}},
        "admin": {"list": {"relays", "webhookendpoints"}, "create": {"relays", "webhookendpoints"}},
    }
    for role, verbs in allowed.items():
        may = partial(releases.may, f"{role}-user", namespace="shop")
        for verb, kinds in verbs.items():
            for kind in kinds:  # each role is aggregated and bound at a moment of its own
                wait_until(lambda may=may, verb=verb, kind=kind: may(verb, f"{kind}.kapsel.dev"), f"{role} may {verb}")
            for kind in {"relays", "webhookendpoints"} - kinds:
                assert not may(verb, f"{kind}.kapsel.dev"), (role, verb)
        status = releases.cluster.kubectl(
            *("auth", "can-i", "patch", "attestationlogs.kapsel.dev", "--subresource=status"),
            *("--namespace=shop", f"--as={role}-user"),
            check=False,
        )
        assert status.strip().endswith("no"), f"{role} may not write the fence of a log"
    releases.run("uninstall", "kapsel", "--namespace", "kapsel-system")


def test_the_plain_manifest_does_the_same_without_helm(releases: Releases) -> None:
    files = ("-f", ROOT / "crds", "-f", ROOT / "deploy/kapsel.yaml")
    releases.cluster.kubectl("delete", "namespace", "kapsel-system", "--ignore-not-found")
    releases.cluster.kubectl("apply", "--server-side", "--force-conflicts", *files)
    wait_until(lambda: len(releases.names("pods", "-n", "kapsel-system")) == 2, "the pods are made")
    before = json.dumps(deployment(releases)["spec"], sort_keys=True)
    releases.cluster.kubectl("apply", "--server-side", *files)
    assert json.dumps(deployment(releases)["spec"], sort_keys=True) == before
    releases.cluster.kubectl("delete", "-f", ROOT / "deploy/kapsel.yaml")
    assert releases.names("crd") >= KINDS
