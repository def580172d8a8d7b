"""What is told about ways to a cluster that cannot all be tried on one machine."""

import subprocess
from pathlib import Path

import pytest
import yaml
from onenode import binaries, installation

ROOT = Path(__file__).resolve().parents[3]
KIND = ROOT / "tests" / "cluster" / "kind"


def test_the_script_for_kind_is_read_by_its_shell() -> None:
    subprocess.run(["bash", "-n", KIND], check=True)


@pytest.mark.parametrize("page", ["README.md", "tests/kind.yaml"])
def test_people_are_told_the_image_and_the_cluster_that_the_script_uses(page: str) -> None:
    told, script = (ROOT / page).read_text(), KIND.read_text()
    name = yaml.safe_load((ROOT / "tests/kind.yaml").read_text())["name"]
    assert f"docker build -f Containerfile -t {installation.image()} ." in told
    assert f"kind load docker-image {installation.image()} --name {name}" in told
    assert f'kind load docker-image "$image" --name {name}' in script
    assert "kind create cluster --config tests/kind.yaml" in told
    assert "kind create cluster --config tests/kind.yaml" in script


def test_the_kubernetes_that_is_built_is_the_one_that_is_named() -> None:
    module = (binaries.TOOLS / "kube" / "go.mod").read_text()
    assert f"require k8s.io/kubernetes {binaries.KUBERNETES}\n" in module


def test_every_module_of_tools_is_built() -> None:
    assert {path.name for path in binaries.TOOLS.iterdir()} == set(binaries.MODULES)
