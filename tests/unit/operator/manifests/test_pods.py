"""What holds for every pod of a Relay: restricted, without a token, secrets as files, probes, and time for its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kapsel_attestor.settings import AttestorSettings
from kapsel_cli.migration import MigrateSettings
from kapsel_cli.postgres_server import PostgresSettings
from kapsel_cli.run import COMPONENTS
from kapsel_console.settings import ConsoleSettings
from kapsel_deliverer.settings import DelivererSettings
from kapsel_operator.manifests.build import build
from kapsel_operator.manifests.facts import Capability, Database, DirectUrl
from kapsel_receiver.settings import ReceiverSettings
from kapsel_runtime.settings import load

SETTINGS = {
    "receiver": ReceiverSettings,
    "deliverer": DelivererSettings,
    "attestor": AttestorSettings,
    "console": ConsoleSettings,
    "migrate": MigrateSettings,
    "postgres": PostgresSettings,
}


@pytest.fixture(scope="session")
def every_pod(relay: Any, facts: Any) -> dict[str, Any]:
    """The pod template of each component."""
    one = relay({"database": {"embedded": {}}})
    made = [*build(one, facts()), *build(one, facts(schema="Outdated"))]
    found = [manifest for manifest in made if "template" in manifest.get("spec", {})]
    return {one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"] for one in found}


def containers(pods: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for template in pods.values():
        for one in (*template["spec"]["containers"], *template["spec"].get("initContainers", ())):
            yield one["name"], one


def test_every_component_has_pods(every_pod: dict[str, Any]) -> None:
    assert set(every_pod) == {"receiver", "deliverer", "console", "postgres", "migrate"}
    assert {name for name, _ in containers(every_pod)} == set(SETTINGS)


def test_no_pod_gets_a_token_by_itself_and_the_attestor_alone_mounts_one(every_pod: dict[str, Any]) -> None:
    for template in every_pod.values():
        assert template["spec"]["automountServiceAccountToken"] is False
    mounted = {
        name
        for name, one in containers(every_pod)
        for mount in one["volumeMounts"]
        if mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount"
    }
    assert mounted == {"attestor"}


def test_secrets_are_files_of_whole_directories(every_pod: dict[str, Any]) -> None:
    """A variable or a file mounted alone would keep its content until the pod is replaced."""
    for _, one in containers(every_pod):
        assert "envFrom" not in one
        assert all("subPath" not in mount for mount in one["volumeMounts"])
        assert all(set(variable.get("valueFrom", {"fieldRef": 0})) == {"fieldRef"} for variable in one["env"])


def test_what_leads_to_postgres_besides_a_pooler_is_a_file_too(
    relay: Any, facts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the processes read it, the migration included."""
    direct = DirectUrl(secret="pg-app", key="url")
    database = Database(secret="pooler", key="uri", digest="d", direct=direct)
    one = relay({"database": {"secretRef": {"name": "pooler", "directRef": {"name": "pg-app", "key": "url"}}}})
    (tmp_path / "database-url").write_text("postgresql://a@pooler/kapsel")
    (tmp_path / "database-direct-url").write_text("postgresql://a@postgres/kapsel")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    seen = set()
    for schema in ("Current", "Outdated"):
        for made in build(one, facts(database=database, schema=schema)):
            if "template" not in made.get("spec", {}):
                continue
            template = made["spec"]["template"]
            (volume,) = [one for one in template["spec"]["volumes"] if one["name"] == "kapsel-secrets"]
            assert [source["secret"] for source in volume["projected"]["sources"]][:2] == [
                {"name": "pooler", "items": [{"key": "uri", "path": "database-url"}]},
                {"name": "pg-app", "items": [{"key": "url", "path": "database-direct-url"}]},
            ]
            for name, container in containers({"": template}):
                env = {one["name"]: str(one.get("value", "x")) for one in container["env"]}
                there = {key: text.replace("/etc/kapsel", str(tmp_path)) for key, text in env.items()}
                settings = load(SETTINGS[name], there)
                assert (settings.session_url, settings.is_pooled) == ("postgresql://a@postgres/kapsel", True)
                seen.add(name)
    assert seen == {"receiver", "deliverer", "attestor", "console", "migrate"}


