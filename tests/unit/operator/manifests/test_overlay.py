"""podTemplate: what it adds, what it changes, and what is not used and told."""

import re
from pathlib import Path
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
import yaml

from kapsel_operator.manifests.build import build, problems

KEYS = st.sampled_from(
    [
        *("containers", "initContainers", "volumes", "name", "image", "env", "volumeMounts", "mountPath", "command"),
        *("securityContext", "capabilities", "readinessProbe", "httpGet", "periodSeconds", "tolerations"),
        *("topologySpreadConstraints", "topologyKey", "imagePullSecrets", "terminationGracePeriodSeconds", "labels"),
        *("serviceAccountName", "annotations", "app.kubernetes.io/name", "value", "hostNetwork", "resources"),
    ]
)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "receiver", "attestor", "kapsel-secrets"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)


def pods(relay: Any, facts: Any, component: str, template: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the pod template of a component, and what of the podTemplate was not used."""
    one = relay({component: {"podTemplate": template}, "database": {"secretRef": {"name": "database"}}})
    name = f"main-{component}"
    found = next(
        manifest
        for manifest in build(one, facts())
        if manifest["kind"] == "Deployment" and manifest["metadata"]["name"] == name
    )
    told = [problem.field.removeprefix(f"spec.{component}.podTemplate.") for problem in problems(one, facts())]
    return found["spec"]["template"], told


def containers(template: dict[str, Any]) -> dict[str, Any]:
    spec = template["spec"]
    return {one["name"]: one for one in (*spec["containers"], *spec.get("initContainers", ()))}


KEYS_PAGE = Path(__file__).parents[4] / "docs" / "keys-of-a-log.md"
RELAYS = [
    block
    for block in re.findall(r"```yaml\n(.*?)```", KEYS_PAGE.read_text(encoding="utf-8"), re.DOTALL)
    if block.startswith("kind: Relay\n")
]


@pytest.mark.parametrize("block", RELAYS)
def test_the_attestor_gets_what_the_page_about_keys_mounts_for_it(relay: Any, facts: Any, block: str) -> None:
    template = yaml.safe_load(block)["spec"]["deliverer"]["podTemplate"]
    (wanted,) = template["spec"]["initContainers"]
    merged, told = pods(relay, facts, "deliverer", template)
    assert told == []
    attestor = containers(merged)["attestor"]
    for added in ("volumeMounts", "env"):
        assert [one for one in attestor[added] if one in wanted.get(added, [])] == wanted.get(added, [])
    volumes = template["spec"].get("volumes", [])
    assert [volume for volume in merged["spec"]["volumes"] if volume in volumes] == volumes


@hypothesis.given(metadata=json, spec=json)
@hypothesis.settings(deadline=None, max_examples=150)
def test_no_pod_template_at_all_takes_away_what_kapsel_needs(relay: Any, facts: Any, metadata: Any, spec: Any) -> None:
    template = {"metadata": metadata, "spec": spec}
    template = {key: value for key, value in template.items() if isinstance(value, dict)}
    plain, _ = pods(relay, facts, "deliverer", {})
    merged, _ = pods(relay, facts, "deliverer", template)
    for name in ("deliverer", "attestor"):
        ours, theirs = containers(plain)[name], containers(merged)[name]
        for key in ("args", "ports"):
            assert theirs[key] == ours[key]
        for key in ("env", "volumeMounts"):
            assert [one for one in theirs[key] if one in ours[key]] == ours[key]
        assert theirs["livenessProbe"]["httpGet"] == ours["livenessProbe"]["httpGet"]
    for key in ("serviceAccountName", "automountServiceAccountToken", "enableServiceLinks"):
        assert merged["spec"][key] == plain["spec"][key]
    assert merged["spec"]["volumes"][:2] == plain["spec"]["volumes"]
    assert plain["metadata"]["labels"].items() <= merged["metadata"]["labels"].items()
    names = [one["name"] for key in ("containers", "initContainers") for one in merged["spec"][key]]
    assert len(names) == len(set(names))


def test_a_container_without_an_image_gets_kapsels_and_its_restrictions(relay: Any, facts: Any) -> None:
    added = {"spec": {"containers": [{"name": "destination", "args": ["run", "destination"]}]}}
    template, told = pods(relay, facts, "deliverer", added)
    destination, ours = containers(template)["destination"], containers(template)["deliverer"]
    assert told == []
    assert destination["image"] == "localhost/kapsel:0.1.0"
    assert destination["securityContext"] == ours["securityContext"]
    assert "volumeMounts" not in destination


def test_a_container_of_others_is_restricted_and_may_write_to_its_own_root(relay: Any, facts: Any) -> None:
    extra = {"name": "proxy", "image": "example.com/proxy:1", "securityContext": {"runAsUser": 7}}
    template, _ = pods(relay, facts, "receiver", {"spec": {"containers": [extra]}})
    security = containers(template)["proxy"]["securityContext"]
    assert "readOnlyRootFilesystem" not in security
    assert (security["capabilities"], security["runAsUser"]) == ({"drop": ["ALL"]}, 7)


def test_no_other_container_sees_kapsels_secrets_or_the_attestors_token(relay: Any, facts: Any) -> None:
    mounts = [
        {"name": "kapsel-secrets", "mountPath": "/a"},
        {"name": "kapsel-kubernetes-api", "mountPath": "/b"},
        {"name": "own", "mountPath": "/c"},
    ]
    added = {
        "volumes": [{"name": "own", "emptyDir": {}}],
        "containers": [{"name": "spy", "volumeMounts": mounts}, {"name": "deliverer", "volumeMounts": mounts[1:2]}],
    }
    template, told = pods(relay, facts, "deliverer", {"spec": added})
    assert containers(template)["spy"]["volumeMounts"] == [{"name": "own", "mountPath": "/c"}]
    assert told == [
        "spec.containers[0].volumeMounts[0]",
        "spec.containers[0].volumeMounts[1]",
        "spec.containers[1].volumeMounts[0]",
    ]
    with_token = [
        name
        for name, one in containers(template).items()
        if "kapsel-kubernetes-api" in [mount["name"] for mount in one.get("volumeMounts", ())]
    ]
    assert with_token == ["attestor"]


def test_settings_may_be_added_and_those_that_kapsel_sets_may_not_be_changed(relay: Any, facts: Any) -> None:
    env = [{"name": "KAPSEL_LOG_LEVEL", "value": "debug"}, {"name": "KAPSEL_HEALTH_PORT", "value": "1"}]
    template, told = pods(relay, facts, "receiver", {"spec": {"containers": [{"name": "receiver", "env": env}]}})
    found = {one["name"]: one.get("value") for one in containers(template)["receiver"]["env"]}
    assert (found["KAPSEL_LOG_LEVEL"], found["KAPSEL_HEALTH_PORT"]) == ("debug", "9090")
    assert told == ["spec.containers[0].env[1]"]


def test_a_longer_end_of_a_pod_is_a_longer_drain(relay: Any, facts: Any) -> None:
    def drain(component: str, seconds: int) -> tuple[int, str, list[str]]:
        template, told = pods(relay, facts, component, {"spec": {"terminationGracePeriodSeconds": seconds}})
        env = {one["name"]: one.get("value") for one in containers(template)[component]["env"]}
        return template["spec"]["terminationGracePeriodSeconds"], env["KAPSEL_DRAIN_TIMEOUT"], told

    assert drain("receiver", 120) == (120, "110", [])
    assert drain("deliverer", 120) == (120, "105", [])
    assert drain("deliverer", 12) == (40, "25", ["spec.terminationGracePeriodSeconds"])


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ({"serviceAccountName": "admin"}, "spec.serviceAccountName"),
        ({"hostNetwork": True}, "spec.hostNetwork"),
        ({"shareProcessNamespace": True}, "spec.shareProcessNamespace"),
        ({"restartPolicy": "Never"}, "spec.restartPolicy"),
        ({"terminationGracePeriodSeconds": "60"}, "spec.terminationGracePeriodSeconds"),
        ({"terminationGracePeriodSeconds": True}, "spec.terminationGracePeriodSeconds"),
        ({"containers": [{"name": "receiver", "command": ["sh"]}]}, "spec.containers[0].command"),
        ({"containers": [{"name": "receiver", "lifecycle": {}}]}, "spec.containers[0].lifecycle"),
        (
            {"containers": [{"name": "receiver", "readinessProbe": {"exec": {"command": ["true"]}}}]},
            "spec.containers[0].readinessProbe.exec",
        ),
        ({"containers": [{"image": "example.com/x:1"}]}, "spec.containers[0]"),
        ({"containers": [{"name": "x"}, {"name": "x"}]}, "spec.containers[1]"),
        ({"containers": {"name": "x"}}, "spec.containers"),
        ({"containers": ["x"]}, "spec.containers[0]"),
        ({"initContainers": [{"name": "receiver"}]}, "spec.initContainers[0]"),
        ({"volumes": [{"name": "kapsel-secrets", "emptyDir": {}}]}, "spec.volumes[0]"),
        ({"securityContext": []}, "spec.securityContext"),
    ],
)
def test_what_is_not_used_is_told_with_its_path(relay: Any, facts: Any, added: dict[str, Any], told: str) -> None:
    _, found = pods(relay, facts, "receiver", {"spec": added})
    assert found == [told]


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ({"labels": {"app.kubernetes.io/name": "mine"}}, "metadata.labels.app.kubernetes.io/name"),
        ({"annotations": {"kapsel.dev/database-digest": "x"}}, "metadata.annotations.kapsel.dev/database-digest"),
        ({"labels": {"port": 1}}, "metadata.labels.port"),
        ({"name": "x"}, "metadata.name"),
        ({"labels": "x"}, "metadata.labels"),
    ],
)
def test_metadata_that_is_not_used_is_told_too(relay: Any, facts: Any, added: dict[str, Any], told: str) -> None:
    _, found = pods(relay, facts, "receiver", {"metadata": added})
    assert found == [told]


def test_labels_annotations_volumes_and_constraints_are_added_to_ours(relay: Any, facts: Any) -> None:
    added = {
        "metadata": {"labels": {"team": "a"}, "annotations": {"sidecar.istio.io/inject": "false"}},
        "spec": {
            "imagePullSecrets": [{"name": "mine"}],
            "volumes": [{"name": "own", "emptyDir": {}}],
            "topologySpreadConstraints": [
                {"topologyKey": "kubernetes.io/hostname", "maxSkew": 2, "whenUnsatisfiable": "DoNotSchedule"}
            ],
        },
    }
    template, told = pods(relay, facts, "receiver", added)
    spec = template["spec"]
    assert told == []
    assert template["metadata"]["labels"]["team"] == "a"
    assert spec["imagePullSecrets"] == [{"name": "mine"}]
    assert [one["name"] for one in spec["volumes"]] == ["kapsel-secrets", "own"]
    assert [(one["topologyKey"], one["maxSkew"]) for one in spec["topologySpreadConstraints"]] == [
        ("topology.kubernetes.io/zone", 1),
        ("kubernetes.io/hostname", 2),
    ]
