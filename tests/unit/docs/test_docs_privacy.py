"""What is not erased: docs/privacy.md has the list, and whoever erases is told before."""

from pathlib import Path

import pytest

from kapsel_cli.erase import TEXT

ROOT = Path(__file__).resolve().parents[3]
BEGINNING = "**What an erasure does not reach:**"


@pytest.mark.parametrize("what", ["destinations", "backups", "proof files", "idempotency key"])
def test_the_help_of_erase_names_what_it_does_not_reach(what: str) -> None:
    explained = (
        (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8").partition(BEGINNING)[2].partition("\n\n## ")[0]
    )
    named = TEXT.partition("Not erased:")[2].partition("\n\n")[0]
    assert what in explained.lower()
    assert what in named
