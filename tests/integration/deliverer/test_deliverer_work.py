"""The deliverer at work: limits, circuits, crashes, a database that goes away, draining. Nothing is lost or stuck."""

import asyncio
import os
import signal
import sys
import time
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from pydantic import SecretStr
from traffic import within

from kapsel_store import deliveries, hints
from kapsel_store.rows import CircuitBreaker, DestinationRow, Policy, RateLimit
from kapsel_store.states import State

GIVEN_UP = "webhook_deliveries_exhausted_total"


async def test_a_destination_gets_no_more_at_once_than_it_allows(destination, shop, start, kit) -> None:
    async def slow(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.02)
        return web.Response()

    destination.answer = slow
    await shop.send_to(destination.url, max_in_flight=3)
    await start()
    await shop.ends(State.DELIVERED, *await shop.put(40))
    assert destination.most_under_way == 3


async def test_a_destination_gets_no_more_a_second_than_it_allows(destination, shop, start) -> None:
    await shop.send_to(destination.url, rate_limit=RateLimit(requests_per_second=20, burst=5))
    await start()
    began = time.monotonic()
    await shop.ends(State.DELIVERED, *await shop.put(15))
    assert time.monotonic() - began >= 0.45


async def test_a_destination_that_hangs_does_not_hold_up_another(destination, shop, start, kit) -> None:
    async def hang(_reader, _writer) -> None:
        await asyncio.Event().wait()

    async with kit.Raw(hang) as raw:
        await shop.send_to(raw.url, timeout=timedelta(seconds=30))
        await shop.put(300)
        shop.destinations.reverse()
        await shop.send_to(destination.url)
        deliverer = await start(deliverer_concurrency=64, drain_timeout=4)
        hung = shop.destinations.pop(0)
        await shop.ends(State.DELIVERED, *await shop.put(20))
        shop.destinations.insert(0, hung)
        assert await deliverer.metric("worker_pool_busy") >= 32
        assert await deliverer.metric("worker_pool_size") == 64


async def test_among_many_destinations_those_with_work_are_found(destination, shop, start) -> None:
    rows = [
        DestinationRow(id=uuid4(), endpoint_id=shop.endpoint.id, name=f"n{number}", url=destination.url)
        for number in range(600)
    ]
    shop.destinations = rows
    await shop.apply()
    await start()
    shop.destinations = rows[::7]
    made = await shop.put(2)
    await shop.ends(State.DELIVERED, *made)
    assert len(destination.received) == len(made)


async def test_410_stops_a_destination_until_its_manifest_changes(destination, shop, start, kit) -> None:
    destination.statuses = [410]
    row = await shop.send_to(destination.url, max_in_flight=1)
    deliverer = await start()
    [gone] = await shop.put()
    await shop.ends(State.EXHAUSTED, gone)

    async def stopped() -> bool:
        return await deliverer.metric("circuit_breaker_state", destination=f"shop/orders/{row.name}") == 3

    await kit.eventually(stopped)
    circuit = await shop.circuit(row.id)
    assert (circuit.disabled_reason, circuit.disabled_at is not None) == ("gone", True)
    [kept] = await shop.put()
    [also_kept] = await shop.put()
    assert len(destination.received) == 1
    await shop.change(row, url=destination.url + "/new")
    await shop.ends(State.DELIVERED, kept, also_kept)


