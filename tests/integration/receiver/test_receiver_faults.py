"""Webhooks while the database is away, hangs, is full or refuses a row: answered in time, and nothing is lost."""

import asyncio
import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from traffic import within

from kapsel_receiver.intake import Bounds
from kapsel_receiver.problems import Refusal
from kapsel_store import ids
from kapsel_store.rows import Accepted, DestinationRow, Duplicate, Idempotency, NewDelivery, NewEvent

Make = Callable[..., Any]


def event(endpoint_id: Any, body: bytes = b"{}") -> NewEvent:
    return NewEvent(
        id=ids.new(),
        endpoint_id=endpoint_id,
        received_at=datetime.now(UTC),
        content_type="text/plain",
        headers="[]",
        body=body,
        body_hash=bytes(32),
        salt=bytes(32),
        idempotency_key=None,
        idempotency_window=None,
        correlation_id=None,
        deliveries=(NewDelivery(id=ids.new(), destination_id=ids.new(), max_age=timedelta(hours=1)),),
    )


async def test_a_database_that_is_away_at_start_is_waited_for_while_webhooks_are_refused(
    receive: Any, post: Make, proxy: Any, until: Make
) -> None:
    wire, url = proxy
    wire.refuse()
    async with receive(url=url) as receiver:
        answer = await receiver.exchange(post())
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "storage_unavailable", "5")
        assert receiver.intake.check()
        assert receiver.registry.get_sample_value("database_up") == 0
        await wire.open()
        await until(lambda: receiver.intake.check() is None)
        assert (await receiver.exchange(post())).status == 202
        assert receiver.registry.get_sample_value("database_up") == 1


async def test_a_database_that_goes_away_is_noticed_at_rest_and_used_again_when_it_is_back(
    receive: Any, post: Make, proxy: Any, until: Make
) -> None:
    wire, url = proxy
    async with receive(url=url) as receiver:
        await until(lambda: receiver.intake.check() is None)
        assert (await receiver.exchange(post(b"before"))).status == 202
        wire.refuse()
        await until(lambda: receiver.intake.check() is not None)
        async with asyncio.timeout(30):
            assert (await receiver.exchange(post(b"while"))).code == "storage_unavailable"
        await wire.open()
        with within(2):  # the longest wait between two tries to connect
            await until(lambda: receiver.intake.check() is None)
            assert (await receiver.exchange(post(b"after"))).status == 202
        assert [row["body"] for row in await receiver.events()] == [b"before", b"after"]


async def test_a_commit_whose_answer_is_lost_is_sent_again_and_stored_once(
    receive: Any, post: Make, endpoint: Make, proxy: Any, until: Make
) -> None:
    wire, url = proxy
    row = endpoint(idempotency=Idempotency(source="Header", header="X-Event"))
    async with receive(row, url=url) as receiver:
        await until(lambda: receiver.intake.check() is None)
        wire.lose_answer_to = b"the only one"
        answer = await receiver.exchange(post(b"the only one", {"X-Event": "7"}))
        assert (answer.status, answer.code) == (503, "storage_uncertain")
        assert answer.headers["retry-after"] == "5"
        await until(lambda: receiver.intake.check() is None)
        again = await receiver.exchange(post(b"the only one", {"X-Event": "7"}))
        assert again.status == 202
        (stored,) = await receiver.events()
        assert again.json == {"id": str(stored["id"])}


async def test_a_database_that_hangs_lets_no_request_wait_longer_than_the_deadline(
    receive: Any, post: Make, proxy: Any, until: Make
) -> None:
    wire, url = proxy
    async with receive(url=url, bounds=Bounds(commit_timeout=5.0)) as receiver:
        await until(lambda: receiver.intake.check() is None)
        wire.hang()
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(receiver.exchange(post(b"%d" % number)) for number in range(20)))
        assert {answer.status for answer in answers} == {503}
        assert {answer.code for answer in answers} <= {"storage_uncertain", "storage_unavailable"}
        await until(lambda: receiver.intake.check() is not None)
        assert receiver.intake.store(event(ids.new())).result().code == "storage_unavailable"  # at once
        async with asyncio.timeout(60):
            assert (await receiver.exchange(post())).code == "storage_unavailable"
        wire.flow()
        await until(lambda: receiver.intake.check() is None)
        assert (await receiver.exchange(post(b"after"))).status == 202


