"""The generated CRDs: equal to the files, and of the shape that people and the API server rely on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from kapsel_resources import crd
from kapsel_resources.manifests import KINDS

CRDS = Path(__file__).parents[3] / "crds"
LARGEST = 200_000  # client-side apply keeps a copy of the whole in an annotation of at most 256 KiB
YAML_1_1_BOOLEANS = {"y", "n", "yes", "no", "on", "off", "true", "false"}


def _properties(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every schema below one, the items of lists and the values of maps as well."""
    for name, inner in schema.get("properties", {}).items():
        yield f"{path}.{name}", inner
        yield from _properties(inner, f"{path}.{name}")
    for inner in (schema.get("items"), schema.get("additionalProperties")):
        if inner is not None:
            yield f"{path}[]", inner
            yield from _properties(inner, f"{path}[]")


def _schema(kind: str) -> dict[str, Any]:
    return crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


ALL = [one for kind in KINDS for one in _properties(_schema(kind), kind)]


def test_the_files_are_what_the_models_say():
    assert {path.name: path.read_text(encoding="utf-8") for path in CRDS.glob("*.yaml")} == crd.files(), (
        "run: make crds"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_reads_as_the_definition_it_was_made_from(kind):
    text = crd.files()[f"{crd.NAMES[kind].plural}.yaml"]

    assert yaml.safe_load(text) == crd.definition(kind)
    assert len(text.encode()) < LARGEST


def test_every_property_is_described():
    ours = [(path, schema) for path, schema in ALL if not path.endswith("[]") and path.count(".") > 1]

    assert len(ours) > 250
    assert [path for path, schema in ours if not schema.get("description", "").endswith(".")] == []


def test_no_property_has_a_name_that_yaml_reads_as_a_boolean():
    assert [path for path, _ in ALL if path.rpartition(".")[2].lower() in YAML_1_1_BOOLEANS] == []


def test_every_string_list_and_map_is_bounded():
    bounds = {"string": "maxLength", "array": "maxItems"}
    unbounded = [
        path
        for path, schema in ALL
        if (schema.get("type") in bounds and not {bounds[schema["type"]], "enum"} & schema.keys())
        or ("additionalProperties" in schema and "maxProperties" not in schema)
    ]

    assert [path for path in unbounded if path.count(".") > 1] == []


def test_every_list_says_how_it_is_merged():
    lists = {path: schema for path, schema in ALL if schema.get("type") == "array"}

    assert [path for path, schema in lists.items() if "x-kubernetes-list-type" not in schema] == []
    assert {
        path: schema["x-kubernetes-list-map-keys"]
        for path, schema in lists.items()
        if schema["x-kubernetes-list-type"] == "map" and not path.endswith(".conditions")
    } == {
        "AttestationLog.spec.witnessing.witnesses": ["name"],
        "AttestationLog.status.keys": ["id"],
        "WebhookEndpoint.spec.destinations": ["name"],
        "WebhookEndpoint.spec.destinations[].headers": ["name"],
        "WebhookEndpoint.spec.destinations[].transform.headers": ["name"],
        "WebhookEndpoint.status.destinations": ["name"],
        "SigningKey.status.versions": ["version"],
    }


def test_nothing_is_opaque_but_the_template_of_pods():
    opaque = {path for path, schema in ALL if schema.get("x-kubernetes-preserve-unknown-fields")}

    assert opaque == {
        f"Relay.spec.{workload}.podTemplate.{part}"
        for workload in ("receiver", "deliverer", "console")
        for part in ("metadata", "spec")
    }


def test_there_are_no_defaults_so_that_an_object_stays_as_it_was_applied():
    assert [path for path, schema in ALL if "default" in schema] == []


def test_short_names_are_ours_alone_and_every_kind_is_in_the_category():
    names = [crd.definition(kind)["spec"]["names"] for kind in KINDS]

    assert [name["shortNames"] for name in names] == [["whrl"], ["whe"], ["whrp"], ["whk"], ["whal"], ["whr"]]
    assert {tuple(name["categories"]) for name in names} == {("kapsel",)}
    assert "kapsel" not in {name["singular"] for name in names}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_and_selectors_point_at_fields_that_exist(kind):
    known = {path.removeprefix(kind) for path, _ in ALL if path.startswith(f"{kind}.")}
    version = crd.definition(kind)["spec"]["versions"][0]
    paths = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    paths += [field["jsonPath"] for field in version.get("selectableFields", ())]

    plain = [path for path in paths if "[?" not in path and path != ".metadata.creationTimestamp"]

    assert [path for path in plain if path not in known] == []
    assert version["additionalPrinterColumns"][-1]["name"] == "Age"
