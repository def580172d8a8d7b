from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_resources import durations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", timedelta(0)),
        ("0s", timedelta(0)),
        ("250ms", timedelta(milliseconds=250)),
        ("1.5h", timedelta(minutes=90)),
        (".5s", timedelta(milliseconds=500)),
        ("1.s", timedelta(seconds=1)),
        ("1h30m", timedelta(minutes=90)),
        ("1m1m", timedelta(minutes=2)),
        ("3us", timedelta(microseconds=3)),
        ("3µs", timedelta(microseconds=3)),
        ("3μs", timedelta(microseconds=3)),
        ("1000ns", timedelta(microseconds=1)),
        ("0.1s", timedelta(milliseconds=100)),
        ("2160h", timedelta(days=90)),
    ],
)
def test_go_durations_are_read_exactly(text, expected):
    assert durations.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1d",
        "-1s",
        "+1s",
        "1 s",
        "s",
        ".s",
        "1,5s",
        "1S",
        "1e3s",
        "1s ",
        "\u0661s",
        "1ns",
        "0.0000001s",
        "1s" * 40,
    ],
)
def test_what_is_no_go_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"is not a duration|finer than a microsecond"):
        durations.parse(text)


def test_a_duration_that_cannot_be_kept_is_refused():
    with pytest.raises(ValueError, match="longer than any duration"):
        durations.parse("9" * 40 + "h")


@given(st.timedeltas(min_value=timedelta(0)))
def test_what_is_written_is_read_back(duration):
    assert durations.parse(durations.text(duration)) == duration


@given(st.text(alphabet="0123456789.hmsnuµ", max_size=20))
def test_any_text_is_a_duration_or_a_value_error(text):
    try:
        assert durations.parse(text) >= timedelta(0)
    except ValueError:
        pass
