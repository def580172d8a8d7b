"""Replays carried out by whole deliverers: counted, made anew at their pace, and seen to their end."""

import asyncio
import json
import os
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
import standstill

from kapsel_store import replays, turns
from kapsel_store.replays import Phase, ReplayProgress
from kapsel_store.rows import Ordering, Policy, ReplayRow
from kapsel_store.states import State

ONCE = Policy(max_attempts=1, circuit_breaker=None)


def replay(shop, name: str = "again", **fields: object) -> ReplayRow:
    made = {
        "id": uuid4(),
        "namespace": "shop",
        "name": name,
        "endpoint_id": shop.endpoint.id,
        "destinations": None,
        "received_from": datetime.now(UTC) - timedelta(hours=1),
        "received_to": datetime.now(UTC) + timedelta(hours=1),
        "states": (State.EXHAUSTED,),
        "rate": 1000,
    }
    return ReplayRow(**{**made, **fields})


async def declare(shop, *rows: ReplayRow) -> None:
    async with shop.pool.acquire() as connection:
        await replays.apply(connection, rows, actor="test")


async def known(shop) -> dict[str, ReplayProgress]:
    async with shop.pool.acquire() as connection:
        return {one.name: one for one in await replays.progress(connection, asked=True)}


async def reaches(kit, shop, phase: Phase, name: str = "again") -> ReplayProgress:
    async def reached() -> bool:
        return (await known(shop))[name].phase is phase

    await kit.eventually(reached, f"a replay that is {phase}")
    return (await known(shop))[name]


async def twins(shop) -> list[tuple[int, int]]:
    """Return how many deliveries have how many new ones."""
    rows = await shop.pool.fetch(
        "SELECT made, count(*) FROM (SELECT count(*) AS made FROM deliveries WHERE replay_of IS NOT NULL "
        "GROUP BY replay_of) AS m GROUP BY made ORDER BY made"
    )
    return [(row["made"], row["count"]) for row in rows]


async def test_what_was_given_up_is_delivered_once_more_and_the_replay_completes(kit, shop, start, destination):
    destination.statuses = [500] * 5
    await shop.send_to(destination.url, policy=ONCE)
    running = await start()
    failed = await shop.put(5)
    await shop.ends(State.EXHAUSTED, *failed)
    [fine] = await shop.put(1)
    await shop.ends(State.DELIVERED, fine)

    await declare(shop, replay(shop))
    done = await reaches(kit, shop, Phase.COMPLETE)

    assert (done.matched, done.enqueued, done.delivered, done.failed) == (5, 5, 5, 0)
    assert done.message == "5 matched, 5 enqueued, 5 delivered"
    assert await twins(shop) == [(1, 5)]
    assert len(destination.received) == 11
    assert {(await shop.delivery(one)).state for one in failed} == {State.EXHAUSTED}
    assert await running.metric("replay_deliveries_enqueued_total") == 5


async def test_a_dry_run_counts_and_delivers_nothing(kit, shop, start, destination):
    await shop.send_to(destination.url)
    await start()
    await shop.ends(State.DELIVERED, *await shop.put(3))

    await declare(shop, replay(shop, states=(State.DELIVERED, State.CANCELLED), dry_run=True))
    done = await reaches(kit, shop, Phase.COMPLETE)

    assert (done.matched, done.enqueued) == (3, 0)
    assert done.message == "3 matched; a dry run delivers nothing"
    assert len(destination.received) == 3


async def test_what_a_person_asked_for_is_carried_out_whatever_manifests_declare(kit, shop, start, destination):
    destination.statuses = [500] * 2
    await shop.send_to(destination.url, policy=ONCE)
    await start()
    failed = await shop.put(2)
    await shop.ends(State.EXHAUSTED, *failed)

    async with shop.pool.acquire() as connection, connection.transaction():
        assert await replays.ask(connection, replay(shop, asked=True)) == "made"
    await declare(shop)
    done = await reaches(kit, shop, Phase.COMPLETE)

    assert (done.matched, done.delivered) == (2, 2)
    tried = await shop.pool.fetch(
        "SELECT d.replay_of, count(a.id) AS tries FROM deliveries d JOIN attempts a ON a.delivery_id = d.id "
        "WHERE d.replay_of IS NOT NULL GROUP BY d.id, d.replay_of"
    )
    assert {row["replay_of"]: row["tries"] for row in tried} == dict.fromkeys(failed, 1)


