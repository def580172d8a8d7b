"""docs/egress.md names every range that is refused."""

from pathlib import Path

from kapsel_egress.ranges import SPECIAL

PAGE = (Path(__file__).parents[3] / "docs" / "egress.md").read_text(encoding="utf-8")


def test_every_range_that_is_refused_stands_in_the_docs() -> None:
    rows = {
        f"| {name} | {', '.join(one for one in cidrs if ':' not in one)} |"
        f" {', '.join(one for one in cidrs if ':' in one)} |"
        for name, cidrs in SPECIAL
    }
    assert [row for row in sorted(rows) if row not in PAGE] == []
