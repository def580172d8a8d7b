"""docs/undelivered.md has the reasons as the code has them: whose fault, what they mean, what to do."""

from pathlib import Path

from kapsel_store.reasons import FAULTS, REASONS, reason

PAGE = (Path(__file__).parents[3] / "docs" / "undelivered.md").read_text(encoding="utf-8")
ANSWERS = ("status_301", "status_404", "status_503")


def table() -> str:
    """Return the rows of the reasons, by whose fault they are."""
    known = [*REASONS.values(), *(reason(code) for code in ANSWERS)]
    rows = [
        f"| `{one.code}` | {one.fault} | {one.means} | {one.advice or '-'} |"
        for fault in (*FAULTS[1:], FAULTS[0])
        for one in known
        if one.fault == fault
    ]
    return "\n".join(rows)


def test_the_page_has_the_reasons_of_the_code() -> None:
    assert f"\n{table()}\n" in PAGE, f"write these rows into docs/undelivered.md:\n{table()}"