async def test_a_replay_that_is_declared_again_is_not_run_again(kit, shop, start, destination):
    await shop.send_to(destination.url)
    await start()
    await shop.ends(State.DELIVERED, *await shop.put(3))
    once = replay(shop, states=(State.DELIVERED,))
    await declare(shop, once)
    first = await reaches(kit, shop, Phase.COMPLETE)

    await declare(shop)
    await declare(shop, once)
    other = replay(shop, "other", states=(State.DELIVERED,))
    await declare(shop, once, other)
    await reaches(kit, shop, Phase.COMPLETE, "other")

    assert (await known(shop))["again"] == first
    assert await twins(shop) == [(1, 6)]


async def test_a_delivery_that_was_sent_again_stands_for_the_older_one(kit, shop, start, destination):
    destination.statuses = [500, 500, 500, 200]
    await shop.send_to(destination.url, policy=ONCE)
    await start()
    await shop.ends(State.EXHAUSTED, *await shop.put(2))
    await declare(shop, replay(shop))
    first = await reaches(kit, shop, Phase.COMPLETE)

    await declare(shop, replay(shop, "second"))
    second = await reaches(kit, shop, Phase.COMPLETE, "second")

    assert (first.delivered, first.failed) == (1, 1)
    assert (second.matched, second.delivered) == (1, 1)


async def test_only_the_selected_destinations_and_times_are_meant(kit, shop, start, destination):
    billing, audit = [await shop.send_to(destination.url) for _ in range(2)]
    await start()
    await shop.ends(State.DELIVERED, *await shop.put(2))
    middle = datetime.now(UTC)
    await asyncio.sleep(0.002)  # ids tell times by the millisecond
    await shop.ends(State.DELIVERED, *await shop.put(3))

    await declare(
        shop,
        replay(shop, "early", received_to=middle, states=(State.DELIVERED,), dry_run=True),
        replay(shop, "late", received_from=middle, states=(State.DELIVERED,), dry_run=True),
        replay(shop, "audit", destinations=(audit.id,), states=(State.DELIVERED,), dry_run=True),
        replay(shop, "failed", destinations=(billing.id,), dry_run=True),
    )
    for name in ("early", "late", "audit", "failed"):
        await reaches(kit, shop, Phase.COMPLETE, name)

    found = await known(shop)
    assert {name: one.matched for name, one in found.items()} == {"early": 4, "late": 6, "audit": 5, "failed": 0}


async def test_a_suspended_replay_waits_and_goes_on(kit, shop, start, destination):
    await shop.send_to(destination.url)
    await start()
    await shop.ends(State.DELIVERED, *await shop.put(3))
    waiting = replay(shop, states=(State.DELIVERED,), suspend=True)
    runs = replay(shop, "other", states=(State.DELIVERED,), dry_run=True)
    await declare(shop, waiting, runs)
    await reaches(kit, shop, Phase.COMPLETE, "other")
    assert (await known(shop))["again"].phase is Phase.SUSPENDED
    assert (await known(shop))["again"].started_at is None

    await declare(shop, replay(shop, id=waiting.id, states=(State.DELIVERED,)), runs)

    assert (await reaches(kit, shop, Phase.COMPLETE)).delivered == 3


