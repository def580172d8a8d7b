"""The pages for clusters name every condition and reason, the defaults as they are, and tests that exist."""

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from kapsel_cli.kubectl.parser import build
from kapsel_operator.manifests.containers import RESOURCES
from kapsel_operator.manifests.deployments import REPLICAS
from kapsel_operator.replay_status import _REASONS as REPLAY_REASONS
from kapsel_operator.statuses import DestinationState
from kapsel_resources.reasons import REASONS

ROOT = Path(__file__).parents[3]
OPERATIONS = (ROOT / "docs" / "operations-kubernetes.md").read_text(encoding="utf-8")
SOURCES = [*sorted((ROOT / "operator").rglob("*.py")), ROOT / "attestor" / "kapsel_attestor" / "status_report.py"]
PAGES = ("kubernetes.md", "operations-kubernetes.md", "rbac.md", "capabilities.md")
# Where a reason stands in a call, by the name of what is called.
PLACES = {"Verdict": 2, "Seen": 1, "stalled": 0}


def said() -> Iterator[str]:
    """Yield every reason that is written out in the operator and in what attestors report."""
    for source in SOURCES:
        for call in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call):
                yield from _reasons(call)


def _reasons(call: ast.Call) -> Iterator[str]:
    name = getattr(call.func, "id", None)
    given = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
    if name in PLACES and len(call.args) > PLACES[name]:
        given.append(call.args[PLACES[name]])
    for value in given:
        for one in ast.walk(value):
            if (
                isinstance(one, ast.Constant)
                and isinstance(one.value, str)
                and re.fullmatch("[A-Z][a-zA-Z]{3,}", one.value)
            ):
                yield one.value


def test_every_reason_is_explained_here_or_where_manifests_are() -> None:
    reasons = {*said(), *REPLAY_REASONS.values(), *get_args(DestinationState)} - {"Delivering"}
    reasons |= {"NoReceiver", "NoDeliverer", "NoAttestor"}
    table = OPERATIONS.partition("### The reasons")[2].partition("### ")[0]
    assert sorted(reason for reason in reasons - set(REASONS) if f"`{reason}`" not in table) == []


def test_no_reason_is_explained_that_nobody_gives() -> None:
    table = OPERATIONS.partition("### The reasons")[2].partition("### ")[0]
    named = {
        reason
        for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
        for reason in re.findall(r"`([A-Z]\w+)`", row)
    }
    code = "".join(path.read_text(encoding="utf-8") for path in SOURCES)
    assert {reason for reason in named if f'"{reason}"' not in code} == {"NoReceiver", "NoDeliverer", "NoAttestor"}


def test_every_condition_of_the_operator_is_explained() -> None:
    table = OPERATIONS.partition("| condition |")[2].partition("\n\n")[0]
    definitions = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "crds").glob("*.yaml"))
    columns = set(re.findall(r"@\.type == ['\"](\w+)", definitions)) | set(re.findall(r'type=="(\w+)"', definitions))
    assert sorted(name for name in columns if f"`{name}`" not in table) == []


def test_sizes_are_those_that_pods_get() -> None:
    table = OPERATIONS.partition("## Sizing")[2]
    for component, resources in RESOURCES.items():
        row = re.search(rf"^\| (?:embedded )?{component}\b.*$", table, re.MULTILINE | re.IGNORECASE)
        if component == "migrate":
            continue
        assert row is not None, component
        requests = f"{resources['requests']['cpu']} CPU, {_spaced(resources['requests']['memory'])}"
        assert requests in row[0], component
        assert f"| {_spaced(resources['limits']['memory'])} |" in row[0], component
        assert component in ("attestor", "postgres") or f"| {REPLICAS} |" in row[0], component


def test_every_claim_names_a_test_that_exists() -> None:
    rows = re.findall(r"^\| (?!claim|-)(.*?) \| (.*?) \|$", _page("capabilities.md"), re.MULTILINE)
    assert rows
    for claim, tests in rows:
        paths = re.findall(r"`(tests/[^`]*)`", tests)
        assert paths, claim
        assert [path for path in paths if not (ROOT / path).is_file()] == [], claim


def test_pages_name_commands_and_options_of_the_plugin_that_exist() -> None:
    (commands,) = (action.choices for action in build()._actions if isinstance(action, argparse._SubParsersAction))
    named = [
        (name, set(re.findall(r"(?<=[ |])-{1,2}[a-zA-Z][a-z-]*", rest)))
        for page in PAGES
        for name, rest in re.findall(r"kubectl kapsel ([a-z]+)([^\n`|&]*)", _page(page))
    ]
    assert named
    for name, options in named:
        assert name in commands, name
        known = {option for action in commands[name]._actions for option in action.option_strings}
        assert options - known == set(), name


def _page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def _spaced(quantity: object) -> str:
    return re.sub(r"(\d)([KMG]i)", r"\1 \2", str(quantity))
