"""The alerts: Prometheus itself sees each of them fire, and stay quiet; their metrics and their runbooks exist."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, ROOT
from metric_names import METRICS, names_in

Render = Callable[..., list[dict[str, Any]]]
CASES = Path(__file__).parent / "alerts"


@pytest.fixture(scope="module")
def rules(render: Render) -> dict[str, Any]:
    rendered = render("--set", "prometheusRule.enabled=true", "--show-only", "templates/prometheusrule.yaml")
    spec: dict[str, Any] = rendered[0]["spec"]
    return spec


@pytest.mark.parametrize("cases", sorted(path.name for path in CASES.glob("*.yaml")))
def test_alerts_fire_when_they_should_and_only_then(
    promtool: Path, rules: dict[str, Any], tmp_path: Path, cases: str
) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    (tmp_path / cases).write_text((CASES / cases).read_text())
    done = subprocess.run([promtool, "test", "rules", cases], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_was_seen_to_fire_and_to_stay_quiet(rules: dict[str, Any]) -> None:
    fired, quiet = set(), set()
    for path in CASES.glob("*.yaml"):
        for case in yaml.safe_load(path.read_text())["tests"]:
            for check in case["alert_rule_test"]:
                (fired if check["exp_alerts"] else quiet).add(check["alertname"])
                # A case with a second series that does not fire is one of staying quiet, too.
                if len(check["exp_alerts"]) < len(case["input_series"]):
                    quiet.add(check["alertname"])
    assert fired == quiet == {rule["alert"] for group in rules["groups"] for rule in group["rules"]}


def test_every_metric_of_an_alert_is_one_that_a_process_has(rules: dict[str, Any]) -> None:
    used = {name for group in rules["groups"] for rule in group["rules"] for name in names_in(rule["expr"])}
    assert used
    assert used - METRICS == set()


def test_every_alert_says_what_where_and_what_to_do(rules: dict[str, Any]) -> None:
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        page, _, section = rule["annotations"]["runbook_url"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
        assert section in {_slug(heading) for heading in headings}, rule["alert"]


def test_the_documentation_lists_the_thresholds_that_the_chart_has(rules: dict[str, Any]) -> None:
    thresholds = yaml.safe_load((CHART / "values.yaml").read_text())["prometheusRule"]["thresholds"]
    text = (CHART / "files/alerts.yaml").read_text()
    assert {name for name in thresholds if f"<{name}>" in text} == set(thresholds)
    assert "<" not in "".join(rule["expr"] for group in rules["groups"] for rule in group["rules"])


def _slug(heading: str) -> str:
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower())).strip("-")