async def test_removing_the_manifest_stops_it_where_it_is(kit, shop, start, destination):
    await shop.send_to(destination.url)
    await start()
    await shop.ends(State.DELIVERED, *await shop.put(30))
    slow = replay(shop, states=(State.DELIVERED,), rate=4)
    await declare(shop, slow)

    async def has_begun() -> bool:
        return (await known(shop))["again"].enqueued > 0

    await kit.eventually(has_begun)
    await declare(shop)
    made = await shop.pool.fetchval("SELECT enqueued FROM replays WHERE id = $1", slow.id)
    other = replay(shop, "other", states=(State.DELIVERED,), dry_run=True)
    await declare(shop, other)
    await reaches(kit, shop, Phase.COMPLETE, "other")
    assert await shop.pool.fetchval("SELECT enqueued FROM replays WHERE id = $1", slow.id) == made < 30

    await declare(shop, replay(shop, id=slow.id, states=(State.DELIVERED,)))
    done = await reaches(kit, shop, Phase.COMPLETE)
    assert (done.matched, done.enqueued, done.delivered) == (30, 30, 30)
    assert await twins(shop) == [(1, 30)]


async def test_what_a_cancelled_replay_had_made_is_still_counted_when_it_ends(kit, shop, start, destination):
    billing = await shop.send_to(destination.url)
    await start()
    await shop.ends(State.DELIVERED, *await shop.put(30))
    billing = await shop.change(billing, suspend=True)
    slow = replay(shop, states=(State.DELIVERED,), rate=4, asked=True)
    async with shop.pool.acquire() as connection, connection.transaction():
        assert await replays.ask(connection, slow) == "made"

    async def now() -> ReplayProgress:
        async with shop.pool.acquire() as connection:
            return await replays.get(connection, slow.id)

    async def has_begun() -> bool:
        return (await now()).enqueued > 0

    await kit.eventually(has_begun)
    async with shop.pool.acquire() as connection:
        assert await replays.cancel(connection, slow.id)
    made = await now()
    await shop.change(billing, suspend=False)

    async def is_counted() -> bool:
        return (await now()).delivered == made.enqueued

    await kit.eventually(is_counted, "what it had made is counted as delivered")
    assert (made.delivered, (await now()).phase) == (0, Phase.REMOVED)
    assert (await now()).enqueued == made.enqueued < 30


async def test_what_cannot_be_sent_any_more_is_skipped_and_said(kit, shop, start, destination):
    destination.statuses = [500] * 8
    gone = await shop.send_to(destination.url, policy=ONCE)
    await shop.send_to(destination.url, policy=ONCE)
    await start()
    failed = await shop.put(4)
    await shop.ends(State.EXHAUSTED, *failed)
    shop.destinations.remove(gone)
    await shop.apply()
    lost = (await shop.delivery(failed[1])).event_id
    await shop.pool.execute("DELETE FROM events WHERE id = $1", lost)

    await declare(shop, replay(shop))
    done = await reaches(kit, shop, Phase.COMPLETE)

    assert (done.matched, done.enqueued, done.delivered) == (8, 3, 3)
    assert (done.skipped_events, done.skipped_destinations) == (2, 3)
    assert "2 skipped because the retention of their event is over" in done.message
    assert "3 skipped because their destination was removed" in done.message


async def test_no_second_has_more_than_the_rate(kit, shop, start, destination):
    await shop.send_to(destination.url)
    await start()
    await shop.ends(State.DELIVERED, *await shop.put(30))
    await declare(shop, replay(shop, states=(State.DELIVERED,), rate=10))
    await reaches(kit, shop, Phase.COMPLETE)

    most = await shop.pool.fetchval(
        "SELECT max(n) FROM (SELECT count(*) OVER (ORDER BY created_at RANGE BETWEEN CURRENT ROW AND "
        "'999 milliseconds' FOLLOWING) AS n FROM deliveries WHERE replay_of IS NOT NULL) AS w"
    )
    assert most <= 10


async def test_replays_that_run_are_counted_and_those_that_are_suspended_are_not(kit, shop, start, destination):
    await shop.send_to(destination.url)
    running = await start()
    await shop.ends(State.DELIVERED, *await shop.put(1))
    await shop.put(100)
    slow = replay(shop, states=(State.DELIVERED,), rate=1)

    def counted(number: int):
        async def holds() -> bool:
            return await running.metric("replays_running") == number

        return holds

    await declare(shop, slow)
    await kit.eventually(counted(1), "a replay that runs")
    await declare(shop, replay(shop, id=slow.id, states=(State.DELIVERED,), rate=1, suspend=True))
    await kit.eventually(counted(0), "no replay that runs")


