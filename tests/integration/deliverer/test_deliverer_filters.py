"""Filters at work: each destination gets what it wants, a bad one stops nobody, and what fails is mended, not lost."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
import standstill

from kapsel_store.rows import Backoff, Policy, RateLimit, Transform, Verification
from kapsel_store.states import State

CREATED = b'{"action": "created", "user": {"id": 7}}'
DELETED = b'{"action": "deleted", "user": {"id": 7}}'
PLAIN = b"a=1&b=2"
UNTIL_MENDED = Policy(
    backoff=Backoff(type="Schedule", schedule=(timedelta(milliseconds=50),), jitter=0), max_attempts=10_000
)


async def test_a_destination_gets_the_events_that_its_filter_wants(destination, shop, start) -> None:
    await shop.send_to(destination.url, filter="event.body.action == 'created'")
    deliverer = await start()
    (wanted,) = await shop.put(body=CREATED)
    (unwanted,) = await shop.put(body=DELETED)

    ended = await shop.ends(State.CANCELLED, unwanted)
    assert (ended.last_reason, ended.attempts) == ("filtered", 0)
    assert await shop.attempts(unwanted) == []
    delivered = await shop.ends(State.DELIVERED, wanted)
    assert delivered.attempts == 1
    assert [got.body for got in destination.received] == [CREATED]
    assert await deliverer.metric("webhook_deliveries_filtered_total") == 1
    assert await deliverer.metric("expression_evaluation_seconds_count", place="filter") == 2


async def test_one_event_goes_to_each_destination_that_wants_it(destination, shop, start) -> None:
    """Conditional routing: by type, by header, by body, and to those that want all."""
    shop.endpoint = replace(shop.endpoint, verification=Verification(scheme="github", key_name="endpoint/orders"))
    for wants in (
        None,
        "event.type == 'push'",
        "event.type == 'issues'",
        "'x-region' in event.headers && event.headers['x-region'] == 'eu'",
        "event.body.user.id > 100 || event.endpoint == 'other'",
    ):
        await shop.send_to(destination.url, filter=wants)
    await start()
    headers = json.dumps([["X-GitHub-Event", "push"], ["X-Region", "eu"]])
    ids = await shop.put(body=CREATED, headers=headers)

    for number, state in enumerate(
        (State.DELIVERED, State.DELIVERED, State.CANCELLED, State.DELIVERED, State.CANCELLED)
    ):
        await shop.ends(state, ids[number])


async def test_a_filter_that_fails_is_a_recorded_try_and_a_mended_one_delivers(
    destination, shop, start, kit, caplog: pytest.LogCaptureFixture
) -> None:
    row = await shop.send_to(destination.url, filter="event.body.customer == 7", policy=UNTIL_MENDED)
    deliverer = await start()
    (failing,) = await shop.put(body=CREATED, correlation_id="order-7")

    async def tried_twice() -> bool:
        return len(await shop.attempts(failing)) >= 2

    await kit.eventually(tried_twice, "two recorded tries")
    first = (await shop.attempts(failing))[0].attempt
    assert (first.outcome, first.reason, first.response_status) == ("unsent", "filter_error", None)
    assert first.detail == "the event has no customer (character 12)"
    assert destination.received == []
    assert await deliverer.metric("expression_errors_total", place="filter", reason="missing") >= 2
    told = [record for record in caplog.records if record.name == "kapsel_deliverer.shaping"]
    assert {record.__dict__["correlation_id"] for record in told} == {"order-7"}

    await shop.change(row, filter="event.body.user.id == 7")
    delivered = await shop.ends(State.DELIVERED, failing)
    assert delivered.last_reason == "status_200"
    assert [got.body for got in destination.received] == [CREATED]


async def test_a_bad_expression_never_stops_other_destinations(destination, shop, start) -> None:
    """Not even one that the plan should have refused, such as one that a newer version wrote."""
    later = Policy(backoff=Backoff(type="Schedule", schedule=(timedelta(hours=1),)))
    await shop.send_to(destination.url, filter="event.body.gone == 1", policy=later)
    await shop.send_to(destination.url, filter="brand.new(1)", policy=later)
    await shop.send_to(destination.url, filter="event.body.user.id == 7")
    await start()
    ids = await shop.put(50, body=CREATED)
    await shop.ends(State.DELIVERED, *ids[2::3])
    assert {(await shop.delivery(each)).state for each in ids[:2]} <= {State.PENDING, State.SENDING}


async def test_a_filter_guards_itself_against_bodies_that_are_no_json(destination, shop, start) -> None:
    await shop.send_to(destination.url, filter="!has(event.body) || event.body.action == 'created'")
    await start()
    (plain,) = await shop.put(body=PLAIN, content_type="application/x-www-form-urlencoded")
    (deleted,) = await shop.put(body=DELETED)
    await shop.ends(State.DELIVERED, plain)
    await shop.ends(State.CANCELLED, deleted)
    assert destination.received[0].body == PLAIN
    assert destination.received[0].headers["content-type"] == "application/x-www-form-urlencoded"


async def test_what_is_not_wanted_takes_nothing_of_the_rate(destination, shop, start) -> None:
    await shop.send_to(
        destination.url,
        filter="event.body.action == 'created'",
        rate_limit=RateLimit(requests_per_second=0.01, burst=1),
    )
    await start()
    unwanted = await shop.put(40, body=DELETED)
    await shop.ends(State.CANCELLED, *unwanted)
    # A second token comes after 100 s: the one that there was is still there.
    (wanted,) = await shop.put(body=CREATED)
    await shop.ends(State.DELIVERED, wanted)


@pytest.mark.parametrize(
    "shaped",
    [{"filter": standstill.MUCH_WORK}, {"transform": Transform(body=f'{{"none": {standstill.MUCH_WORK}}}')}],
)
async def test_an_expression_that_is_much_work_stops_no_other_delivery(destination, shop, start, shaped) -> None:
    """Claimed together, 32 of its events would keep everything else waiting for as many evaluations."""
    slow = await shop.send_to(destination.url, max_in_flight=32, suspend=True, **shaped)
    waiting = [delivery_id for _ in range(64) for delivery_id in await shop.put(body=standstill.BODY)]
    await start()
    for_one = standstill.evaluation()
    async with standstill.standstills() as gaps:
        shop.destinations[shop.destinations.index(slow)] = replace(slow, suspend=False)
        await shop.apply()
        await shop.ends(State.DELIVERED, *waiting)
    assert max(gaps) < 12 * for_one
    assert len(destination.received) == 64
