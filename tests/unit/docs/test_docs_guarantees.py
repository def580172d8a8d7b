"""docs/guarantees.md promises only what a test holds."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")


def test_every_promise_names_tests_that_exist() -> None:
    rows = re.findall(r"^\| (?!promise |-)(.*?) \| (.*?) \|$", PAGE, re.MULTILINE)
    assert rows
    for promise, tests in rows:
        named = re.findall(r"`(tests/[^`]*\.py)::(test_[a-z0-9_]+)`", tests)
        assert named, promise
        assert tests.count("`") == 2 * len(named), promise
        for path, name in named:
            source = (ROOT / path).read_text(encoding="utf-8")
            assert re.search(rf"^(?:async )?def {name}\(", source, re.MULTILINE), f"{promise}: {path}::{name}"