async def test_several_deliverers_make_each_new_delivery_once(kit, shop, start, destination):
    await shop.send_to(destination.url)
    for _ in range(3):
        await start()
    await shop.ends(State.DELIVERED, *await shop.put(200))
    await declare(shop, *(replay(shop, f"r{n}", states=(State.DELIVERED,), rate=2000, anyway=True) for n in range(2)))
    for name in ("r0", "r1"):
        assert (await reaches(kit, shop, Phase.COMPLETE, name)).delivered == 200
    assert await shop.pool.fetchval("SELECT count(DISTINCT (replay_id, delivery_id)) FROM replayed") == 400
    assert await shop.pool.fetchval("SELECT count(*) FROM deliveries WHERE replay_of IS NOT NULL") == 400


async def test_replays_at_once_share_what_they_both_mean(kit, shop, start, destination):
    await shop.send_to(destination.url)
    for _ in range(2):
        await start()
    await shop.ends(State.DELIVERED, *await shop.put(50))
    await declare(shop, *(replay(shop, f"r{n}", states=(State.DELIVERED,), rate=2000) for n in range(2)))
    done = [await reaches(kit, shop, Phase.COMPLETE, name) for name in ("r0", "r1")]
    assert await shop.pool.fetchval("SELECT count(DISTINCT event_id) FROM deliveries WHERE replay_of IS NOT NULL") == 50
    assert all(one.delivered + one.skipped_pending == one.matched for one in done)


async def test_a_deliverer_killed_again_and_again_leaves_each_delivery_one_new_one(
    kit, shop, database, destination, start
):
    await shop.send_to(destination.url, policy=Policy(circuit_breaker=None))
    first = await start()
    await shop.ends(State.DELIVERED, *await shop.put(300))
    await first.stop()
    await declare(shop, replay(shop, states=(State.DELIVERED,), rate=200))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")},
        "KAPSEL_DATABASE_URL": database.url,
        "KAPSEL_DATABASE_ROLE": "kapsel_deliverer",
        "KAPSEL_DATABASE_SCHEMA": database.schema,
        "KAPSEL_SEALING_KEY_FILE": str(database.sealing_key_file),
        "KAPSEL_DELIVERER_LEASE": "3",
    }
    for goal in (30, 120, 220):
        child = await asyncio.create_subprocess_exec(sys.executable, "-m", "kapsel_deliverer", env=environment)

        async def enough(goal: int = goal) -> bool:
            return (await known(shop))["again"].enqueued >= goal

        try:
            await kit.eventually(enough, f"{goal} new deliveries")
        finally:
            child.send_signal(signal.SIGKILL)
            await child.wait()
    await start(deliverer_lease=timedelta(seconds=3))
    done = await reaches(kit, shop, Phase.COMPLETE)
    assert (done.matched, done.enqueued, done.delivered) == (300, 300, 300)
    assert await twins(shop) == [(1, 300)]


async def test_a_replay_that_cannot_go_on_does_not_keep_others_waiting(kit, shop, start, destination):
    await shop.send_to(destination.url)
    running = await start()
    await shop.ends(State.DELIVERED, *await shop.put(3))
    bad = replay(shop, "bad", states=(State.DELIVERED,))
    await declare(shop, bad)
    await shop.pool.execute("UPDATE policies SET spec = jsonb_set(spec, '{max_age}', '\"no interval\"')")

    async def noticed() -> bool:
        return await running.metric("deliverer_errors_total", where="replay") > 0

    await kit.eventually(noticed)
    await declare(shop, bad, replay(shop, dry_run=True))
    await reaches(kit, shop, Phase.COMPLETE)
    assert (await known(shop))["bad"].enqueued == 0


async def numbered(shop, count: int, **fields: object) -> list[UUID]:
    """Store events whose bodies have a number and a key; return their deliveries."""
    made = []
    for number in range(count):
        body = json.dumps({"number": number, "key": f"c-{number % 4}"}).encode()
        made += await shop.put(body=body, **fields)
    return made


