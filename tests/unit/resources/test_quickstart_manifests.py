from pathlib import Path

import yaml

from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store.rows import Configuration

DIRECTORY = Path(__file__).parents[3] / "examples" / "quickstart"


def _documents():
    return [document for path in sorted(DIRECTORY.rglob("*.yaml")) for document in yaml.safe_load_all(path.read_text())]


def test_the_quickstart_plans_without_a_problem(now, entropy):
    resources = [parse(document) for document in _documents()]

    planned = plan(resources, existing=Configuration(), now=now, entropy=entropy)

    assert planned.problems == ()
    assert {status.reason for status in planned.statuses} == {"Accepted"}
    assert sorted(row.name for row in planned.configuration.endpoints) == [
        "github-archive",
        "github-orders",
        "partner-stock",
        "stripe-payments",
    ]


def test_kubectl_applies_the_namespace_before_what_lives_in_it():
    kinds = [document["kind"] for document in _documents()]

    assert kinds.index("Namespace") == 0
    assert kinds.count("Namespace") == 1


def test_every_manifest_names_its_namespace_so_that_it_lands_there_with_kubectl_as_well():
    for document in _documents():
        assert document["kind"] == "Namespace" or document["metadata"]["namespace"] == "shop"
