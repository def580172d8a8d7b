"""docs/guarantees.md promises only what a test holds, and docs/complaints.md answers only so."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
PAGES = ("guarantees.md", "complaints.md")

_TEST = re.compile(r"\[(test_[a-z0-9_]+)\]\((\.\./tests/[^)#]*\.py)\)")


def _rows(page: str) -> list[list[str]]:
    """Return the cells of every row of its tables, without their heads."""
    text = (DOCS / page).read_text(encoding="utf-8")
    tables = re.findall(r"^\|[^\n]*\|\n\|[-|]+\|\n((?:\|[^\n]*\|\n)+)", text, re.MULTILINE)
    return [line[2:-2].split(" | ") for table in tables for line in table.splitlines()]


@pytest.mark.parametrize("page", PAGES)
def test_every_row_links_the_tests_that_hold_it_and_they_exist(page: str) -> None:
    assert _rows(page)
    for *said, tests in _rows(page):
        linked = _TEST.findall(tests)
        assert linked, said
        assert tests.count("`") == 0, said  # a test that is named is linked
        assert tests.count("](") == len(linked), said
        for name, path in linked:
            source = (DOCS / path).resolve().read_text(encoding="utf-8")
            assert re.search(rf"^(?:async )?def {name}\(", source, re.MULTILINE), f"{said}: {path}::{name}"