async def test_a_circuit_opens_probes_and_heals(destination, shop, start, kit) -> None:
    healthy = False

    async def sick(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=200 if healthy else 500)

    destination.answer = sick
    breaker = CircuitBreaker(
        min_attempts=10,
        probes=2,
        open_for=timedelta(milliseconds=700),
        window=timedelta(minutes=1),
        recovery=timedelta(0),
    )
    policy = Policy(backoff=kit.QUICK, max_attempts=10_000, circuit_breaker=breaker)
    row = await shop.send_to(destination.url, policy=policy, max_in_flight=4)
    deliverer = await start()
    made = await shop.put(200)

    async def state(wanted: int) -> bool:
        label = f"shop/orders/{row.name}"
        return await deliverer.metric("circuit_breaker_state", destination=label) == wanted

    await kit.eventually(lambda: state(2), "an open circuit")
    opened = len(destination.received)
    # It opens soon after ten failures; what was under way is all that goes out besides.
    assert opened < 100

    async def probed() -> bool:
        return len(destination.received) > opened + 4

    await kit.eventually(probed, "probes")
    # Each time at most the two probes go out, and a failed one opens the circuit again.
    assert len(destination.received) < opened + 20
    healthy = True
    delivery = await shop.ends(State.DELIVERED, *made)
    assert delivery.attempts < 100
    await kit.eventually(lambda: state(0), "a closed circuit")


async def test_deliverers_share_a_circuit(destination, shop, start, kit) -> None:
    async def sick(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=500)

    destination.answer = sick
    policy = Policy(backoff=kit.QUICK, max_attempts=10_000, circuit_breaker=CircuitBreaker(min_attempts=10))
    row = await shop.send_to(destination.url, policy=policy, max_in_flight=4)
    first, second = await start(), await start()
    await shop.put(50)
    label = f"shop/orders/{row.name}"

    async def both_open() -> bool:
        states = [await each.metric("circuit_breaker_state", destination=label) for each in (first, second)]
        return states == [2, 2]

    await kit.eventually(both_open, "a circuit that both see open")


async def test_a_delivery_past_its_age_ends_though_nobody_may_try_it(destination, shop, start) -> None:
    policy = Policy(max_age=timedelta(milliseconds=300))
    row = await shop.send_to(destination.url, policy=policy, suspend=True)
    deliverer = await start()
    [delivery_id] = await shop.put()
    delivery = await shop.ends(State.EXHAUSTED, delivery_id)
    assert (delivery.attempts, delivery.last_reason) == (0, "destination_suspended")
    assert await deliverer.metric("delivery_expired_total") == 1
    assert await deliverer.metric(GIVEN_UP, destination=f"shop/orders/{row.name}", fault="configuration") == 1
    assert await deliverer.metric(GIVEN_UP, destination=f"shop/orders/{row.name}", fault="ours") == 0
    assert row.suspend


@pytest.mark.parametrize(
    "policy", [Policy(retry_status_codes=()), Policy(max_attempts=1), Policy(max_age=timedelta(seconds=3))]
)
async def test_what_is_given_up_is_counted_whichever_bound_ends_it(destination, shop, start, kit, policy) -> None:
    destination.statuses = [500]
    row = await shop.send_to(destination.url, policy=policy)
    label = f"shop/orders/{row.name}"
    deliverer = await start()
    assert await deliverer.metric(GIVEN_UP, destination=label) == 0
    [delivery_id] = await shop.put()
    await shop.ends(State.EXHAUSTED, delivery_id)

    async def counted() -> bool:
        return await deliverer.metric(GIVEN_UP, destination=label, fault="destination") == 1

    await kit.eventually(counted, "a delivery that was given up, counted")
    assert await deliverer.metric(GIVEN_UP) == 1


async def test_a_suspended_destination_keeps_its_deliveries(destination, shop, start) -> None:
    row = await shop.send_to(destination.url, suspend=True)
    await start()
    made = await shop.put(5)
    other = await shop.send_to(destination.url)
    shop.destinations = [other]
    await shop.ends(State.DELIVERED, *await shop.put())
    assert len(destination.received) == 1
    shop.destinations = [row, other]
    await shop.change(row, suspend=False)
    await shop.ends(State.DELIVERED, *made)


async def test_a_retry_is_made_when_it_is_due_and_not_at_the_next_poll(destination, shop, start) -> None:
    destination.statuses = [500, 500, 500]
    await shop.send_to(destination.url)
    await start(deliverer_poll_interval=timedelta(seconds=60))
    [delivery_id] = await shop.put()
    assert (await shop.ends(State.DELIVERED, delivery_id)).attempts == 4


