"""Who may have how many deliveries."""

import math
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import claims
from hypothesis import given
from hypothesis import strategies as st

from kapsel_deliverer.lane import Bucket, Leased
from kapsel_deliverer.lanes import ASKED_AT_ONCE, HELD_BYTES, Lanes
from kapsel_store.limits import Allotted, Demand, Drawn, draw
from kapsel_store.limits import Bucket as SharedBucket
from kapsel_store.rows import Batch, Claimed, DestinationRow, RateLimit

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = uuid4()
LEASE_FOR = timedelta(seconds=10)
BUCKETS: dict[UUID, SharedBucket] = {}


def destination(**fields: object) -> DestinationRow:
    return DestinationRow(
        **{"id": uuid4(), "endpoint_id": uuid4(), "name": "d", "url": "https://example.com", **fields}
    )


def claimed(destination_id: UUID, size: int = 2) -> Claimed:
    return claims.claimed(destination_id=destination_id, created_at=NOW, body=bytes(size))


def lanes(*rows: DestinationRow, capacity: int = 512) -> Lanes:
    made = Lanes(capacity)
    made.configure(rows, 0.0)
    return made


def start(made: Lanes, key: UUID, now: float = 0.0) -> Leased | None:
    """Start the next one of a lane, with slots and tokens as if there were no other deliverer."""
    if leased := made.start(key, now):
        return leased
    for one, demand in made.demands(now).items():
        assert not made.allotted(one, Allotted(slots=demand.wanted, short=False), now, math.inf)
    for one, asked in made.draws(now).items():
        BUCKETS[one], drawn = draw(BUCKETS.get(one), "me", asked, NOW + timedelta(seconds=now), LEASE_FOR)
        assert not made.drawn(one, drawn, now)
    return made.start(key, now)


def bring(made: Lanes, wanted: dict[UUID, int], count: int | None = None, size: int = 2) -> list[Leased]:
    """Let a claim bring `count` of each, or all that was wanted, and start what may start."""
    found = [claimed(key, size) for key, room in wanted.items() for _ in range(room if count is None else count)]
    made.arrived(wanted, found, LEASE, math.inf)
    started = []
    for key in wanted:
        while leased := start(made, key):
            started.append(leased)
    return started


def test_a_lane_asks_for_its_limit_and_then_for_nothing() -> None:
    row = destination(max_in_flight=4)
    made = lanes(row)
    assert made.wanted(0) == {row.id: 4}
    bring(made, {row.id: 4})
    assert made.wanted(0) == {}


def test_a_lane_that_gave_all_is_asked_again_without_a_hint_and_one_that_did_not_is_not() -> None:
    full, empty = destination(max_in_flight=2), destination(max_in_flight=2)
    made = lanes(full, empty)
    wanted = made.wanted(0)
    leased = [claimed(full.id), claimed(full.id)]
    made.arrived(wanted, leased, LEASE, math.inf)
    while one := start(made, full.id):
        made.finished(one, 10.0, 0)
    assert made.wanted(0) == {full.id: 2}
    made.arrived({full.id: 2}, [], LEASE, math.inf)
    assert made.wanted(0) == {}
    made.look_everywhere()
    assert set(made.wanted(0)) == {full.id, empty.id}


def test_what_a_hint_names_is_asked_for_and_nothing_else() -> None:
    named, other, suspended = destination(max_in_flight=2), destination(max_in_flight=2), destination(suspend=True)
    made = lanes(named, other, suspended)
    made.arrived(made.wanted(0), [], LEASE, math.inf)
    made.may_have_due([named.id, suspended.id, uuid4()])
    assert made.wanted(0) == {named.id: 2}


def test_nothing_may_be_claimed_where_it_could_not_be_sent() -> None:
    working, suspended, open_, half_open = (destination(suspend=number == 1) for number in range(4))
    made = lanes(working, suspended, open_, half_open)
    made.set_circuit(open_.id, 0)
    made.set_circuit(half_open.id, 1)
    asked = (working.id, suspended.id, open_.id, half_open.id, uuid4())
    assert [made.may_claim(one) for one in asked] == [True, False, False, True, False]