async def test_every_202_is_stored_while_connections_are_cut_again_and_again(
    receive: Any, post: Make, endpoint: Make, proxy: Any, until: Make
) -> None:
    wire, url = proxy
    row = endpoint(idempotency=Idempotency(source="Header", header="X-Event"))
    numbers = itertools.count()
    accepted: dict[int, str] = {}
    cutting = asyncio.Event()

    async with receive(row, url=url) as receiver:
        await until(lambda: receiver.intake.check() is None)

        async def send() -> None:
            client = await receiver.connect()
            while not cutting.is_set():
                number = next(numbers)
                while True:  # as a provider does: until it is told 202
                    client.send(post(b"%d" % number, {"X-Event": str(number)}))
                    answer = await client.answer()
                    if answer.status == 202:
                        break
                    assert answer.status == 503
                    await asyncio.sleep(0.02)
                accepted[number] = answer.json["id"]

        senders = [asyncio.create_task(send()) for _ in range(8)]
        for _ in range(6):
            seen = len(accepted)
            await until(lambda seen=seen: len(accepted) > seen + 20)  # type: ignore[misc]
            wire.cut()
        cutting.set()
        await asyncio.gather(*senders)
        stored = {int(row["body"]): str(row["id"]) for row in await receiver.events()}
        assert stored == accepted
        deliveries = await receiver.rows("SELECT event_id FROM deliveries")
        assert sorted(str(row["event_id"]) for row in deliveries) == sorted(accepted.values())


async def test_a_row_that_the_database_refuses_fails_alone(
    receive: Any, endpoint: Make, until: Make, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint_id = endpoint().id
    async with receive() as receiver:
        good = [event(endpoint_id, b"%d" % number) for number in range(9)]
        # The server cannot store it, the driver cannot send it, a CHECK refuses it.
        nul = event(endpoint_id)._replace(content_type="a\x00b", correlation_id="nul")
        surrogate = event(endpoint_id)._replace(content_type="\udc80", correlation_id="surrogate")
        short = event(endpoint_id)._replace(salt=b"short", correlation_id="short")
        batch = [*good[:3], nul, *good[3:6], surrogate, short, *good[6:]]
        outcomes = await asyncio.gather(*(receiver.intake.store(one) for one in batch))
        assert [one for one, outcome in zip(batch, outcomes, strict=True) if isinstance(outcome, Accepted)] == good
        refused = [outcome for outcome in outcomes if isinstance(outcome, Refusal)]
        assert [outcome.code for outcome in refused] == ["not_storable"] * 3
        told = [record.__dict__.get("correlation_id") for record in caplog.records if record.levelname == "ERROR"]
        assert told == ["nul", "surrogate", "short"]
        assert {row["id"] for row in await receiver.events()} == {one.id for one in good}
        failures = receiver.registry.get_sample_value(
            "webhook_ingestion_commit_failures_total", {"reason": "refused_row"}
        )
        assert failures == 3
        assert receiver.intake.check() is None


async def test_a_database_that_refuses_writes_is_told_apart_and_recovers(
    receive: Any, post: Make, database: Any, until: Make
) -> None:
    """A full disk answers as this does: an error of class 53 to every write, while reads go on."""
    owner = await database.connection()
    async with receive() as receiver:
        await owner.execute(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$"
        )
        await owner.execute(
            "CREATE TRIGGER full_disk BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION full_disk()"
        )
        for _ in range(3):
            answer = await receiver.exchange(post(b"full"))
            assert (answer.status, answer.code) == (503, "storage_unavailable")
        assert await receiver.events() == []
        await owner.execute("DROP TRIGGER full_disk ON events")
        await owner.close()
        await until(lambda: receiver.intake.check() is None)
        assert (await receiver.exchange(post(b"space"))).status == 202
        assert receiver.count("storage_unavailable") == 3


async def test_what_was_stored_beside_a_duplicate_that_could_not_be_looked_up_is_not_said_to_be_lost(
    receive: Any, endpoint: Make, database: Any, until: Make
) -> None:
    """The commit is made when the first event of a duplicate is asked for, and Postgres may fail at that alone."""
    endpoint_id, owner = endpoint().id, await database.connection()
    once = {"idempotency_key": bytes(32), "idempotency_window": timedelta(hours=1)}
    await owner.execute("ALTER TABLE idempotency ENABLE ROW LEVEL SECURITY")
    await owner.execute(
        "CREATE FUNCTION fails_to_look_up() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN "
        "IF current_query() LIKE '%AS asked %' THEN RAISE EXCEPTION 'bad page' USING ERRCODE = 'io_error'; END IF; "
        "RETURN true; END $$"
    )
    await owner.execute("CREATE POLICY failing ON idempotency USING (fails_to_look_up()) WITH CHECK (true)")
    async with receive() as receiver:
        await until(lambda: receiver.intake.check() is None)
        first = await receiver.intake.store(event(endpoint_id)._replace(**once))
        assert isinstance(first, Accepted)
        duplicate, new = event(endpoint_id)._replace(**once), event(endpoint_id, b"new")
        outcomes = await asyncio.gather(*(receiver.intake.store(one) for one in (duplicate, new)))
        assert [outcome.code for outcome in outcomes] == ["storage_uncertain"] * 2
        assert {row["id"] for row in await receiver.events()} == {first.event_id, new.id}
        await owner.execute("DROP POLICY failing ON idempotency; ALTER TABLE idempotency DISABLE ROW LEVEL SECURITY")
        await until(lambda: receiver.intake.check() is None)
        assert isinstance(await receiver.intake.store(event(endpoint_id)._replace(**once)), Duplicate)
    await owner.close()


async def test_a_full_queue_refuses_at_once_and_keeps_what_it_holds(
    receive: Any, post: Make, endpoint: Make, database: Any, until: Make
) -> None:
    owner = await database.connection()
    async with receive(bounds=Bounds(queue_events=8, commit_timeout=60.0)) as receiver:
        lock = owner.transaction()
        await lock.start()
        await owner.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE")
        stuck = asyncio.create_task(receiver.exchange(post(b"stuck")))
        await receiver.commits_blocked(1)
        queued = [asyncio.create_task(receiver.exchange(post(b"%d" % number))) for number in range(4)]
        await until(lambda: receiver.registry.get_sample_value("webhook_ingestion_queue_depth") == 4)
        async with asyncio.timeout(30):
            answer = await receiver.exchange(post(b"too many"))
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "overloaded", "1")
        await lock.rollback()
        await owner.close()
        answers = await asyncio.gather(stuck, *queued)
        assert {answer.status for answer in answers} == {202}
        assert len(await receiver.events()) == 5
        assert receiver.count("overloaded") == 1