async def test_what_hints_name_is_delivered_before_anybody_polls(destination, shop, start) -> None:
    row = await shop.send_to(destination.url)
    await start(deliverer_poll_interval=timedelta(seconds=60))
    said = hints.naming([row.id])
    for _ in range(3):
        made = await asyncio.gather(*(shop.put(said=said) for _ in range(10)))
        await shop.ends(State.DELIVERED, *(one for put in made for one in put))


async def test_a_hint_that_is_not_understood_is_about_everything(destination, shop, start) -> None:
    await shop.send_to(destination.url)
    await start(deliverer_poll_interval=timedelta(seconds=60))
    for said in ("", "of a later version"):
        await shop.ends(State.DELIVERED, *await shop.put(said=said))


async def test_what_is_due_later_is_found_without_a_hint(destination, shop, start, kit) -> None:
    destination.statuses = [500]
    slow = Policy(backoff=kit.QUICK.__class__(initial=timedelta(seconds=3), jitter=0), circuit_breaker=None)
    await shop.send_to(destination.url, policy=slow)
    first = await start()
    [delivery_id] = await shop.put()
    await destination.got(1)

    async def is_recorded() -> bool:
        return (await shop.delivery(delivery_id)).attempts >= 1

    await kit.eventually(is_recorded)
    await first.stop()
    await start(deliverer_poll_interval=timedelta(seconds=60))
    assert (await shop.ends(State.DELIVERED, delivery_id)).attempts == 2


async def test_results_survive_a_database_that_goes_away(destination, shop, start, kit, wire) -> None:
    await shop.send_to(destination.url)
    deliverer = await start(database_url=SecretStr(wire.url))
    await shop.ends(State.DELIVERED, *await shop.put())
    answered = asyncio.Event()

    async def cut_meanwhile(_: web.BaseRequest) -> web.StreamResponse:
        await wire.cut()
        answered.set()
        return web.Response()

    destination.answer = cut_meanwhile
    [delivery_id] = await shop.put()
    await asyncio.wait_for(answered.wait(), kit.PATIENCE)
    assert (await shop.delivery(delivery_id)).state is State.SENDING
    destination.answer = destination._next_status
    wire.mend()
    with within(2):  # the longest wait between two tries to connect
        # Recorded by the one who made the try, which is why there is one attempt and not two.
        assert (await shop.ends(State.DELIVERED, delivery_id)).attempts == 1
        more = await shop.put(5)
        await shop.ends(State.DELIVERED, *more)

    async def is_up() -> bool:
        return await deliverer.metric("database_up") == 1

    await kit.eventually(is_up, "a database that is up")


async def test_a_database_that_is_away_at_start_is_waited_for(destination, shop, start, wire, kit) -> None:
    await shop.send_to(destination.url)
    made = await shop.put(3)
    await wire.cut()
    deliverer = await start(database_url=SecretStr(wire.url))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(deliverer.task), 0.5)
    wire.mend()
    await shop.ends(State.DELIVERED, *made)


