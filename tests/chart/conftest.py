"""What judges the chart, and what it renders."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, KUBERNETES
from chart_tools import tool

Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the very end what did not run: a green line must not hide it."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if "tests/chart/" in report.nodeid]
    if skipped:
        terminalreporter.section("chart tests were skipped", sep="!", red=True)
        for reason in sorted({str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple)}):
            terminalreporter.line(f"{len(skipped)} tests: {reason.removeprefix('Skipped: ')}")


@pytest.fixture(scope="session")
def helm() -> Path:
    """Helm."""
    return tool("helm")


@pytest.fixture(scope="session")
def helm_unittest() -> Path:
    """The plugin that tests templates, as a program."""
    return tool("helm-unittest")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """Prometheus's judge of rules."""
    return tool("promtool")


@pytest.fixture(scope="session")
def render(helm: Path) -> Render:
    """Render the chart with more arguments of `helm template`; raise CalledProcessError if Helm refuses."""

    def run(*arguments: object, namespace: str = "kapsel-system") -> list[Manifest]:
        command = [
            helm,
            "template",
            "kapsel",
            CHART,
            "--namespace",
            namespace,
            "--kube-version",
            KUBERNETES,
            *arguments,
        ]
        done = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True)
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    return run
