"""How the places of a deliverer are shared out."""

from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.places import Asking, Places, share

EMPTY = Places(total=512, taken=0, slow=0)


def shares(places: Places, *asking: Asking, most: int = 10_000) -> list[int]:
    """Return what each gets, in their order."""
    ids = [uuid4() for _ in asking]
    given = share(places, dict(zip(ids, asking, strict=True)), most)
    return [given.get(one, 0) for one in ids]


def slow(room: int, held: int = 0) -> Asking:
    return Asking(held, room, quick=False)


def quick(room: int, held: int = 0) -> Asking:
    return Asking(held, room, quick=True)


def test_all_wishes_are_granted_while_there_is_enough() -> None:
    assert shares(EMPTY, quick(100), slow(100), quick(3)) == [100, 100, 3]


def test_who_is_alone_has_all_but_the_last_eighth_and_who_is_slow_three_quarters() -> None:
    assert shares(EMPTY, quick(10_000)) == [448]
    assert shares(EMPTY, slow(10_000)) == [384]


def test_who_has_least_comes_first_whoever_is_quick() -> None:
    busy = Places(total=512, taken=400, slow=0)
    assert shares(busy, quick(1000, held=400), slow(1000)) == [0, 48]
    assert shares(busy, slow(20, held=20), slow(1000)) == [14, 34]


def test_what_one_cannot_use_another_gets() -> None:
    assert shares(EMPTY, slow(2), slow(1000), slow(5)) == [2, 377, 5]


def test_of_those_that_have_as_much_the_first_comes_first() -> None:
    assert shares(EMPTY, quick(9), quick(9), quick(9), most=2) == [1, 1, 0]
    assert shares(EMPTY, quick(9), quick(9), quick(9), most=5) == [2, 2, 1]


def test_when_slow_ones_have_their_three_quarters_one_that_has_none_still_gets_one() -> None:
    full = Places(total=512, taken=384, slow=384)
    assert shares(full, slow(10, held=384), slow(10), slow(10, held=1)) == [0, 1, 0]


def test_the_last_sixteenth_is_for_quick_ones_alone() -> None:
    full = Places(total=512, taken=480, slow=480)
    assert shares(full, slow(10), quick(10)) == [0, 3]


def test_in_the_last_eighth_a_quick_one_has_no_more_than_an_eighth_of_what_is_left() -> None:
    full = Places(total=512, taken=448, slow=448)
    assert shares(full, quick(100), quick(100, held=6), quick(100, held=8)) == [7, 1, 0]


@pytest.mark.parametrize("total", [1, 2, 3])
def test_where_there_is_little_to_share_all_of_it_is_used(total: int) -> None:
    assert shares(Places(total=total, taken=0, slow=0), slow(10)) == [total]


LANES = st.lists(
    st.builds(Asking, held=st.integers(0, 40), room=st.integers(0, 600), quick=st.booleans()), min_size=1, max_size=40
)


@given(lanes=LANES, spare=st.integers(0, 600), most=st.integers(0, 600))
def test_no_more_is_given_than_there_is_nor_than_anybody_wants(lanes: list[Asking], spare: int, most: int) -> None:
    taken = sum(each.held for each in lanes)
    of_slow = sum(each.held for each in lanes if not each.quick)
    places = Places(total=taken + spare, taken=taken, slow=of_slow)
    given_to = shares(places, *lanes, most=most)
    assert sum(given_to) <= min(spare, most)
    assert all(0 <= count <= each.room for count, each in zip(given_to, lanes, strict=True))
    more_for_slow = sum(count for count, each in zip(given_to, lanes, strict=True) if not each.quick and each.held)
    assert not more_for_slow or of_slow + more_for_slow <= places.total - places.total // 4


@given(lanes=LANES, spare=st.integers(0, 600))
def test_who_may_have_one_gets_one_if_nobody_else_asks(lanes: list[Asking], spare: int) -> None:
    taken = sum(each.held for each in lanes)
    places = Places(total=taken + spare, taken=taken, slow=sum(each.held for each in lanes if not each.quick))
    for each in lanes:
        (count,) = shares(places, each)
        assert (count > 0) == (each.room > 0 and places.may_have(each.held, quick=each.quick))


Arrangement = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 2000)), max_size=60)


@given(total=st.integers(16, 1024), hanging=Arrangement)
def test_whatever_hangs_and_is_known_to_leaves_a_place_to_one_that_is_quick(
    total: int, hanging: list[tuple[int, int]]
) -> None:
    held = dict.fromkeys(range(31), 0)
    for which, room in hanging:  # in any order, again and again, and none of them ever ends a try
        places = Places(total=total, taken=sum(held.values()), slow=sum(held.values()))
        held[which] += shares(places, slow(room, held=held[which]))[0]
        places = Places(total=total, taken=sum(held.values()), slow=sum(held.values()))
        assert shares(places, quick(10)) >= [1]


@given(total=st.integers(128, 1024), hanging=st.lists(st.integers(1, 2000), max_size=12))
def test_a_dozen_that_were_quick_and_begin_to_hang_in_one_moment_leave_a_place_to_the_next(
    total: int, hanging: list[int]
) -> None:
    taken = 0
    for limit in hanging:
        held = 0
        while got := shares(Places(total=total, taken=taken, slow=0), quick(limit - held, held=held))[0]:
            held, taken = held + got, taken + got
    assert shares(Places(total=total, taken=taken, slow=0), quick(1)) == [1]


@given(
    total=st.integers(16, 256),
    lanes=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 9), st.booleans()), min_size=2, max_size=20),
)
def test_everybody_is_served_within_the_time_of_the_longest_try_of_anybody(
    total: int, lanes: list[tuple[int, int, bool]]
) -> None:
    # Each has more to do than it will ever end: a limit, rounds that a try takes, and whether it counts as quick.
    ids: list[UUID] = [uuid4() for _ in lanes]
    ends: dict[UUID, list[int]] = {one: [] for one in ids}
    served: set[UUID] = set()
    for now in range(10):
        for one in ids:
            ends[one] = [end for end in ends[one] if end > now]
        held = {one: len(ends[one]) for one in ids}
        of_slow = sum(held[one] for one, lane in zip(ids, lanes, strict=True) if not lane[2])
        asking = {
            one: Asking(held[one], limit - held[one], is_quick)
            for one, (limit, _, is_quick) in zip(ids, lanes, strict=True)
        }
        given_to = share(Places(total=total, taken=sum(held.values()), slow=of_slow), asking, total)
        for one, (_, takes, _) in zip(ids, lanes, strict=True):
            ends[one] += [now + takes] * given_to.get(one, 0)
        served |= {one for one in ids if ends[one]}
    assert served == set(ids)
