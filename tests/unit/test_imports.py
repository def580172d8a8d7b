"""What a process imports, and so waits for before it takes its first webhook."""

import subprocess
import sys

import pytest

UNUSED = ("prompt_toolkit", "typer", "rich", "pygments")  # the command line of the package `cel`


def imported(program: str) -> set[str]:
    command = [sys.executable, "-c", f"import sys, {program}; print(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize("component", ["receiver", "deliverer", "console"])
def test_a_process_takes_the_engine_of_expressions_without_its_command_line(component: str) -> None:
    modules = imported(f"kapsel_{component}.__main__")
    assert "cel.cel" in modules
    assert modules.isdisjoint(UNUSED)


def test_a_receiver_needs_no_web_framework() -> None:
    assert "aiohttp" not in imported("kapsel_receiver.__main__")
