from datetime import UTC, datetime, timedelta
from itertools import accumulate, pairwise
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from kapsel_resources import rotation
from kapsel_resources.kinds.signing_key import Rotation
from kapsel_store.rows import KeyRow

START = datetime(2026, 1, 1, tzinfo=UTC)
ROTATION = Rotation.model_validate({"period": "240h", "overlap": "24h"})


def _make(version, not_before):
    return KeyRow(
        id=UUID(int=version),
        namespace="shop",
        name="generated/k",
        version=version,
        algorithm="HMAC-SHA256",
        secret=b"%d" % version,
        not_before=not_before,
    )


def _live(rows, now):
    return [row.version for row in rows if row.not_before <= now and (row.not_after is None or now < row.not_after)]


def _rotations():
    return st.tuples(st.integers(1, 1000), st.floats(0.02, 0.98)).map(
        lambda pair: Rotation(
            period=timedelta(hours=pair[0]), overlap=max(timedelta(minutes=1), timedelta(hours=pair[0]) * pair[1])
        )
    )


def test_a_new_key_is_live_at_once_also_for_a_clock_that_is_behind():
    rows = rotation.versions([], None, START, _make)

    assert _live(rows, START - timedelta(minutes=4)) == [1]
    assert rows[0].not_after is None


def test_the_next_version_is_published_a_period_ahead():
    first, second = rotation.versions([], ROTATION, START, _make)

    assert second.not_before == first.not_before + ROTATION.period
    assert first.not_after == second.not_before + ROTATION.overlap


def test_the_old_version_lives_on_for_the_overlap_and_is_then_gone():
    rows = rotation.versions([], ROTATION, START, _make)
    changed = rows[1].not_before

    during = rotation.versions(rows, ROTATION, changed + timedelta(hours=1), _make)
    after = rotation.versions(during, ROTATION, changed + ROTATION.overlap, _make)

    assert _live(during, changed + timedelta(hours=1)) == [1, 2]
    assert [row.version for row in during] == [1, 2, 3]
    assert [row.version for row in after] == [2, 3]


def test_a_rotation_that_is_late_is_announced_for_an_hour_and_keeps_the_old_version_for_the_overlap():
    rows = rotation.versions([], None, START, _make)
    late = START + timedelta(days=400)

    rotated = rotation.versions(rows, ROTATION, late, _make)

    assert _live(rotated, late) == [1]
    assert rotated[1].not_before == late + timedelta(hours=1)
    assert rotated[0].not_after == rotated[1].not_before + ROTATION.overlap
    assert rotation.versions(rotated, ROTATION, late + timedelta(minutes=20), _make) == rotated


def test_a_period_that_becomes_shorter_brings_the_successor_forward_and_no_nearer_than_an_hour():
    rows = rotation.versions([], ROTATION, START, _make)
    later, shorter = START + timedelta(days=5), Rotation.model_validate({"period": "24h", "overlap": "1m"})

    rotated = rotation.versions(rows, shorter, later, _make)

    assert [row.version for row in rotated] == [1, 2]
    assert rotated[1].not_before == later + timedelta(hours=1)


def test_without_a_rotation_the_key_stays_and_what_was_planned_is_dropped():
    rows = rotation.versions([], ROTATION, START, _make)

    (kept,) = rotation.versions(rows, None, START, _make)

    assert (kept.version, kept.not_after) == (1, None)


def test_a_clock_that_goes_back_leaves_a_live_version():
    rows = rotation.versions([], ROTATION, START, _make)
    before = START - timedelta(days=30)

    assert _live(rotation.versions(rows, ROTATION, before, _make), before) == [1]


@settings(deadline=None)
@given(rotation_=_rotations(), steps=st.lists(st.integers(0, 60 * 24 * 90), min_size=1, max_size=20))
def test_whenever_the_plan_runs_some_version_is_live_and_planning_again_changes_nothing(rotation_, steps):
    rows, now = (), START
    for step in steps:
        now += timedelta(minutes=step)
        rows = rotation.versions(rows, rotation_, now, _make)
        versions = [row.version for row in rows]
        assert _live(rows, now)
        assert versions == sorted(set(versions))
        assert rows[-1].not_before > now
        assert rows[-1].not_after is None
        assert all(row.not_after is None or row.not_after > row.not_before for row in rows)
        assert rotation.versions(rows, rotation_, now, _make) == rows


@settings(deadline=None)
@given(rotation_=_rotations(), away=st.integers(0, 60 * 24 * 365))
def test_at_no_time_is_there_no_live_version_however_long_the_operator_is_away(rotation_, away):
    rows = rotation.versions([], rotation_, START, _make)

    assert _live(rows, START + timedelta(minutes=away))


@settings(deadline=None)
@given(rotation_=_rotations(), steps=st.lists(st.integers(0, 60 * 24 * 90), min_size=1, max_size=10))
def test_successive_versions_are_live_together_for_the_overlap(rotation_, steps):
    rows, now = (), START
    for step in steps:
        now += timedelta(minutes=step)
        rows = rotation.versions(rows, rotation_, now, _make)
        for old, new in pairwise(rows):
            assert old.not_after == new.not_before + rotation_.overlap


@settings(deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 400), st.none() | _rotations()), min_size=1, max_size=12),
    offset=st.integers(0, 59),
)
def test_who_fetches_the_public_keys_every_hour_always_knows_one_that_signs(steps, offset):
    """Whenever the rotation is declared, changed or dropped, and however seldom the plan runs."""
    rows, known = (), set()
    planned = list(accumulate(wait for wait, _ in steps))
    for minute in range(planned[-1] + 300):
        now = START + timedelta(minutes=minute)
        for at, (_, rotation_) in zip(planned, steps, strict=True):
            if at == minute:
                rows = rotation.versions(rows, rotation_, now, _make)
        if minute % 60 == offset or not known:
            known = {row.version for row in rows if row.not_after is None or now < row.not_after}
        assert not rows or known & set(_live(rows, now))
