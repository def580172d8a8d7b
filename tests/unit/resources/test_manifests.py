from pathlib import Path

import pytest
import yaml

from kapsel_resources.kinds.model import Identity
from kapsel_resources.manifests import identity, is_foreign, parse

HERE = Path(__file__).parent
ACCEPTED = yaml.safe_load((HERE / "accepted.yaml").read_text())
REJECTED = yaml.safe_load((HERE / "rejected.yaml").read_text())


@pytest.mark.parametrize("document", ACCEPTED, ids=[f"{number}-{one['kind']}" for number, one in enumerate(ACCEPTED)])
def test_a_good_manifest_is_read_as_the_resource_it_names(document):
    resource = parse(document)

    assert not isinstance(resource, list), [str(problem) for problem in resource]
    assert resource.identity == identity(document)


@pytest.mark.parametrize("case", REJECTED, ids=[one["why"] for one in REJECTED])
def test_a_mistake_is_told_with_its_field_and_what_is_allowed(case):
    problems = parse(case["manifest"])

    assert isinstance(problems, list)
    assert [str(problem) for problem in problems] == case["problems"]
    assert {problem.reason for problem in problems} == {"InvalidManifest"}


def test_a_problem_knows_the_resource_and_the_path_of_the_field():
    document = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "RetryPolicy", "metadata": {"name": "p"}, "spec": {"x": 1}}

    (problem,) = parse(document)

    assert problem.resource == Identity("RetryPolicy", "default", "p")
    assert problem.path == ("spec", "x")


def test_a_mistake_in_a_resource_that_cannot_be_named_still_has_a_problem():
    (problem,) = parse({"apiVersion": "kapsel.dev/v1alpha1", "kind": 7, "metadata": 8})

    assert problem.resource == Identity("", "default", "")
    assert problem.path == ("kind",)


def test_a_value_of_a_secret_never_shows_in_a_problem():
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}

    said = [
        str(one) for one in parse({**secret, "data": {"a": "hunter2!"}, "stringData": {"b": ["hunter2"], "c": 4711}})
    ]

    assert len(said) == 3
    assert not any("hunter2" in one or "4711" in one for one in said)


def test_a_secret_gives_its_entries_as_bytes_and_text_wins():
    secret = parse(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s"},
            "data": {"b": "b25l\n", "a": "/w=="},
            "stringData": {"b": "two"},
        }
    )

    assert list(secret.entries.items()) == [("a", b"\xff"), ("b", b"two")]
    assert "two" not in repr(secret)


@pytest.mark.parametrize(
    ("version", "kind", "foreign"),
    [
        ("apps/v1", "Deployment", True),
        ("v1", "ConfigMap", True),
        ("v1", "Secret", False),
        ("v1", "Namespace", False),
        ("kapsel.dev/v1alpha1", "Realy", False),
        ("kapsel.dev/v2", "Relay", False),
        (None, "Relay", False),
        ("v1", None, False),
    ],
)
def test_manifests_of_other_kinds_are_told_from_mistakes_in_ours(version, kind, foreign):
    assert is_foreign({"apiVersion": version, "kind": kind}) is foreign


def test_a_document_that_is_no_mapping_is_a_mistake_and_not_foreign():
    assert not is_foreign(["a"])


def test_a_pod_template_nested_deeper_than_any_pod_is_a_problem_of_that_field():
    value: object = "x"
    for _ in range(9_000):  # an API server takes 10,000 levels, so this may come from one
        value = {"a": value}
    relay = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "metadata": {"name": "deep"}}

    (problem,) = parse({**relay, "spec": {"receiver": {"podTemplate": {"spec": {"x": value}}}}})

    assert str(problem) == (
        "spec.receiver.podTemplate: it is nested more than 32 levels deep; allowed: what a PodTemplateSpec can hold"
    )
