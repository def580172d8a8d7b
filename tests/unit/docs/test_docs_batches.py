"""The destinations in docs/batches.md are those of examples/batch, which are run behind a deliverer."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FILES = {"python": "python/batch.py", "javascript": "javascript/batch.mjs", "go": "go/batch.go"}


@pytest.mark.parametrize("language", list(FILES))
def test_the_page_shows_what_is_tested(language: str) -> None:
    page = (ROOT / "docs" / "batches.md").read_text(encoding="utf-8")
    (shown,) = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
    assert shown in (ROOT / "examples" / "batch" / FILES[language]).read_text(encoding="utf-8")
    assert 30 < len(shown.splitlines()) < 60