def test_every_container_is_restricted(every_pod: dict[str, Any]) -> None:
    for _, one in containers(every_pod):
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert one["securityContext"]["readOnlyRootFilesystem"] is True
        assert one["securityContext"]["allowPrivilegeEscalation"] is False
        assert set(one["resources"]) == {"requests", "limits"}


def test_every_process_takes_the_settings_that_its_container_gives_it(
    every_pod: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process refuses a variable that it does not know, and so would every pod of a release."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")  # as every container of a pod has them
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    (tmp_path / "file").write_text("postgresql://user:password@host/name")
    for name, one in containers(every_pod):
        assert one["args"] == ["run", name]
        assert name in COMPONENTS
        environ = {variable["name"]: variable.get("value", "the-pod") for variable in one["env"]}
        secret = ("KAPSEL_DATABASE_URL_FILE", "KAPSEL_POSTGRES_PASSWORD_FILE")
        load(SETTINGS[name], environ | {key: str(tmp_path / "file") for key in secret if key in environ})


def test_a_pod_has_more_time_for_its_end_than_its_processes_take(every_pod: dict[str, Any]) -> None:
    for component in ("receiver", "deliverer", "console"):
        spec = every_pod[component]["spec"]
        drains = [
            float(variable["value"])
            for one in (*spec["containers"], *spec.get("initContainers", ()))
            for variable in one["env"]
            if variable["name"] == "KAPSEL_DRAIN_TIMEOUT"
        ]
        before = spec["containers"][0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert sum(drains) + before < spec["terminationGracePeriodSeconds"]


def test_the_attestor_cannot_keep_a_delivery_waiting(every_pod: dict[str, Any]) -> None:
    """A startup probe of a native sidecar holds up the deliverer; a readiness probe holds up its rollout."""
    (attestor,) = every_pod["deliverer"]["spec"]["initContainers"]
    assert attestor["restartPolicy"] == "Always"
    assert not {"startupProbe", "readinessProbe"} & set(attestor)


def test_without_a_log_there_is_no_attestor_and_no_token(relay: Any, facts: Any) -> None:
    made = build(relay({"database": {"secretRef": {"name": "database"}}}), facts(log=None))
    deliverer = next(one for one in made if one["kind"] == "Deployment" and one["metadata"]["name"] == "main-deliverer")
    assert "initContainers" not in deliverer["spec"]["template"]["spec"]
    assert not {"Role", "RoleBinding"} & {one["kind"] for one in made}


def test_pods_are_replaced_by_another_database_or_sealing_key_and_by_nothing_else(relay: Any, facts: Any) -> None:
    one = relay({"database": {"secretRef": {"name": "database"}}})

    def templates(**known: Any) -> list[Any]:
        return [m["spec"]["template"] for m in build(one, facts(**known)) if m["kind"] == "Deployment"]

    other = Database(secret="database", key="uri", digest="another", roles=True)
    assert all(old != new for old, new in zip(templates(), templates(database=other), strict=True))
    assert all(old != new for old, new in zip(templates(), templates(sealing_key_digest="another"), strict=True))
    later = templates(owner_uid="another", operator_namespace="another", replicas={"receiver": 9})
    assert templates() == later


def test_openshift_chooses_the_user_of_a_pod_itself(relay: Any, facts: Any) -> None:
    one = relay({"database": {"embedded": {}}})
    for manifest in build(one, facts(capabilities=frozenset({Capability.OPENSHIFT}))):
        if "template" in manifest.get("spec", {}):
            context = manifest["spec"]["template"]["spec"]["securityContext"]
            assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(context)


def test_components_take_their_database_roles_only_where_there_are_such_roles(relay: Any, facts: Any) -> None:
    one = relay({"database": {"secretRef": {"name": "database"}}})

    def roles(*, there: bool) -> set[str]:
        database = Database(secret="database", key="uri", digest="d", roles=there)
        pods = {
            manifest["metadata"]["name"]: manifest["spec"]["template"]
            for manifest in build(one, facts(database=database))
            if manifest["kind"] == "Deployment"
        }
        env = [variable for _, container in containers(pods) for variable in container["env"]]
        return {variable["value"] for variable in env if variable["name"] == "KAPSEL_DATABASE_ROLE"}

    assert roles(there=False) == set()
    assert roles(there=True) == {"kapsel_receiver", "kapsel_deliverer", "kapsel_attestor", "kapsel_console"}
