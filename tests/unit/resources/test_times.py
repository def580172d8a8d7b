from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from kapsel_resources.times import Time, text

TIME = TypeAdapter(Time)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-03-01T09:30:00Z", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("2026-03-01t09:30:00z", datetime(2026, 3, 1, 9, 30, tzinfo=UTC)),
        ("2026-03-01T09:30:00.25Z", datetime(2026, 3, 1, 9, 30, 0, 250_000, tzinfo=UTC)),
        ("2026-03-01T09:30:00+01:00", datetime(2026, 3, 1, 8, 30, tzinfo=UTC)),
    ],
)
def test_rfc_3339_is_read_as_a_time_in_utc(written, meant):
    assert TIME.validate_python(written) == meant
    assert TIME.validate_python(written).tzinfo is UTC


@pytest.mark.parametrize(
    "written",
    [
        "2026-03-01T09:30:00",
        "2026-03-01",
        "2026-03-01 09:30:00Z",
        "20260301T093000Z",
        "2026-W09-7T09:30:00Z",
        "2026-02-30T00:00:00Z",
        "2026-03-01T09:30Z",
        "2026-03-01T09:30:00+0100",
        "now",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "2026-03-01T09:30:00Z" + " " * 50,
        1772357400,
        None,
        datetime(2026, 3, 1),  # noqa: DTZ001 - one without an offset is meant
    ],
)
def test_other_ways_of_writing_a_time_are_refused(written):
    with pytest.raises(ValidationError, match=r"is not a time|has no offset from UTC|before the year 1"):
        TIME.validate_python(written)


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-7))]), min_value=datetime(1900, 1, 1)))  # noqa: DTZ001
def test_what_is_written_reads_as_the_same_second(moment):
    assert TIME.validate_python(text(moment)) == moment.astimezone(UTC).replace(microsecond=0)