def test_quick_destinations_are_leased_ahead_and_slow_ones_are_not() -> None:
    quick, slow = destination(max_in_flight=10), destination(max_in_flight=10)
    made = lanes(quick, slow)
    started = bring(made, made.wanted(0))
    for leased in started:
        made.finished(leased, 0.002 if leased.delivery.destination_id == quick.id else 5.0, 0)
    assert made.wanted(0) == {quick.id: 50, slow.id: 10}


def test_a_quick_destination_is_leased_ahead_while_all_that_may_be_is_under_way() -> None:
    row = destination(max_in_flight=10)
    made = lanes(row)
    for leased in bring(made, made.wanted(0)):
        made.finished(leased, 0.002, 0)
    started = bring(made, made.wanted(0))
    for leased in started[:5]:
        made.finished(leased, 0.002, 0)
    while start(made, row.id):
        pass
    assert made.wanted(0) == {row.id: 5}


def test_no_more_start_than_the_limit_however_many_are_leased() -> None:
    row = destination(max_in_flight=3)
    made = lanes(row)
    assert len(bring(made, {row.id: 3}, count=9)) == 3


def test_a_rate_limits_what_is_asked_for() -> None:
    row = destination(rate_limit=RateLimit(requests_per_second=10, burst=5))
    made = lanes(row)
    for leased in bring(made, made.wanted(0)):
        made.finished(leased, 0.001, 0)
    assert made.wanted(0) == {}
    assert math.isclose(made.wait(0), 0.1)
    assert made.wanted(0.25) == {row.id: 2}


def test_a_pause_is_kept() -> None:
    row = destination(max_in_flight=1)
    made = lanes(row)
    [leased] = bring(made, made.wanted(0))
    made.finished(leased, 0.001, 10.0, pause=5.0)
    assert made.wanted(14.9) == {}
    assert math.isclose(made.wait(10.0), 5.0)
    assert made.wanted(15.0) == {row.id: 5}


def test_a_removed_destination_is_never_asked_again_whatever_its_circuit_does() -> None:
    row, other = destination(), destination()
    made = lanes(row, other)
    [leased, *_] = bring(made, {row.id: 1})
    made.set_circuit(row.id, 0)
    made.configure((other,), 0.0)
    made.set_circuit(row.id, None)
    made.finished(leased, 1.0, 1.0)
    assert row.id not in made.wanted(2.0)
    assert made.wait(2.0) >= 0


def test_an_open_circuit_gives_back_what_waits_and_asks_for_probes_alone() -> None:
    row = destination(max_in_flight=4)
    made = lanes(row)
    bring(made, {row.id: 4}, count=6)
    assert len(made.set_circuit(row.id, 0)) == 2
    made.look_everywhere()
    assert made.wanted(0) == {}
    made.set_circuit(row.id, 3)
    made = lanes(row)
    made.set_circuit(row.id, 3)
    [one, two] = bring(made, made.wanted(0), count=2)
    assert one.probe
    assert two.probe
    assert made.probes(row.id) == 1
    made.set_circuit(row.id, None)
    assert made.wanted(0)[row.id] >= 2


def test_what_arrives_for_a_lane_that_is_gone_is_given_back() -> None:
    row = destination()
    made = lanes(row)
    wanted = made.wanted(0)
    made.configure([], 0.0)
    assert len(made.arrived(wanted, [claimed(row.id)], LEASE, math.inf)) == 1
    assert made.held == 0


def test_a_removed_lane_lives_until_its_last_try_has_ended() -> None:
    row = destination()
    made = lanes(row)
    [leased] = bring(made, made.wanted(0), count=1)
    made.configure([], 0.0)
    made.finished(leased, 0.1, 0)
    assert made.held == 0
    assert start(made, row.id) is None


def test_a_busy_lane_does_not_take_the_room_of_others() -> None:
    rows = [destination(max_in_flight=1000) for _ in range(4)]
    made = lanes(*rows, capacity=100)
    # The last quarter is for lanes that are known to be quick.
    assert sorted(made.wanted(0).values()) == [18, 19, 19, 19]


def test_what_one_lane_cannot_use_another_gets() -> None:
    small, large = destination(max_in_flight=2), destination(max_in_flight=30)
    assert lanes(small, large, capacity=40).wanted(0) == {small.id: 2, large.id: 28}


