"""A directory of manifests: what is declared, and each problem with its file and line."""

import json
import os
from pathlib import Path

import pytest

from kapsel_cli.manifests import read

ENDPOINT = """\
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {name: orders}
spec:
  verification:
    none: {}
  destinations:
  - name: billing
    url: https://billing.example.com/hooks
"""


def write(directory: Path, name: str, text: str) -> None:
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_files_are_read_at_every_depth_and_a_missing_namespace_is_default(tmp_path: Path) -> None:
    write(tmp_path, "a/b/orders.yaml", ENDPOINT)
    write(
        tmp_path,
        "policy.yml",
        "apiVersion: kapsel.dev/v1alpha1\nkind: RetryPolicy\nmetadata: {name: p, namespace: shop}\nspec: {}\n",
    )
    found = read(tmp_path)
    assert found.problems == ()
    assert sorted(str(resource.identity) for resource in found.resources) == [
        "RetryPolicy shop/p",
        "WebhookEndpoint default/orders",
    ]


def test_json_with_tabs_is_read(tmp_path: Path) -> None:
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    write(tmp_path, "namespace.json", json.dumps(document, indent="\t"))
    found = read(tmp_path)
    assert found.problems == ()
    assert [resource.identity.name for resource in found.resources] == ["shop"]


def test_a_wrong_field_is_named_with_file_line_resource_path_and_what_is_allowed(tmp_path: Path) -> None:
    write(tmp_path, "orders.yaml", ENDPOINT + "    timeout: soon\n")
    (problem,) = read(tmp_path).problems
    where, _, rest = problem.partition(": ")
    assert where == f"{tmp_path / 'orders.yaml'}:10"
    assert rest.startswith("WebhookEndpoint default/orders: spec.destinations[0].timeout: ")
    assert "; allowed: " in rest


def test_the_sound_resources_beside_a_broken_one_are_read(tmp_path: Path) -> None:
    write(tmp_path, "all.yaml", ENDPOINT + "---\n" + ENDPOINT.replace("orders", "broken").replace("url:", "uri:"))
    found = read(tmp_path)
    assert [resource.identity.name for resource in found.resources] == ["orders"]
    assert found.problems
    assert all("default/broken" in problem for problem in found.problems)


def test_a_resource_that_is_declared_twice_is_named_with_both_places(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", ENDPOINT)
    write(tmp_path, "b.yaml", ENDPOINT)
    found = read(tmp_path)
    assert len(found.resources) == 1
    (problem,) = found.problems
    assert f"{tmp_path / 'b.yaml'}:1" in problem
    assert f"{tmp_path / 'a.yaml'}:1" in problem


def test_kinds_of_others_are_passed_over_with_a_note(tmp_path: Path) -> None:
    write(tmp_path, "other.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n")
    found = read(tmp_path)
    assert (found.resources, found.problems) == ((), ())
    assert "Deployment default/web" in found.notes[0]


def test_a_document_that_is_no_manifest_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, "values.yaml", "- just\n- a list\n")
    (problem,) = read(tmp_path).problems
    assert problem.startswith(f"{tmp_path / 'values.yaml'}:1: ")


def test_hidden_files_and_other_suffixes_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, ".git/x.yaml", "on: [")
    write(tmp_path, ".draft.yaml", "on: [")
    write(tmp_path, "README.md", "on: [")
    write(tmp_path, "lost+found/x.yaml", "on: [")
    found = read(tmp_path)
    assert (found.resources, found.problems, found.notes, found.complete) == ((), (), (), True)


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    write(tmp_path, "large.yaml", "#" * 5_000_000)
    (problem,) = read(tmp_path).problems
    assert "large.yaml:1: the file has 5000000 bytes" in problem


@pytest.mark.parametrize("target", ["gone.yaml", "orders.yaml"])
def test_a_link_that_leads_nowhere_or_to_itself_is_a_problem_and_may_have_declared_anything(
    tmp_path: Path, target: str
) -> None:
    write(tmp_path, "policy.yaml", ENDPOINT.replace("orders", "payments"))
    (tmp_path / "orders.yaml").symlink_to(target)
    found = read(tmp_path)
    (problem,) = found.problems
    assert problem.startswith(f"{tmp_path / 'orders.yaml'}:1: the file cannot be read: ")
    assert not found.complete
    assert [resource.identity.name for resource in found.resources] == ["payments"]


def test_a_folder_that_cannot_be_read_is_a_problem_and_may_have_declared_anything(tmp_path: Path) -> None:
    write(tmp_path, "orders.yaml", ENDPOINT)
    nest(tmp_path, "d" * 250, 17)  # longer than a path may be, for root as well
    found = read(tmp_path)
    (problem,) = found.problems
    assert "d: the folder cannot be read: File name too long" in problem
    assert not found.complete
    assert [resource.identity.name for resource in found.resources] == ["orders"]


def test_a_directory_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    found = read(tmp_path / "away")
    assert found.problems == (f"{tmp_path / 'away'}: the folder cannot be read: No such file or directory",)
    assert not found.complete


def test_a_link_to_a_file_elsewhere_is_read_and_one_to_a_folder_is_passed_over_with_a_note(tmp_path: Path) -> None:
    write(tmp_path, "elsewhere/here.txt", ENDPOINT)
    directory = tmp_path / "manifests"
    directory.mkdir()
    (directory / "orders.yaml").symlink_to(tmp_path / "elsewhere" / "here.txt")
    (directory / "around").symlink_to(directory)
    found = read(directory)
    assert [resource.identity.name for resource in found.resources] == ["orders"]
    assert found.problems == ()
    assert found.notes == (f"{directory / 'around'} is a link to a folder and was passed over",)


def test_a_pipe_is_passed_over_because_nobody_may_ever_write_to_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert read(tmp_path).problems == ()


def nest(directory: Path, name: str, depth: int) -> None:
    """Make folders in folders, each by a path that is short enough."""
    at = os.open(directory, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=at)
        below = os.open(name, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
