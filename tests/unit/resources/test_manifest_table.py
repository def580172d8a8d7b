"""The table of tests/cluster/schema, as the models and `kapsel up` read it; there a real API server does."""

import shutil

import pytest
from schema.table import Case, cases, definitions, name, rules

from kapsel_cli.manifests import read
from kapsel_resources.manifests import identity, parse

ACCEPT, REJECT, UPDATE = cases("accept"), cases("reject"), cases("update")


@pytest.mark.parametrize("case", ACCEPT, ids=name)
def test_a_good_manifest_is_read_as_the_resource_it_names(case: Case):
    (document,) = case.documents

    resource = parse(document)

    assert not isinstance(resource, list), [str(problem) for problem in resource]
    assert resource.identity == identity(document)


@pytest.mark.parametrize("case", REJECT, ids=name)
def test_a_mistake_is_told_with_its_field_and_what_is_allowed(case: Case):
    (document,) = case.documents

    problems = parse(document)

    assert isinstance(problems, list)
    assert [str(problem) for problem in problems] == case.kapsel
    assert {problem.reason for problem in problems} == {"InvalidManifest"}


@pytest.mark.parametrize("case", UPDATE, ids=name)
def test_a_file_has_no_past_so_both_sides_of_a_change_are_good_manifests(case: Case):
    assert [parse(document) for document in case.documents if isinstance(parse(document), list)] == []


@pytest.mark.parametrize("case", ACCEPT, ids=name)
def test_kapsel_up_takes_a_good_manifest(case: Case, tmp_path):
    shutil.copy(case.path, tmp_path)

    manifests = read(tmp_path)

    assert manifests.problems == ()
    assert len(manifests.resources) == 1


@pytest.mark.parametrize("case", REJECT, ids=name)
def test_kapsel_up_refuses_a_mistake_with_file_and_line(case: Case, tmp_path):
    file = shutil.copy(case.path, tmp_path)

    manifests = read(tmp_path)

    assert manifests.resources == ()
    assert len(manifests.problems) == len(case.kapsel)
    for said, expected in zip(manifests.problems, case.kapsel, strict=True):
        assert said.startswith(f"{file}:")
        assert said.endswith(f"default/a: {expected}")


def test_every_rule_of_the_crds_has_a_manifest_that_breaks_it():
    told = {words for case in (*REJECT, *UPDATE) for _, words in case.kubernetes}

    assert [rule["message"] for rule in rules(definitions()) if rule["message"] not in told] == []
