"""The shape of the repository that tools cannot hold it to."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ("operator", "receiver", "deliverer", "attestor", "verifier", "console", "witness", "cli", "lib")


def packages() -> list[Path]:
    return [
        package for program in PROGRAMS for package in sorted((ROOT / program).glob("kapsel_*")) if package.is_dir()
    ]


def test_no_program_folder_is_a_package_and_shadows_the_standard_library() -> None:
    """From the root of the repository, operator/__init__.py would be found before the operator of Python itself."""
    assert [program for program in PROGRAMS if (ROOT / program / "__init__.py").exists()] == []


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    named = {path.stem: path for package in packages() for path in package.rglob("*.py")}
    assert {name for name in named if name in sys.stdlib_module_names and name != "__init__"} == set()


def test_program_folders_hold_no_python_beside_their_package() -> None:
    strays = [path for program in PROGRAMS for path in (ROOT / program).glob("*.py")]
    assert strays == []


def test_every_package_is_typed_and_shipped() -> None:
    shipped = (ROOT / "pyproject.toml").read_text()
    for package in packages():
        assert (package / "py.typed").exists(), package
        assert f'"{package.relative_to(ROOT)}"' in shipped


def test_an_installation_takes_no_libsodium_that_may_judge_signatures_in_another_way() -> None:
    """The profile of the proof format is that of libsodium 1: a later one might be another, unlike the web page's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pynacl,) = [one for one in project["dependencies"] if one.startswith("pynacl")]
    assert pynacl.endswith(",<2")


def test_the_lock_names_hashes_and_no_index() -> None:
    lock = (ROOT / "constraints.txt").read_text()
    pins = [line for line in lock.splitlines() if "==" in line]
    assert pins
    assert all(line.rstrip().endswith("\\") for line in pins)
    assert "http://" not in lock
    assert "https://" not in lock