async def test_draining_finishes_tries_and_gives_back_the_rest(destination, shop, start, kit) -> None:
    await shop.send_to(destination.url, max_in_flight=20, timeout=timedelta(minutes=5))
    deliverer = await start(drain_timeout=300)
    # Quick answers first, so that more is leased ahead than is under way.
    await shop.ends(State.DELIVERED, *await shop.put(20))
    assert await deliverer.metric("delivery_released_total") == 0
    go_on = asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.StreamResponse:
        await go_on.wait()
        return web.Response()

    async def leased() -> int:
        async with shop.pool.acquire() as connection:
            return (await deliveries.depth(connection)).sending

    async def more_than_are_under_way() -> bool:
        return await leased() > 20

    async def only_those_under_way() -> bool:
        return await leased() == 20

    destination.answer = wait
    made = await shop.put(40)
    await kit.eventually(more_than_are_under_way, "deliveries that are leased ahead")
    deliverer.stopping.set()
    await kit.eventually(only_those_under_way, "a queue with nothing leased but what is under way")
    assert await deliverer.metric("delivery_released_total") > 0
    go_on.set()
    await asyncio.wait_for(deliverer.task, kit.PATIENCE)
    rows = [await shop.delivery(delivery_id) for delivery_id in made]
    assert sorted(row.state for row in rows) == [State.DELIVERED] * 20 + [State.PENDING] * 20
    assert sum(row.attempts for row in rows) == 20
    assert len(destination.received) == 40


async def test_a_result_whose_lease_was_lost_is_recorded_and_moves_nothing(destination, shop, start, kit) -> None:
    go_on = asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.StreamResponse:
        await go_on.wait()
        return web.Response()

    destination.answer = wait
    await shop.send_to(destination.url)
    deliverer = await start(deliverer_rescue_interval=timedelta(minutes=1))
    [delivery_id] = await shop.put()
    await destination.got(1)
    async with shop.pool.acquire() as connection:
        await connection.execute("UPDATE deliveries SET lease_id = gen_random_uuid() WHERE id = $1", delivery_id)
    go_on.set()

    async def is_recorded() -> bool:
        return len(await shop.attempts(delivery_id)) == 1

    await kit.eventually(is_recorded, "an attempt that is recorded")
    assert (await shop.delivery(delivery_id)).state is State.SENDING
    assert await deliverer.metric("delivery_lease_lost_total") == 1


async def test_one_result_that_the_database_refuses_does_not_hold_up_the_others(
    destination, shop, start, kit, caplog: pytest.LogCaptureFixture
) -> None:
    async def by_body(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=418 if destination.received[-1].body == b"teapot" else 200)

    destination.answer = by_body
    await shop.send_to(destination.url)
    async with shop.pool.acquire() as connection:
        await connection.execute("ALTER TABLE attempts ADD CHECK (response_status <> 418)")
    [poison] = await shop.put(body=b"teapot", correlation_id="teapot")
    others = await shop.put(30)
    deliverer = await start()
    await shop.ends(State.DELIVERED, *others)

    async def is_told() -> bool:
        return await deliverer.metric("deliverer_errors_total", where="record") == 1

    await kit.eventually(is_told, "a result that is refused")
    (told,) = [record for record in caplog.records if record.name == "kapsel_deliverer.recorder"]
    assert (told.__dict__["delivery_id"], told.__dict__["correlation_id"]) == (str(poison), "teapot")
    assert (await shop.delivery(poison)).state is State.SENDING
    assert await deliverer.metric("delivery_unrecorded") == 0


async def test_results_that_wait_for_the_database_are_measured(destination, shop, start, kit) -> None:
    await shop.send_to(destination.url)
    deliverer = await start()
    async with shop.pool.acquire() as connection, connection.transaction():
        await connection.execute("LOCK TABLE attempts IN SHARE MODE")  # so that none can be written
        written = await shop.put(3)
        await destination.got(3)

        async def waits() -> bool:
            return await deliverer.metric("delivery_unrecorded") == 3

        await kit.eventually(waits, "three results that wait")
    await shop.ends(State.DELIVERED, *written)

    async def is_done() -> bool:
        return await deliverer.metric("delivery_unrecorded") == 0

    await kit.eventually(is_done, "no result that waits")


