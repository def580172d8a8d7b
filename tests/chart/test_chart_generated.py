"""What is in the chart and stands somewhere else as well is the same in both places."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chart
import yaml
from chart import CHART, ROOT

from kapsel_operator.manifests import names
from kapsel_operator.manifests.containers import HTTP, PORTS
from kapsel_operator.rbac import RULES
from kapsel_operator.settings import OperatorSettings
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.manifests import parse
from kapsel_runtime.settings import reference

Render = Callable[..., list[dict[str, Any]]]


def test_what_make_chart_writes_is_committed() -> None:
    stale = [str(path) for path, content in chart.generated().items() if not _is(path, content)]
    assert stale == [], "run `make chart`"


def test_the_chart_has_no_definition_that_crds_has_not() -> None:
    assert _names(CHART / "files/crds") == _names(ROOT / "crds")


def test_the_plain_manifest_is_what_the_chart_renders(helm: Path) -> None:
    assert _is(chart.plain_manifest_path(), chart.plain_manifest(helm)), "run `make chart`"


def test_the_chart_has_the_version_of_kapsel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == project["version"]


def test_artifact_hub_is_told_of_every_kind_with_an_example() -> None:
    annotations = yaml.safe_load((CHART / "Chart.yaml").read_text())["annotations"]
    told = {one["name"] for one in yaml.safe_load(annotations["artifacthub.io/crds"])}
    assert told == {f"{path.stem}.kapsel.dev" for path in (ROOT / "crds").glob("*.yaml")}
    kinds = {one["kind"] for one in yaml.safe_load(annotations["artifacthub.io/crdsExamples"])}
    assert kinds >= {"Relay", "WebhookEndpoint", "RetryPolicy", "SigningKey", "AttestationLog"}


def test_every_value_has_a_description() -> None:
    described = {path for path, _, _ in chart.values()}
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert [path for path in _paths(values, described) if path not in described] == []


def test_the_schema_knows_exactly_the_values_that_there_are() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert _of_schema(schema, schema) == _of_values(yaml.safe_load((CHART / "values.yaml").read_text()), schema, schema)


def test_no_object_of_the_schema_lets_unknown_members_in() -> None:
    text = (CHART / "values.schema.json").read_text()
    open_ones = [
        node
        for node in _nodes(json.loads(text))
        if "properties" in node and node.get("additionalProperties") is not False and "definitions" not in node
    ]
    assert open_ones == []


def test_every_setting_of_the_operator_has_a_value_and_no_other_is_set(render: Render) -> None:
    deployment = _one(render("--set", "watchNamespaces={a},imagePullSecrets[0].name=r"), "Deployment")
    variables = {one["name"] for one in deployment["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert variables == {variable for variable, *_ in reference(OperatorSettings)}


def test_the_chart_grants_what_the_operator_says_it_needs_and_no_more(render: Render) -> None:
    rendered = render()
    granted = {
        "own": _one(rendered, "Role", "kapsel")["rules"],
        "cluster+watched": _one(rendered, "ClusterRole", "kapsel-system-kapsel")["rules"],
    }
    assert _sets(granted["own"]) == {_set(rule) for rule in RULES if rule.scope == "own"}
    assert _sets(granted["cluster+watched"]) == {_set(rule) for rule in RULES if rule.scope != "own"}


def test_watched_namespaces_get_the_rules_for_them_and_the_cluster_none_of_those(render: Render) -> None:
    rendered = render("--set", "watchNamespaces={shop,stage}")
    for namespace in ("shop", "stage"):
        role = _one(rendered, "Role", "kapsel-system-kapsel", namespace)
        assert _sets(role["rules"]) == {_set(rule) for rule in RULES if rule.scope == "watched"}
    role = _one(rendered, "ClusterRole", "kapsel-system-kapsel")
    assert _sets(role["rules"]) == {_set(rule) for rule in RULES if rule.scope == "cluster"}


def test_the_pods_of_relays_are_scraped_by_the_ports_and_labels_that_the_operator_gives_them(render: Render) -> None:
    [monitor] = render("--set", "podMonitor.enabled=true", "--show-only", "templates/podmonitor.yaml")
    scraped = {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]}
    assert scraped == {name for ports in PORTS.values() for name in ports} - {HTTP}
    relay = parse(
        {"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "metadata": {"name": "main", "namespace": "shop"}}
    )
    assert isinstance(relay, Relay)
    labels = names.labels(relay, "receiver", "0.1.0")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_each_rule_stands_below_its_reason() -> None:
    text = (CHART / "templates/_rules.tpl").read_text()
    assert len(re.findall(r"^# .+\n- apiGroups", text, re.MULTILINE)) == text.count("- apiGroups") == len(RULES)


def _is(path: Path, content: str) -> bool:
    return path.exists() and path.read_text() == content


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.glob("*.yaml")}


def _one(manifests: list[dict[str, Any]], kind: str, name: str | None = None, namespace: str | None = None) -> Any:
    [found] = [
        one
        for one in manifests
        if one["kind"] == kind
        and name in (None, one["metadata"]["name"])
        and namespace in (None, one["metadata"].get("namespace"))
        and "helm.sh/hook" not in one["metadata"].get("annotations", {})
    ]
    return found


def _sets(rules: list[dict[str, list[str]]]) -> set[tuple[frozenset[str], ...]]:
    assert all(set(rule) == {"apiGroups", "resources", "verbs"} for rule in rules)
    return {tuple(frozenset(rule[key]) for key in ("apiGroups", "resources", "verbs")) for rule in rules}


def _set(rule: Any) -> tuple[frozenset[str], ...]:
    return frozenset({rule.group}), frozenset(rule.resources), frozenset(rule.verbs)


def _paths(values: Any, described: set[str], path: str = "") -> list[str]:
    """Return the paths that a person may set; what is below a value with a description is described with it."""
    if path in described or not isinstance(values, dict):
        return [path]
    below = ((f"{path}.{key}".lstrip("."), value) for key, value in values.items())
    return [leaf for one, value in below for leaf in _paths(value, described, one)]


def _resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    return node if reference is None else schema["definitions"][reference.rpartition("/")[2]]


def _of_schema(node: dict[str, Any], schema: dict[str, Any], path: str = "") -> set[str]:
    members = _resolved(node, schema).get("properties")
    if members is None or path in _OF_KUBERNETES:
        return {path}
    return {leaf for name, one in members.items() for leaf in _of_schema(one, schema, f"{path}.{name}".lstrip("."))}


def _of_values(values: Any, node: dict[str, Any], schema: dict[str, Any], path: str = "") -> set[str]:
    members = _resolved(node, schema).get("properties", {})
    if not members or path in _OF_KUBERNETES:
        return {path}
    return {
        leaf
        for name, value in values.items()
        for leaf in _of_values(value, members.get(name, {}), schema, f"{path}.{name}".lstrip("."))
    }


# Whose members are Kubernetes's own, and are not listed in values.yaml.
_OF_KUBERNETES = {"affinity", "resources", "smoke.resources", "updateStrategy"}


def _nodes(node: Any) -> list[dict[str, Any]]:
    if isinstance(node, list):
        return [one for member in node for one in _nodes(member)]
    if not isinstance(node, dict):
        return []
    return [node, *(one for member in node.values() for one in _nodes(member))]
