"""The CRDs on a real API server: the table of manifests, and what kubectl makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio import client as kubernetes_api
from onenode.control_plane import Cluster
from schema.requests import apply, complaints, create, send
from schema.table import Case, cases, name

from kapsel_resources.kinds.model import GROUP_VERSION
from kapsel_resources.manifests import KINDS, parse

pytestmark = pytest.mark.usefixtures("crds")

ROOT = Path(__file__).resolve().parents[3]
QUICKSTART = ROOT / "examples" / "quickstart"
PAGE = ROOT / "docs" / "configuration.md"


@pytest.mark.parametrize("case", cases("accept"), ids=name)
async def test_a_good_manifest_is_accepted_and_comes_back_as_it_was_applied(
    api: kubernetes_api.ApiClient, case: Case
) -> None:
    (document,) = case.documents

    answer = await create(api, "default", document["kind"], case.text)

    assert complaints(answer) == []
    # What GitOps compares: nothing was added, and only fields without a value are gone.
    assert answer.get("spec") == _without_null(document.get("spec"))


@pytest.mark.parametrize("case", cases("reject"), ids=name)
async def test_a_mistake_is_refused_with_its_field_and_the_rule(api: kubernetes_api.ApiClient, case: Case) -> None:
    (document,) = case.documents

    answer = await create(api, "default", document["kind"], case.text)

    said = complaints(answer)
    assert case.kubernetes, "the file must say what the API server says"
    missing = [
        (field, words)
        for field, words in case.kubernetes
        if not any(field == blamed and words in message for blamed, message in said)
    ]
    assert missing == [], said


@pytest.mark.parametrize("case", cases("update"), ids=name)
async def test_a_change_is_refused_if_something_depends_on_what_was(
    api: kubernetes_api.ApiClient, namespace: str, case: Case
) -> None:
    before, after = case.documents
    assert complaints(await apply(api, namespace, before)) == []

    said = complaints(await apply(api, namespace, after))

    assert [field for field, _ in said] == [field for field, _ in case.kubernetes]
    assert all(words in message for (_, words), (_, message) in zip(case.kubernetes, said, strict=True))


def test_the_quickstart_is_accepted_unchanged(control_plane: Cluster, namespace: str) -> None:
    documents = [one for file in sorted(QUICKSTART.glob("*.yaml")) for one in yaml.safe_load_all(file.read_text())]
    moved = [{**one, "metadata": {**one["metadata"], "namespace": namespace}} for one in documents]

    control_plane.apply(*(one for one in moved if one["kind"] != "Namespace"))

    found = control_plane.get("kapsel", "-n", namespace)["items"]
    assert sorted(one["kind"] for one in found) == sorted(one["kind"] for one in documents if one["kind"] in KINDS)
    assert [one["metadata"]["name"] for one in found if isinstance(parse(one), list)] == []


async def test_every_example_of_the_reference_is_accepted(api: kubernetes_api.ApiClient) -> None:
    blocks = [block.partition("```")[0] for block in PAGE.read_text().split("```yaml\n")[1:]]
    examples = [one for block in blocks for one in yaml.safe_load_all(block) if one["kind"] in KINDS]
    assert len(examples) >= 9

    for example in examples:
        example["metadata"].pop("namespace", None)
        assert complaints(await create(api, "default", example["kind"], json.dumps(example).encode())) == []


async def test_kubectl_explain_teaches_every_field(api: kubernetes_api.ApiClient, control_plane: Cluster) -> None:
    served = await send(api, "GET", f"/openapi/v3/apis/{GROUP_VERSION}")
    schemas = {key.rpartition(".")[2]: schema for key, schema in served["components"]["schemas"].items()}

    # What kubectl explain reads: a field without a description here would be shown without one.
    for kind in KINDS:
        assert [where for where in _undescribed(schemas[kind], kind) if ".metadata" not in where] == []
    page = control_plane.kubectl("explain", "whe.spec.destinations.timeout")
    assert "How long one try may take as a whole." in page


def _undescribed(schema: dict[str, Any], path: str) -> list[str]:
    found = []
    for field, inner in schema.get("properties", {}).items():
        here = f"{path}.{field}"
        found += [here] if not inner.get("description") else []
        found += _undescribed(inner.get("items", inner), here)
    return found


def _without_null(value: Any) -> Any:
    """Return a value as the API server keeps it: a field without a value is no field."""
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _without_null(inner) for key, inner in value.items() if inner is not None}