async def test_a_fault_of_our_own_is_an_attempt_that_says_so_and_is_retried(destination, shop, start, kit) -> None:
    await shop.send_to(destination.url, policy=Policy(backoff=kit.QUICK, max_attempts=2, circuit_breaker=None))
    deliverer = await start()
    [delivery_id] = await shop.put(content_type="text/plain\r\nx-forged: 1")
    delivery = await shop.ends(State.EXHAUSTED, delivery_id)
    assert (delivery.attempts, delivery.last_reason) == (2, "internal")
    assert await deliverer.metric("webhook_delivery_failures_total", fault="ours", reason="internal") == 2
    assert await deliverer.metric("deliverer_errors_total", where="try") == 2
    assert destination.received == []


async def test_a_header_that_cannot_be_sent_is_the_configurations_fault(destination, shop, start, kit) -> None:
    policy = Policy(backoff=kit.QUICK, max_attempts=1, circuit_breaker=None)
    await shop.send_to(destination.url, headers=(("x-team", "a\r\nb: c"),), policy=policy)
    deliverer = await start()
    [delivery_id] = await shop.put()
    assert (await shop.ends(State.EXHAUSTED, delivery_id)).last_reason == "header_invalid"
    assert await deliverer.metric("webhook_delivery_failures_total", fault="configuration") == 1


async def test_the_queue_and_the_work_are_measured(destination, shop, start, kit) -> None:
    async with shop.pool.acquire() as connection:  # or the dead rows are gone before anybody looks
        await connection.execute("ALTER TABLE deliveries_live SET (autovacuum_enabled = off)")
    row = await shop.send_to(destination.url, suspend=True)
    deliverer = await start()
    await shop.put(7)

    async def is_seen() -> bool:
        if await deliverer.metric("delivery_queue_depth", state="pending") < 7:
            return False
        # It may have been asked for before they were made, and answered after that.
        age = await deliverer.metric("delivery_oldest_pending_age_seconds")
        assert age >= 0
        return age > 0

    await kit.eventually(is_seen, "the depth of the queue, and how long it waits")
    assert await deliverer.metric("delivery_oldest_due_age_seconds") == 0  # suspended: nobody could take it
    assert await deliverer.metric("delivery_queue_depth", state="sending") == 0
    assert await deliverer.metric("configuration_generation") == 1
    assert await deliverer.metric("delivery_record_size_sum") == 0
    await shop.change(row, suspend=False)

    async def is_done() -> bool:
        return await deliverer.metric("delivery_record_size_sum") == 7

    await kit.eventually(is_done, "recorded deliveries")
    assert await deliverer.metric("delivery_claim_size_sum") == 7

    async def is_reloaded() -> bool:
        return await deliverer.metric("configuration_generation") == 2

    await kit.eventually(is_reloaded, "the second generation")

    async def is_counted() -> bool:  # by Postgres, in its own time
        dead = await deliverer.metric("delivery_queue_dead_tuples")
        return dead > 0 and await deliverer.metric("partition_stray_rows") == 21

    await kit.eventually(is_counted, "dead rows, and events, attempts and deliveries of which nobody made partitions")


async def test_a_try_that_outlasts_the_drain_is_made_again(destination, shop, start, kit) -> None:
    never = asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    destination.answer = wait
    await shop.send_to(destination.url, timeout=timedelta(minutes=5))
    deliverer = await start(drain_timeout=1, deliverer_lease=timedelta(minutes=5))
    [delivery_id] = await shop.put()
    await destination.got(1)
    await deliverer.stop()
    assert (await shop.delivery(delivery_id)).state is State.SENDING


async def test_a_try_that_outlasts_its_lease_keeps_it_and_is_made_once(destination, shop, start, kit) -> None:
    go_on = asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.StreamResponse:
        await go_on.wait()
        return web.Response()

    async def lease_ends() -> datetime:
        async with shop.pool.acquire() as connection:
            return await connection.fetchval("SELECT lease_expires_at FROM deliveries WHERE id = $1", delivery_id)

    async def is_renewed() -> bool:
        return await lease_ends() > first

    destination.answer = wait
    await shop.send_to(destination.url)
    deliverer = await start(deliverer_lease=timedelta(seconds=9), deliverer_rescue_interval=timedelta(milliseconds=50))
    [delivery_id] = await shop.put()
    await destination.got(1)
    for _ in range(2):
        first = await lease_ends()
        await kit.eventually(is_renewed, "a lease that is renewed")
    go_on.set()
    assert (await shop.ends(State.DELIVERED, delivery_id)).attempts == 1
    assert await deliverer.metric("delivery_rescued_total") == 0


