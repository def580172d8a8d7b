"""The suites of helm-unittest: charts/kapsel/tests has one for each template."""

import subprocess
from pathlib import Path

from chart import CHART


def test_every_suite_of_helm_unittest_passes(helm_unittest: Path) -> None:
    command = [helm_unittest, "--strict", "--color=false", "--file", "tests/*_test.yaml", CHART]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_template_has_a_suite() -> None:
    templates = {path.stem for path in (CHART / "templates").rglob("*.yaml")} | {"notes"}
    assert templates == {path.name.removesuffix("_test.yaml") for path in (CHART / "tests").glob("*_test.yaml")}