def test_what_may_take_long_begins_a_few_at_a_time_and_what_ends_at_once_does_not() -> None:
    unknown = destination(max_in_flight=300, timeout=timedelta(seconds=10))
    made = lanes(unknown)
    started = bring(made, made.wanted(0))
    assert len(started) == 32
    assert made.wanted(0) == {}
    # As many more as could end in that time if each took the whole of its timeout, and half as many again.
    assert math.isclose(made.wait(0), 10 / 300 / 1.5)
    assert made.wanted(0.25) == {unknown.id: 11}
    made.finished(started[0], 0.01, 0.25)
    assert made.wanted(0.25)[unknown.id] > 300


def test_nothing_is_lost_by_beginning_a_few_at_a_time() -> None:
    row = destination(max_in_flight=300, timeout=timedelta(seconds=10))
    made = lanes(row)
    ends: deque[tuple[float, Leased]] = deque()
    counts = []
    for step in range(1200):
        now = step / 20
        while ends and ends[0][0] <= now:
            made.finished(ends.popleft()[1], 3.0, now)
        while leased := start(made, row.id, now):
            ends.append((now + 3.0, leased))
        made.look_everywhere()
        ends.extend((now + 3.0, leased) for leased in bring(made, made.wanted(now)))
        counts.append(len(ends))
    # All of the limit is in use, and it never ends in one moment.
    assert min(counts[400:]) > 0.95 * 300


def test_a_destination_that_hangs_though_it_was_quick_counts_as_slow_once_its_tries_are_overdue() -> None:
    hung = destination(max_in_flight=1000)
    made = lanes(hung, capacity=64)
    for leased in bring(made, made.wanted(0), count=1):
        made.finished(leased, 0.01, 0)
    assert len(bring(made, {hung.id: 40})) == 40
    assert made.wanted(0.9) == {hung.id: 56 - 40}
    assert made.wanted(1.1) == {hung.id: 48 - 40}


def test_tries_that_take_no_time_at_all_are_quick() -> None:
    row = destination(max_in_flight=4)
    made = lanes(row)
    for leased in bring(made, made.wanted(0)):
        made.finished(leased, 0.0, 0)
    assert made.wanted(0) == {row.id: 4 + 16}
    assert made.wait(0) == 0.0


def test_one_straggler_does_not_make_a_destination_slow() -> None:
    row, slow = destination(), destination(max_in_flight=1000)
    made = lanes(row, slow, capacity=16)
    for leased in bring(made, {row.id: 1}):
        made.finished(leased, 0.01, 0)
    bring(made, {row.id: 1})
    bring(made, {slow.id: 11})
    made.look_everywhere()
    assert made.wanted(10.0)[row.id] >= 1


def test_bodies_of_one_that_hangs_leave_memory_to_the_others() -> None:
    hanging, good, new = (destination(max_in_flight=100) for _ in range(3))
    made = lanes(hanging, good, new)
    for leased in bring(made, {good.id: 1}):
        made.finished(leased, 0.01, 0)
    # Nobody knew how large they are: there is far too much of it, and none of it goes away.
    assert len(bring(made, {hanging.id: 40}, size=1024 * 1024)) == 40
    made.look_everywhere()
    wanted = made.wanted(0)
    assert hanging.id not in wanted
    assert wanted[good.id] > 1
    assert wanted[new.id] == 1


def test_thousands_of_lanes_are_asked_in_turn() -> None:
    rows = [destination(max_in_flight=1) for _ in range(1000)]
    made = lanes(*rows)
    asked: set[UUID] = set()
    while wanted := made.wanted(0):
        assert len(wanted) <= ASKED_AT_ONCE
        assert not asked & wanted.keys()
        asked |= wanted.keys()
        made.arrived(wanted, [], LEASE, math.inf)
    assert len(asked) == 1000


def test_where_there_are_many_lanes_those_that_wait_are_asked_each_in_its_turn() -> None:
    rows = [destination(max_in_flight=1) for _ in range(1000)]
    made = lanes(*rows)
    assert made.are_many
    assert not lanes(*rows[:10]).are_many
    made.look_at([rows[5].id, uuid4()])
    assert made.wanted(0) == {rows[5].id: 1}
    first: list[UUID] = []
    for _ in range(4):
        made.look_at([row.id for row in rows])
        first.append(next(iter(made.wanted(0))))
    assert len(set(first)) == 4