async def test_a_killed_deliverers_leases_are_rescued(destination, shop, start, kit, database) -> None:
    never = asyncio.Event()

    async def hang(_: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    destination.answer = hang
    await shop.send_to(destination.url, timeout=timedelta(minutes=5))
    child = await _start_process(database, deliverer_lease="5")
    try:
        [delivery_id] = await shop.put()
        await destination.got(1)
        destination.answer = destination._next_status
        second = timedelta(seconds=1)
        survivor = await start(deliverer_rescue_interval=2 * second, deliverer_poll_interval=second)
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    with within(5 + 2 + 1):  # the lease, and both intervals
        delivery = await shop.ends(State.DELIVERED, delivery_id)
    assert delivery.attempts == 2
    assert [listed.attempt.number for listed in await shop.attempts(delivery_id)] == [2]
    assert await survivor.metric("delivery_rescued_total") == 1


async def test_leases_are_rescued_while_deliveries_end_by_their_age_all_the_time(destination, shop, start, kit) -> None:
    await shop.send_to(destination.url, suspend=True)
    async with shop.pool.acquire() as connection:
        # Whenever one ends another one is over, as where hundreds come in a second for what has long been suspended.
        await connection.execute(
            "CREATE FUNCTION ends_more() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "INSERT INTO deliveries (id, event_id, endpoint_id, destination_id, expires_at) VALUES (gen_random_uuid(), "
            "NEW.event_id, NEW.endpoint_id, NEW.destination_id, now() - interval '1 s'); RETURN NULL; END $$; "
            "CREATE TRIGGER ends_more AFTER INSERT ON deliveries FOR EACH ROW WHEN (NEW.state = 'exhausted') "
            "EXECUTE FUNCTION ends_more()"
        )
        over, left = await shop.put(2)
        await connection.execute("UPDATE deliveries SET expires_at = now() - interval '1 s' WHERE id = $1", over)
        deliverer = await start()
        await shop.ends(State.EXHAUSTED, over)
        await connection.execute(
            "UPDATE deliveries SET state = 'sending', lease_id = gen_random_uuid(), lease_expires_at = now() "
            "WHERE id = $1",
            left,
        )
    await shop.ends(State.PENDING, left)
    assert await deliverer.metric("delivery_rescued_total") == 1


async def test_sigterm_ends_the_process_in_order(destination, shop, kit, database) -> None:
    await shop.send_to(destination.url)
    child = await _start_process(database)
    made = await shop.put(20)
    await shop.ends(State.DELIVERED, *made)
    child.terminate()
    assert await asyncio.wait_for(child.wait(), kit.PATIENCE) == 0


async def _start_process(database, **settings: str) -> asyncio.subprocess.Process:
    environment = {
        "KAPSEL_DATABASE_URL": database.url,
        "KAPSEL_DATABASE_ROLE": "kapsel_deliverer",
        "KAPSEL_DATABASE_SCHEMA": database.schema,
        "KAPSEL_SEALING_KEY_FILE": str(database.sealing_key_file),
        **{f"KAPSEL_{name.upper()}": value for name, value in settings.items()},
    }
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kapsel_deliverer", env={**os.environ, **environment}
    )


async def test_no_event_is_lost_or_tried_twice_while_everything_is_in_order(destination, shop, start) -> None:
    await shop.send_to(destination.url)
    await start()
    made: list[UUID] = []
    for _ in range(10):
        made += await shop.put(50)
    await shop.ends(State.DELIVERED, *made)
    assert len(destination.received) == 500
