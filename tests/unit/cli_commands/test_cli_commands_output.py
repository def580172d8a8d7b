"""What commands print: ages, sizes, tables that line up, nothing that could move a cursor."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_cli.output import Column, Table, age, duration, printable, size

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (5.9, "5s"),
        (119, "119s"),
        (120, "2m"),
        (3600, "60m"),
        (7200, "2h"),
        (172_799, "47h"),
        (172_800, "2d"),
    ],
)
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_age_is_never_negative_and_what_is_to_come_says_so() -> None:
    assert age("2026-01-31T11:57:00.000Z", NOW) == "3m"
    assert age("2026-01-31T12:00:00.900Z", NOW) == "0s"
    assert age("2026-01-31T12:05:00.000Z", NOW) == "in 5m"
    assert age(None, NOW) == "-"


def test_a_size_has_the_unit_that_reads_best() -> None:
    assert [size(count) for count in (None, 0, 1023, 1024, 1_572_864)] == [
        "erased",
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 MiB",
    ]


@given(st.text())
def test_printable_text_cannot_move_a_cursor(text: str) -> None:
    assert all(character.isprintable() for character in printable(text))


def test_rows_that_come_later_line_up_under_the_same_heading(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(
        columns=[Column(title="NAME", cell=lambda item, _: item["n"]), Column(title="B", cell=lambda *_: "b")]
    )
    table.print([], NOW)
    table.print([{"n": "a"}, {"n": "a long name"}], NOW)
    table.print([{"n": "c"}], NOW + timedelta(seconds=1))
    table.print([], NOW)
    assert capsys.readouterr().out.splitlines() == [
        "NAME          B",
        "a             b",
        "a long name   b",
        "c             b",
    ]