async def test_an_endpoint_has_no_more_waiting_than_there_is_room_left_for_others(
    receive: Any, post: Make, endpoint: Make, database: Any, until: Make
) -> None:
    others = [endpoint(id=uuid4(), name=f"quiet-{number}") for number in range(4)]
    owner = await database.connection()
    async with receive(endpoint(), *others, bounds=Bounds(queue_events=8, commit_timeout=60.0)) as receiver:

        def metric(name: str) -> float | None:
            return receiver.registry.get_sample_value(name)

        lock = owner.transaction()
        await lock.start()
        await owner.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE")
        stuck = asyncio.create_task(receiver.exchange(post(b"stuck")))
        await receiver.commits_blocked(1)
        noisy = [asyncio.create_task(receiver.exchange(post(b"%d" % number))) for number in range(20)]
        await until(lambda: receiver.count("overloaded") == 16)
        assert (metric("webhook_ingestion_queue_depth"), metric("webhook_ingestion_queue_largest")) == (4, 4)
        quiet = [asyncio.create_task(receiver.exchange(post(path=f"/ingest/shop/{other.name}"))) for other in others]
        await until(lambda: metric("webhook_ingestion_queue_depth") == 8)
        async with asyncio.timeout(30):
            assert (await receiver.exchange(post(path="/ingest/shop/quiet-2"))).code == "overloaded"
        await lock.rollback()
        await owner.close()
        assert {answer.status for answer in await asyncio.gather(stuck, *quiet)} == {202}
        answers = await asyncio.gather(*noisy)
        refused = [answer for answer in answers if answer.status != 202]
        assert (len(refused), {answer.code for answer in refused}) == (16, {"overloaded"})
        assert (await receiver.exchange(post())).status == 202
        await until(lambda: metric("webhook_ingestion_queue_largest") == 0)


async def test_of_the_bytes_that_wait_an_endpoint_has_no_more_than_there_is_room_left(
    receive: Any, endpoint: Make, database: Any
) -> None:
    owner = await database.connection()
    async with receive(bounds=Bounds(queue_bytes=1000, commit_timeout=60.0)) as receiver:
        lock = owner.transaction()
        await lock.start()
        await owner.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE")
        store, other = receiver.intake.store, uuid4()
        waiting = [store(event(endpoint().id))]
        await receiver.commits_blocked(1)
        waiting.append(store(event(endpoint().id, os.urandom(500))))
        assert isinstance(refused := await store(event(endpoint().id)), Refusal)
        assert refused.code == "overloaded"
        waiting.append(store(event(other)))
        await lock.rollback()
        await owner.close()
        assert all(isinstance(outcome, Accepted) for outcome in await asyncio.gather(*waiting))