def test_bodies_in_memory_are_bounded() -> None:
    row = destination(max_in_flight=10_000)
    made = lanes(row, capacity=10_000)
    started = bring(made, {row.id: 1}, size=HELD_BYTES // 4)
    # A quarter of the memory is not for what may hang.
    assert made.wanted(0)[row.id] == 2
    bring(made, {row.id: 2}, size=HELD_BYTES // 4)
    made.look_everywhere()
    assert made.wanted(0) == {}
    made.finished(started[0], 0.1, 0)
    assert made.wanted(0) == {row.id: 1}


@given(
    limits=st.lists(st.integers(0, 50), min_size=1, max_size=20),
    capacity=st.integers(1, 100),
    rounds=st.lists(st.tuples(st.integers(0, 100), st.floats(0, 1)), max_size=20),
)
def test_no_more_is_ever_asked_for_than_there_is_room(
    limits: list[int], capacity: int, rounds: list[tuple[int, float]]
) -> None:
    rows = [destination(max_in_flight=limit or 1, suspend=limit == 0) for limit in limits]
    made = lanes(*rows, capacity=capacity)
    running: list[Leased] = []
    for brought, finishing in rounds:
        made.look_everywhere()
        wanted = made.wanted(0)
        assert sum(wanted.values()) + made.held <= capacity
        running += bring(made, wanted, count=None if brought > 50 else 0)
        for row in rows:
            assert sum(each.delivery.destination_id == row.id for each in running) <= row.max_in_flight
        ended, running = running[: int(len(running) * finishing)], running[int(len(running) * finishing) :]
        for leased in ended:
            made.finished(leased, 0.01, 0)
        for row in rows:
            while leased := start(made, row.id):
                running.append(leased)


def test_what_is_known_of_a_bucket_fills_up_to_its_burst() -> None:
    bucket = Bucket(RateLimit(requests_per_second=2, burst=4), 0.0)
    bucket.learn(0.0, 0.0)
    assert bucket.available(0.4) == 0
    assert math.isclose(bucket.wait(0.4), 0.1)
    assert bucket.available(1.0) == 2
    assert bucket.available(100.0) == 4


def test_a_clock_that_goes_back_takes_no_tokens() -> None:
    bucket = Bucket(RateLimit(requests_per_second=2, burst=4), 100.0)
    assert bucket.available(50.0) == 4


def test_nothing_starts_without_a_slot_and_slots_end_by_themselves() -> None:
    row = destination(max_in_flight=4)
    made = lanes(row)
    made.arrived({row.id: 4}, [claimed(row.id) for _ in range(4)], LEASE, math.inf)
    assert made.start(row.id, 0.0) is None
    assert made.demands(0.0) == {row.id: Demand(limit=4, wanted=4, held=0)}
    made.allotted(row.id, Allotted(slots=4, short=False), 0.0, 8.0)
    assert made.start(row.id, 7.9) is not None
    assert made.start(row.id, 8.0) is None
    assert made.demands(8.0) == {row.id: Demand(limit=4, wanted=4, held=1)}


def test_what_others_have_the_slots_for_is_given_back_and_not_claimed_again_at_once() -> None:
    row = destination(max_in_flight=4)
    made = lanes(row)
    made.arrived({row.id: 4}, [claimed(row.id) for _ in range(4)], LEASE, math.inf)
    made.start(row.id, 0.0)
    made.demands(0.0)
    assert len(made.allotted(row.id, Allotted(slots=1, short=True), 0.0, 8.0)) == 3
    assert made.start(row.id, 0.0) is not None
    made.look_everywhere()
    assert made.wanted(0.5) == {}
    assert made.demands(0.5) == {}


def test_nothing_is_claimed_for_a_suspended_destination_of_which_others_had_slots_too() -> None:
    row = destination(max_in_flight=4)
    made = lanes(row)
    made.arrived({row.id: 1}, [claimed(row.id)], LEASE, math.inf)
    made.allotted(row.id, Allotted(slots=1, short=True), 0.0, 8.0)
    made.configure([replace(row, suspend=True)], 1.0)
    assert made.wanted(1.0) == {}  # else it would be claimed and given back without end


def test_a_lane_without_any_slot_looks_for_one_again_later() -> None:
    row = destination(max_in_flight=4)
    made = lanes(row)
    made.arrived({row.id: 4}, [claimed(row.id)], LEASE, math.inf)
    made.start(row.id, 0.0)
    made.demands(0.0)
    assert len(made.allotted(row.id, Allotted(slots=0, short=True), 0.0, 8.0)) == 1
    made.look_everywhere()
    assert made.wanted(0.5) == {}
    assert math.isclose(made.wait(0.5), 0.5)
    assert made.wanted(1.0) == {row.id: 1}


def test_a_question_lowers_what_may_be_used_until_it_is_answered() -> None:
    row = destination(max_in_flight=32)
    made = lanes(row)
    made.arrived({row.id: 40}, [claimed(row.id) for _ in range(32)], LEASE, math.inf)
    made.start(row.id, 0.0)
    made.demands(0.0)
    made.allotted(row.id, Allotted(slots=32, short=False), 0.0, 8.0)
    running = [made.start(row.id, 0.0) for _ in range(32)]
    for leased in running[:31]:
        assert leased is not None
        made.finished(leased, 5.0, 1.0)
    # One is under way, so four are enough: from now on no more than four start, whatever becomes of the question.
    assert made.renewals(4.0, 10.0) == {row.id: Demand(limit=32, wanted=4, held=4)}
    made.arrived({row.id: 10}, [claimed(row.id) for _ in range(9)], LEASE, math.inf)
    assert [made.start(row.id, 4.0) is not None for _ in range(4)] == [True, True, True, False]


def test_slots_that_nothing_needs_are_given_back_and_a_few_are_left_to_lapse() -> None:
    row = destination(max_in_flight=32)
    made = lanes(row)
    made.allotted(row.id, Allotted(slots=32, short=False), 0.0, 8.0)
    assert made.renewals(1.0, 10.0) == {row.id: Demand(limit=32, wanted=0)}
    assert made.renewals(2.0, 10.0) == {}
    made.allotted(row.id, Allotted(slots=4, short=False), 2.0, 10.0)
    assert made.renewals(3.0, 10.0) == {}


def test_a_token_is_good_for_a_moment_and_what_would_wait_long_for_one_is_given_back() -> None:
    row = destination(rate_limit=RateLimit(requests_per_second=0.5, burst=2))
    made = lanes(row)
    made.arrived({row.id: 2}, [claimed(row.id), claimed(row.id)], LEASE, math.inf)
    made.start(row.id, 0.0)
    made.demands(0.0)
    made.allotted(row.id, Allotted(slots=4, short=False), 0.0, 8.0)
    assert made.start(row.id, 0.0) is None
    assert made.draws(0.0)[row.id].need == 2
    assert len(made.drawn(row.id, Drawn(tokens=1, left=0.0, wait=2.0), 0.0)) == 1
    assert made.start(row.id, 1.0) is None
    assert made.start(row.id, 0.9) is not None


@given(st.integers(0, 60), st.integers(1, 500), st.integers(4, 512))
def test_destinations_that_hang_never_take_the_last_places_from_one_that_is_quick(
    dead: int, limit: int, capacity: int
) -> None:
    good = destination(max_in_flight=8)
    hanging = [destination(max_in_flight=limit) for _ in range(dead)]
    made = lanes(good, *hanging, capacity=capacity)
    [first, *_] = bring(made, {good.id: 1}, count=1)
    made.finished(first, 0.01, 0.0)
    for _ in range(5):
        made.look_everywhere()
        wanted = made.wanted(0)
        # The dead ones keep all that they get; the good one ends its tries at once.
        assert wanted.get(good.id, 0) >= 1
        for leased in bring(made, wanted):
            if leased.delivery.destination_id == good.id:
                made.finished(leased, 0.01, 0.0)
        while leased := start(made, good.id):
            made.finished(leased, 0.01, 0.0)


def test_while_only_reserved_places_are_left_a_slow_lane_waits_for_a_try_to_end_and_not_for_time() -> None:
    row = destination(max_in_flight=100)
    made = lanes(row, capacity=8)
    started = bring(made, made.wanted(0))
    assert len(started) == 6
    made.look_everywhere()
    assert made.wanted(0) == {}
    assert made.may_have_more
    assert made.wait(0) == math.inf
    made.finished(started[0], 15.0, 0)
    assert made.wanted(0) == {row.id: 1}


def test_a_suspended_destination_keeps_nobody_awake_whatever_its_circuit_does() -> None:
    row = destination(max_in_flight=8)
    made = lanes(row)
    bring(made, {row.id: 8}, count=0)
    made.set_circuit(row.id, 0)
    made.allotted(row.id, Allotted(slots=0, short=True), 0, 10)
    made.configure([destination(id=row.id, max_in_flight=8, suspend=True)], 0)
    made.set_circuit(row.id, None)
    made.set_recovery(row.id, RateLimit(requests_per_second=1, burst=1), 0)
    made.wanted(5)
    assert made.wait(5) == math.inf
    assert not made.may_have_more


def test_a_probe_that_was_not_sent_is_sent_later() -> None:
    row = destination(max_in_flight=1)
    made = lanes(row)
    made.set_circuit(row.id, 1)
    made.arrived(made.wanted(0), [claimed(row.id)], LEASE, math.inf)
    assert made.probes(row.id) == 0
    assert made.start(row.id, 0) is None
    demands = made.demands(0)
    (surplus,) = made.allotted(row.id, Allotted(slots=0, short=True), 0, 10)
    assert demands[row.id].wanted
    assert surplus.probe
    assert made.probes(row.id) == 1
    assert made.wanted(5) == {row.id: 1}


def test_who_leaves_gives_back_the_slots_that_no_try_needs() -> None:
    idle, busy, never = (destination(max_in_flight=4) for _ in range(3))
    made = lanes(idle, busy, never)
    for leased in bring(made, {idle.id: 1}):
        made.finished(leased, 0.01, 0)
    bring(made, {busy.id: 1})
    assert made.partings() == {idle.id: Demand(limit=4, wanted=0)}


def together(**fields: object) -> DestinationRow:
    return destination(batch=Batch(max_events=10, interval=timedelta(seconds=5)), **{"max_in_flight": 25, **fields})


def gathered(made: Lanes, key: UUID, count: int, now: float) -> list[Leased]:
    """Have a claim bring so many, as the worker does, and start what may start."""
    wanted = made.wanted(now)
    claims = [claimed(key) for _ in range(min(count, wanted[key]))]
    assert made.arrived(wanted, claims, LEASE, 100.0) == []
    made.gather(key, now)
    started = []
    while leased := start(made, key, now):
        started.append(leased)
    return started


def test_where_deliveries_go_together_others_may_come_before_the_next_claim_unless_there_were_more() -> None:
    row = together()
    made = lanes(row)
    assert len(gathered(made, row.id, 25, 0.0)) == 25
    made.look_everywhere()
    assert made.wanted(0.1) == {}  # a full request does not fit
    made = lanes(row)
    started = gathered(made, row.id, 3, 0.0)
    for leased in started:
        made.finished(leased, 0.01, 0.1)
    made.look_everywhere()
    assert made.wanted(4.9) == {}
    assert made.wait(4.9) == 5.0 - 4.9
    assert made.wanted(5.0) == {row.id: 25}


def test_a_claim_waits_for_room_for_a_full_request_and_not_for_more() -> None:
    row = together()
    made = lanes(row)
    started = gathered(made, row.id, 25, 0.0)
    for leased in started[:9]:
        made.finished(leased, 5.0, 0.1)
    made.look_everywhere()
    assert (made.wanted(0.1), made.wait(0.1)) == ({}, 4.9)
    made.finished(started[9], 5.0, 0.1)
    assert made.wanted(0.1) == {row.id: 10}  # however long tries take: many are one request


def test_a_try_that_hangs_keeps_the_others_from_going_for_the_interval_alone() -> None:
    row = together(max_in_flight=10)
    made = lanes(row)
    gathered(made, row.id, 1, 0.0)
    made.look_everywhere()
    assert (made.wanted(4.9), made.wait(4.9)) == ({}, 5.0 - 4.9)
    assert len(gathered(made, row.id, 7, 5.0)) == 7
    made.look_everywhere()
    assert made.wanted(9.9) == {}
    assert made.wanted(10.0) == {row.id: 2}


def test_a_request_is_full_with_as_many_as_a_burst_has() -> None:
    row = together(max_in_flight=10, rate_limit=RateLimit(requests_per_second=100, burst=4))
    made = lanes(row)
    assert len(gathered(made, row.id, 10, 0.0)) == 4
    made.look_everywhere()
    assert made.wait(0.0) < 0.1
    assert made.wanted(0.1) == {row.id: 4}


def test_tokens_that_come_one_by_one_make_no_requests_of_one() -> None:
    row = together(rate_limit=RateLimit(requests_per_second=4, burst=10))
    made = lanes(row)
    assert len(gathered(made, row.id, 10, 0.0)) == 10
    made.look_everywhere()
    assert made.wanted(0.3) == {}  # there is one again, and after a full request, too, one is not enough
    slow = together(rate_limit=RateLimit(requests_per_second=100, burst=5))
    made = lanes(slow)
    assert len(gathered(made, slow.id, 10, 0.0)) == 5
    made.look_everywhere()
    assert made.wanted(0.04) == {}
    assert made.wait(0.04) < 0.02  # as soon as the burst is there again, and not after the whole interval


def test_what_goes_together_waits_for_the_tokens_of_all_that_were_claimed() -> None:
    row = together(rate_limit=RateLimit(requests_per_second=20, burst=10))
    made = lanes(row)
    made.arrived(made.wanted(0.0), [claimed(row.id) for _ in range(7)], LEASE, 100.0)
    assert made.start(row.id, 0.0) is None
    made.demands(0.0)
    made.allotted(row.id, Allotted(slots=25, short=False), 0.0, math.inf)
    assert made.start(row.id, 0.0) is None
    [asked] = made.draws(0.0).values()
    bucket, drawn = draw(SharedBucket(tokens=4.0, filled_at=NOW, outstanding={}), "me", asked, NOW, LEASE_FOR)
    assert (drawn.tokens, bucket.tokens) == (0, 4.0)  # others have drawn, and what is left is left for them
    assert made.drawn(row.id, drawn, 0.0) == []
    assert made.draws(0.1) == {}
    assert math.isclose(made.until_lacking(0.1), 0.05)
    [asked] = made.draws(0.2).values()
    bucket, drawn = draw(bucket, "me", asked, NOW + timedelta(seconds=0.2), LEASE_FOR)
    assert made.drawn(row.id, drawn, 0.2) == []
    assert all(made.start(row.id, 0.2) for _ in range(7))


def test_what_goes_together_no_more_is_claimed_at_once() -> None:
    row = together()
    made = lanes(row)
    gathered(made, row.id, 3, 0.0)
    made.configure([replace(row, batch=None)], 0.1)
    assert made.wanted(0.1)[row.id] >= 22


def test_what_goes_together_waits_for_the_slots_of_all_that_were_claimed() -> None:
    row = together()
    made = lanes(row)
    (first,) = gathered(made, row.id, 1, 0.0)  # with some slots more, for a second one
    made.finished(first, 0.01, 0.1)
    made.look_everywhere()
    made.arrived(made.wanted(5.0), [claimed(row.id) for _ in range(9)], LEASE, 100.0)
    assert made.start(row.id, 5.0) is None
    demands = made.demands(5.0)
    assert demands[row.id].wanted >= 9
    made.allotted(row.id, Allotted(slots=9, short=False), 5.0, math.inf)
    assert all(made.start(row.id, 5.0) for _ in range(9))


def test_what_goes_together_goes_with_the_slots_that_there_are_if_others_have_the_rest() -> None:
    row = together()
    made = lanes(row)
    made.arrived(made.wanted(0.0), [claimed(row.id) for _ in range(9)], LEASE, 100.0)
    assert made.start(row.id, 0.0) is None
    made.demands(0.0)
    assert len(made.allotted(row.id, Allotted(slots=4, short=True), 0.0, math.inf)) == 5
    assert all(made.start(row.id, 0.0) for _ in range(4))
