"""The index of endpoints: paths, live keys as time passes, and what outlives a reload."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from kapsel_receiver.endpoints import Endpoint, Index
from kapsel_receiver.limits import Tokens
from kapsel_store.rows import (
    Configuration,
    DestinationRow,
    EndpointRow,
    KeyRow,
    Policy,
    RateLimit,
    Verification,
)

MakeKey = Callable[..., KeyRow]
ORDERS = EndpointRow(
    id=UUID(int=1), namespace="shop", name="orders", verification=Verification(scheme="github", key_name="in")
)
START = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _nobody(_: Tokens) -> None:
    """Draw no token: no request comes."""


def test_an_endpoint_is_found_by_id_and_by_name_and_by_nothing_else() -> None:
    index = Index(_nobody)
    index.replace(Configuration(generation=3, endpoints=(ORDERS,)))
    by_id = index.at(f"/ingest/{ORDERS.id}")
    assert by_id is not None
    assert by_id is index.at("/ingest/shop/orders")
    assert by_id.label == "shop/orders"
    for path in ("/ingest/shop/orders/", "/ingest/orders", "/ingest/", "/", "", f"/{ORDERS.id}", "/ingest/SHOP/orders"):
        assert index.at(path) is None
    assert (index.generation, index.loaded) == (3, True)


def test_a_url_that_is_switched_off_is_as_unknown_as_one_that_never_was() -> None:
    index = Index(_nobody)
    index.replace(Configuration(endpoints=(replace(ORDERS, paths=("Id",)),)))
    assert index.at("/ingest/shop/orders") is None
    assert index.at(f"/ingest/{ORDERS.id}") is not None
    index.replace(Configuration(endpoints=(replace(ORDERS, paths=("Name",)),)))
    assert index.at(f"/ingest/{ORDERS.id}") is None


def test_an_endpoint_knows_its_destinations_and_only_the_keys_of_its_own_name_and_namespace(make_key: MakeKey) -> None:
    mine, other = UUID(int=10), UUID(int=2)
    policy = Policy(max_age=timedelta(hours=1))
    key = make_key(b"a")
    index = Index(_nobody)
    index.replace(
        Configuration(
            endpoints=(ORDERS,),
            destinations=(
                DestinationRow(id=mine, endpoint_id=ORDERS.id, name="a", url="https://a", policy=policy, suspend=True),
                DestinationRow(id=UUID(int=11), endpoint_id=other, name="b", url="https://b"),
            ),
            keys=(key, replace(key, namespace="else"), replace(key, name="out")),
        )
    )
    endpoint = index.at("/ingest/shop/orders")
    assert endpoint is not None
    assert endpoint.destinations == ((mine, timedelta(hours=1)),)
    assert endpoint.live_keys(START) == (key,)


def test_keys_overlap_while_they_rotate_and_follow_a_clock_that_jumps(make_key: MakeKey) -> None:
    old = make_key(version=1, not_before=START, lasts=3 * DAY)
    new = make_key(version=2, not_before=START + 2 * DAY)
    endpoint = Endpoint(ORDERS, (), (old, new), None)
    moments = [
        (-1, ()),
        (0, (old,)),
        (2, (old, new)),
        (3, (new,)),
        (9, (new,)),
        (2.5, (old, new)),
        (0.1, (old,)),
        (-1, ()),
    ]
    for days, live in moments:
        assert endpoint.live_keys(START + days * DAY) == live


@given(
    st.lists(st.tuples(st.integers(0, 10), st.none() | st.integers(1, 10)), max_size=4),
    st.lists(st.integers(-1, 22), max_size=12),
)
def test_cached_keys_are_always_those_whose_interval_holds(
    intervals: list[tuple[int, int | None]], days: list[int]
) -> None:
    keys = [
        KeyRow(
            id=UUID(int=number),
            namespace="shop",
            name="in",
            version=number + 1,
            algorithm="HMAC-SHA256",
            secret=b"",
            not_before=START + begin * DAY,
            not_after=None if lasts is None else START + (begin + lasts) * DAY,
        )
        for number, (begin, lasts) in enumerate(intervals)
    ]
    endpoint = Endpoint(ORDERS, (), keys, None)
    for day in days:
        now = START + day * DAY
        expected = tuple(k for k in keys if k.not_before <= now and (k.not_after is None or now < k.not_after))
        assert endpoint.live_keys(now) == expected


def tokens_of(index: Index) -> Tokens | None:
    endpoint = index.at("/ingest/shop/orders")
    assert endpoint is not None
    return endpoint.rate


def test_a_reload_keeps_who_waits_for_a_token_also_when_the_limit_changes() -> None:
    index = Index(_nobody)
    limited = replace(ORDERS, rate_limit=RateLimit(requests_per_second=1, burst=1))
    index.replace(Configuration(endpoints=(limited,)))
    first = tokens_of(index)
    other = RateLimit(requests_per_second=2, burst=1)
    index.replace(Configuration(endpoints=(replace(ORDERS, rate_limit=other),)))
    assert tokens_of(index) is first
    assert first is not None
    assert first.limit == other
    index.replace(Configuration(endpoints=(ORDERS,)))
    assert tokens_of(index) is None
