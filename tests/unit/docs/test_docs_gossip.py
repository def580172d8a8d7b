"""The receiver checks in docs/gossip.md are those of examples/gossip, which are run against a forked log."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = {"python": "python/gossip.py", "javascript": "javascript/gossip.mjs", "go": "go/gossip.go"}


@pytest.mark.parametrize("language", list(FILES))
def test_the_page_shows_what_is_tested(language: str) -> None:
    page = (ROOT / "docs" / "gossip.md").read_text()
    (shown,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert shown in (ROOT / "examples" / "gossip" / FILES[language]).read_text()
    assert len(shown.splitlines()) > 15