async def test_the_queue_is_bounded_in_bytes_too(receive: Any, endpoint: Make, database: Any, until: Make) -> None:
    owner = await database.connection()
    async with receive(bounds=Bounds(queue_bytes=1000, commit_timeout=60.0)) as receiver:
        lock = owner.transaction()
        await lock.start()
        await owner.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE")
        store = receiver.intake.store
        stuck = [store(event(endpoint().id))]
        await receiver.commits_blocked(1)
        stuck.append(store(event(endpoint().id, os.urandom(1000))))
        await asyncio.sleep(0)
        refused = await store(event(endpoint().id))
        assert isinstance(refused, Refusal)
        assert refused.code == "overloaded"
        await lock.rollback()
        await owner.close()
        assert all(isinstance(outcome, Accepted) for outcome in await asyncio.gather(*stuck))


async def test_one_commit_that_hangs_makes_the_receiver_doubt_its_other_connection_too(
    receive: Any, post: Make, proxy: Any, until: Make
) -> None:
    wire, url = proxy
    async with receive(url=url, bounds=Bounds(commit_timeout=2.0)) as receiver:
        await until(lambda: receiver.intake.check() is None)
        await receiver.exchange(post(b"before"))
        wire.hang()
        assert (await receiver.exchange(post(b"while"))).code == "storage_uncertain"
        await until(lambda: receiver.intake.check() is not None)
        wire.flow()


async def test_a_second_commit_runs_beside_a_long_one_when_many_wait(
    receive: Any, endpoint: Make, database: Any
) -> None:
    owner = await database.connection()
    async with receive(bounds=Bounds(commit_timeout=60.0)) as receiver:
        lock = owner.transaction()
        await lock.start()
        await owner.execute("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE")
        storing = [receiver.intake.store(event(endpoint().id))]
        await receiver.commits_blocked(1)
        storing += [receiver.intake.store(event(endpoint().id)) for _ in range(100)]
        await receiver.commits_blocked(2)
        await lock.rollback()
        await owner.close()
        assert all(isinstance(outcome, Accepted) for outcome in await asyncio.gather(*storing))
        assert len(await receiver.events()) == 101


async def test_webhooks_that_come_together_share_commits(receive: Any, post: Make) -> None:
    async with receive() as receiver:
        wires = [await receiver.connect() for _ in range(50)]
        for wire in wires:
            wire.send(post() * 4)
        for wire in wires:
            assert [(await wire.answer()).status for _ in range(4)] == [202] * 4
        commits = receiver.registry.get_sample_value("webhook_ingestion_batch_size_count")
        assert receiver.registry.get_sample_value("webhook_ingestion_batch_size_sum") == 200
        assert commits < 100


async def hearing(listening: Any) -> asyncio.Queue[str]:
    """Return what deliverers are told from now on."""
    told = asyncio.Queue[str]()
    await listening.add_listener("kapsel_deliveries", lambda *said: told.put_nowait(said[3]))
    await listening.execute("SELECT pg_notify('kapsel_deliveries', 'from now on')")
    async with asyncio.timeout(60):
        while await told.get() != "from now on":
            pass
    return told


async def test_deliverers_are_told_for_whom_after_the_commit(
    receive: Any, endpoint: Make, post: Make, database: Any
) -> None:
    listening = await database.connection()
    to, suspended = (
        DestinationRow(id=uuid4(), endpoint_id=endpoint().id, name=name, url="https://a.example", suspend=name == "b")
        for name in ("a", "b")
    )
    async with receive(destinations=(to, suspended)) as receiver:
        told = await hearing(listening)
        assert (await receiver.exchange(post())).status == 202
        assert await asyncio.wait_for(told.get(), 60) == str(to.id)
    await listening.close()


async def test_nobody_is_told_of_what_nobody_may_send(receive: Any, endpoint: Make, post: Make, database: Any) -> None:
    listening = await database.connection()
    suspended = DestinationRow(id=uuid4(), endpoint_id=endpoint().id, name="a", url="https://a.example", suspend=True)
    async with receive(destinations=(suspended,)) as receiver:
        told = await hearing(listening)
        wires = [await receiver.connect() for _ in range(30)]  # more than tell of themselves
        for wire in wires:
            wire.send(post() * 4)
        for wire in wires:
            assert [(await wire.answer()).status for _ in range(4)] == [202] * 4
    # What is told now comes after whatever was told before.
    await listening.execute("SELECT pg_notify('kapsel_deliveries', 'the end')")
    assert await asyncio.wait_for(told.get(), 60) == "the end"
    await listening.close()


@pytest.mark.parametrize("jump", [timedelta(days=-400), timedelta(days=400)])
async def test_a_clock_that_jumps_loses_nothing(receive: Any, post: Make, jump: timedelta) -> None:
    now = [datetime.now(UTC)]
    async with receive(now=lambda: now[0]) as receiver:
        assert (await receiver.exchange(post(b"1"))).status == 202
        now[0] += jump
        assert (await receiver.exchange(post(b"2"))).status == 202
        assert [row["body"] for row in await receiver.events()] == [b"1", b"2"]