async def test_a_filter_means_some_events_and_each_of_them_is_delivered_once(kit, shop, start, destination):
    await shop.send_to(destination.url)
    await start()
    await shop.ends(State.DELIVERED, *await numbered(shop, 30))
    await shop.ends(State.DELIVERED, *await shop.put(5, body=b"no JSON"))
    destination.received.clear()
    wanted = {"states": (State.DELIVERED,), "filter": "event.body.number % 3 == 0"}

    await declare(shop, replay(shop, "dry", dry_run=True, **wanted), replay(shop, **wanted))
    dry = await reaches(kit, shop, Phase.COMPLETE, "dry")
    done = await reaches(kit, shop, Phase.COMPLETE)

    assert (dry.matched, dry.enqueued, dry.unjudged) == (10, 0, 5)
    left_out = "10 matched (5 left out because the filter could not be evaluated on their event)"
    assert dry.message == f"{left_out}; a dry run delivers nothing"
    assert (done.matched, done.enqueued, done.delivered, done.unjudged) == (10, 10, 10, 5)
    assert sorted(json.loads(one.body)["number"] for one in destination.received) == list(range(0, 30, 3))
    assert await twins(shop) == [(1, 10)]


async def test_a_filter_that_is_much_work_leaves_most_of_the_time_to_deliveries(kit, shop, start, destination):
    await shop.send_to(destination.url)
    await start()
    await shop.ends(State.DELIVERED, *await shop.put(20, body=standstill.BODY))
    one = standstill.evaluation()
    async with standstill.standstills() as gaps:
        began = time.perf_counter()
        await declare(shop, replay(shop, states=(State.DELIVERED,), filter=standstill.MUCH_WORK, dry_run=True))
        done = await reaches(kit, shop, Phase.COMPLETE)
        took = time.perf_counter() - began

    assert (done.matched, done.unjudged) == (20, 0)
    assert max(gaps) < 10 * one
    assert took > 20 * one * 2


async def test_a_filter_looks_at_more_events_than_one_step_may(kit, shop, start, destination):
    destination.statuses = [500] * 450
    await shop.send_to(destination.url, policy=ONCE)
    await start()
    failed = await shop.put(449, body=b'{"wanted": false}')
    failed += await shop.put(1, body=b'{"wanted": true}')
    await shop.ends(State.EXHAUSTED, *failed)

    await declare(shop, replay(shop, filter="event.body.wanted"))
    done = await reaches(kit, shop, Phase.COMPLETE)

    assert (done.matched, done.delivered, done.unjudged) == (1, 1, 0)
    assert len(destination.received) == 451


@pytest.mark.parametrize("expression", [None, 'event.body.key != "c-3"'])
async def test_a_destination_declared_later_gets_what_was_before_it_in_the_order_of_each_key(
    kit, shop, start, destination, expression
):
    await shop.send_to(destination.url)
    for _ in range(2):
        await start()
    await shop.ends(State.DELIVERED, *await numbered(shop, 40))
    destination.received.clear()
    destination.statuses = [500, 200, 200, 500, 500, 200] * 6
    later = await shop.send_to(destination.url, ordering=Ordering(key="event.body.key"))

    await declare(
        shop, replay(shop, states=(), missing=True, destinations=(later.id,), filter=expression, rate=100_000)
    )
    done = await reaches(kit, shop, Phase.COMPLETE)

    keys = [f"c-{line}" for line in range(4)][: None if expression is None else 3]
    assert (done.matched, done.delivered, done.failed) == (10 * len(keys), 10 * len(keys), 0)
    bodies = [json.loads(one.body) for one in destination.received]
    for line, key in enumerate(keys):
        came = [body["number"] for body in bodies if body["key"] == key]
        assert came == sorted(came)
        assert set(came) == set(range(line, 40, 4))
    lines = await shop.pool.fetch("SELECT DISTINCT order_key FROM deliveries WHERE destination_id = $1", later.id)
    assert {row["order_key"] for row in lines} == {turns.digest(later.id, key) for key in keys}
