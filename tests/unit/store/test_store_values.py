"""States, ids and sealing: what the store decides without a database."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_store import hints, ids
from kapsel_store.errors import ImpossibleTransitionError, SealingError
from kapsel_store.queries import statement
from kapsel_store.sealing import SealingKeys
from kapsel_store.states import FINAL, TRANSITIONS, Event, State, after

MOMENTS = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9000, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.sampled_from(State), st.lists(st.sampled_from(Event)))
def test_no_sequence_of_events_leaves_a_final_state(state: State, events: list[Event]) -> None:
    for event in events:
        if event in TRANSITIONS[state]:
            assert state not in FINAL
            state = after(state, event)
        else:
            with pytest.raises(ImpossibleTransitionError):
                after(state, event)


def test_every_state_that_is_not_final_can_reach_a_final_one() -> None:
    reaching = set(FINAL)
    while grown := {s for s, events in TRANSITIONS.items() if reaching & set(events.values())} - reaching:
        reaching |= grown
    assert reaching == set(State)


@given(st.lists(st.integers(min_value=0, max_value=2**44), min_size=2, max_size=200))
def test_ids_strictly_increase_whatever_the_clock_does(clock: list[int]) -> None:
    generator = ids.Generator()
    made = [generator.new(now) for now in clock]
    assert all(earlier < later for earlier, later in itertools.pairwise(made))
    assert all(identifier.version == 7 and identifier.variant == "specified in RFC 4122" for identifier in made)


@given(MOMENTS)
def test_an_id_carries_its_millisecond_and_lies_inside_the_range_of_its_time(moment: datetime) -> None:
    made = ids.Generator().new(ids.milliseconds(moment))
    assert timedelta() <= moment - ids.timestamp(made) < timedelta(milliseconds=1)
    assert ids.first_at(moment) <= made < ids.first_at(moment + timedelta(milliseconds=1))


@given(st.binary(max_size=300), st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_what_is_sealed_opens_with_its_key_and_with_no_other(secret: bytes, key: bytes, other: bytes) -> None:
    sealed = SealingKeys([key]).seal(secret)
    assert SealingKeys([other, key]).open(sealed) == secret
    if other != key:
        with pytest.raises(SealingError, match="not among the sealing keys"):
            SealingKeys([other]).open(sealed)


@given(st.binary(min_size=1, max_size=64), st.data())
def test_a_sealed_secret_with_one_bit_flipped_is_refused(secret: bytes, data: st.DataObject) -> None:
    keys = SealingKeys([b"k" * 32])
    sealed = bytearray(keys.seal(secret))
    position = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[position // 8] ^= 1 << (position % 8)
    with pytest.raises(SealingError):
        keys.open(bytes(sealed))


@pytest.mark.parametrize("content", ["", "not hex", "ab" * 31, "ab" * 33])
def test_a_file_without_sealing_keys_is_named_in_the_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    path.write_text(content)
    with pytest.raises(SealingError):
        SealingKeys.from_file(path)


def test_a_sealing_key_file_may_hold_the_old_key_after_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "sealing.key"
    path.write_text(f"{'01' * 32}\n{'02' * 32}\n")
    assert SealingKeys.from_file(path).open(SealingKeys([b"\x02" * 32]).seal(b"old")) == b"old"


def test_an_unknown_statement_is_an_error() -> None:
    with pytest.raises(KeyError):
        statement("events.no_such_statement")


def test_a_hint_names_a_few_destinations_and_of_many_it_says_nothing() -> None:
    few = [ids.new() for _ in range(hints.MOST)]
    assert set(hints.named(hints.naming(few))) == set(few)
    assert hints.naming([*few, ids.new()]) == ""
