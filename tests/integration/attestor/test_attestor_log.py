"""From recorded attempts to verified proofs."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import uuid4

import pytest
from wires import Opened, Wire, Withheld, to_postgres

from kapsel_attestor.sequencer import Sequencer
from kapsel_store import database, partitions, tlog
from kapsel_store.errors import StaleTreeError
from kapsel_tlog.prover import Erased, NotYetIntegrated, NotYetPublished, Unknown, proof_for_attempt
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.merkle import EMPTY_ROOT


async def test_every_recorded_attempt_is_proven(world) -> None:
    recorded = await world.record(700)
    running = await world.start()
    await world.head_over(700)
    recorded += await world.record(30)
    await world.head_over(730)
    await world.audit(recorded)
    assert running.value("attestation_batches_total", result="integrated") >= 2
    await running.well()


async def test_leaves_stand_in_the_order_of_the_attempts(world) -> None:
    recorded = await world.record(50)
    await world.start()
    await world.head_over(50)
    rows = await tlog.leaves(world.connection, (await world.log()).id, 0, 50)
    assert [row.attempt_id for row in rows] == recorded


async def test_empty_log_is_published_with_the_root_of_nothing(world) -> None:
    await world.start()
    head = await world.head_over(0)
    assert (head.tree_size, head.root) == (0, EMPTY_ROOT)
    assert world.guard().read().tree_size == 0


async def test_idle_log_is_published_again_with_a_later_date(world, eventually) -> None:
    await world.configure(idle_interval=timedelta(milliseconds=50))
    await world.start()
    first = await world.head_over(0)

    async def later() -> bool:
        return (await world.head()).timestamp_ms > first.timestamp_ms

    await eventually(later)
    assert (await world.head()).tree_size == 0


async def test_dates_of_heads_increase_although_the_clock_goes_back(world) -> None:
    now = 1_900_000_000_000
    running = await world.start(clock=lambda: now)
    for size in range(1, 4):
        await world.record()
        await world.head_over(size)
        now -= 3_600_000
    await running.stop()
    heads = await tlog.heads(world.connection, (await world.log()).id, 100)
    dates = [head.timestamp_ms for head in heads[::-1]]
    assert len(dates) >= 3
    assert all(old < new for old, new in pairwise(dates))
    assert max(dates) < 1_900_000_000_100


async def test_what_has_no_proof_yet_says_why(world) -> None:
    assert await proof_for_attempt(world.connection, uuid4()) == Unknown()
    [attempt_id] = await world.record()
    assert await proof_for_attempt(world.connection, attempt_id) == NotYetIntegrated()
    sequencer = await Sequencer.open(world.connection, await tlog.open_log(world.connection, world.row.origin))
    assert await sequencer.integrate(world.connection, 10) == 1
    assert await proof_for_attempt(world.connection, attempt_id) == NotYetPublished(0)
    await world.start()
    await world.head_over(1)
    await world.prove(attempt_id)


async def test_proof_stays_the_same_while_the_log_grows(world) -> None:
    [attempt_id] = await world.record()
    await world.start()
    await world.head_over(1)
    before = await proof_for_attempt(world.connection, attempt_id)
    await world.record(10)
    await world.head_over(11)
    assert await proof_for_attempt(world.connection, attempt_id) == before


async def test_erased_leaf_has_no_proof_and_the_others_keep_theirs(world) -> None:
    first, second = await world.record(2)
    await world.start()
    await world.head_over(2)
    async with world.tampering():
        await world.connection.execute("UPDATE leaves SET leaf = NULL WHERE leaf_index = 0")
    erased = await proof_for_attempt(world.connection, first)
    assert isinstance(erased, Erased)
    assert erased.leaf_index == 0
    await world.prove(second)


async def test_response_bodies_and_odd_texts_do_not_stop_the_log(world) -> None:
    recorded = await world.record(url="https://exämple.com/\n" + "ü" * 9000, reason="")
    recorded += await world.record()
    await world.start()
    await world.head_over(2)
    await world.audit(recorded)


async def test_second_attestor_waits_and_takes_over(world) -> None:
    first = await world.start()
    await world.head_over(0)
    second = await world.start()
    recorded = await world.record(20)
    await world.head_over(20)
    assert second.value("attestation_batches_total", result="integrated") == 0
    await first.stop()
    recorded += await world.record(20)
    await world.head_over(40)
    assert second.value("attestation_batches_total", result="integrated") > 0
    await world.audit(recorded)


async def test_sequencer_behind_the_stored_tree_is_stopped_by_its_size(world) -> None:
    log = await tlog.open_log(world.connection, world.row.origin)
    one, two = await Sequencer.open(world.connection, log), await Sequencer.open(world.connection, log)
    recorded = await world.record(4)
    assert await one.integrate(world.connection, 2) == 2
    with pytest.raises(StaleTreeError):
        await two.integrate(world.connection, 2)
    assert await one.integrate(world.connection, 2) == 2
    assert (await world.log()).tree_size == len(recorded)


async def test_what_is_encoded_ahead_is_encoded_anew_when_the_log_speaks_of_itself_meanwhile(
    world, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kapsel_attestor.sequencer.CATCHING_UP", 20)
    monkeypatch.setattr("kapsel_attestor.sequencer.AT_ONCE", 7)
    recorded = await world.record(90)
    log, pool = await tlog.open_log(world.connection, world.row.origin), await world.database.pool("attestor")
    sequencer = await Sequencer.open(world.connection, log, ahead=pool)
    said = list[int]()

    async def note(_: object, index: int) -> None:
        said.append(index)

    while await sequencer.integrate(world.connection, 20):
        await sequencer.state(world.connection, b"{}", note)
    await sequencer.close()
    assert said == [20, 41, 62, 83, 94]
    await world.start()
    await world.head_over(95)
    await world.audit(recorded)


async def test_what_is_erased_after_it_was_read_ahead_gets_no_leaf(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kapsel_attestor.sequencer.CATCHING_UP", 20)
    recorded = await world.record(90)
    log, pool = await tlog.open_log(world.connection, world.row.origin), await world.database.pool("attestor")
    sequencer = await Sequencer.open(world.connection, log, ahead=pool)
    await sequencer.integrate(world.connection, 20)
    await sequencer.integrate(world.connection, 20)
    erased = recorded.pop(45)  # of the third batch, which was read before the second one was written
    await world.connection.execute("DELETE FROM unsequenced WHERE attempt_id = $1", erased)
    while await sequencer.integrate(world.connection, 20):
        pass
    await sequencer.close()
    await world.start()
    await world.head_over(89)
    await world.audit(recorded)


async def test_lock_that_nobody_waits_for_any_more_is_not_kept_by_its_connection(world, eventually) -> None:
    answered = asyncio.Event()
    answered.set()
    straight = to_postgres(world.database.url)

    async def open_there() -> Opened:
        there, back = await straight.open_there()
        return Withheld(there, answered), back

    async def is_locked() -> bool:
        return await world.connection.fetchval(
            "SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid::bigint = "
            "hashtext(current_schema() || '/log/' || $1)::bigint & 4294967295",
            world.row.origin,
        )

    async def is_free() -> bool:
        return not await is_locked()

    options = {"role": "kapsel_attestor", "schema": world.database.schema, "size": 2, "component": "attestor"}
    async with Wire(open_there, straight.named) as wire, database.connect(wire.url, **options) as pool:
        async with pool.acquire() as connection:
            assert await tlog.try_lock(connection, world.row.origin)  # so that the statement is prepared
            await tlog.unlock(connection, world.row.origin)
            assert await is_free()
            answered.clear()
            trying = asyncio.create_task(tlog.try_lock(connection, world.row.origin))
            await eventually(is_locked)
            trying.cancel()
            answered.set()
            await asyncio.gather(trying, return_exceptions=True)
        await eventually(is_free)
    assert await tlog.try_lock(world.connection, world.row.origin)


async def test_lost_connection_is_taken_up_again(world) -> None:
    running = await world.start()
    await world.head_over(0)
    recorded = await world.record(10)
    await world.head_over(10)
    await world.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'kapsel-attestor'"
    )
    recorded += await world.record(10)
    await world.head_over(20)
    await world.audit(recorded)
    assert running.value("attestation_batches_total", result="failed") > 0


async def test_stopping_integrates_and_publishes_what_has_arrived(world) -> None:
    await world.configure(
        publish_interval=timedelta(hours=1),
        publish_pending=10_000,
        integrate_interval=timedelta(hours=1),
        integrate_batch=7,
    )
    running = await world.start()
    await world.head_over(0)
    recorded = await world.record(50)
    await running.stop()
    await world.audit(recorded)


async def test_without_a_log_the_attestor_waits_for_one(world, eventually) -> None:
    recorded = await world.record(3)
    await world.apply(None)
    running = await world.start()
    await running.well()
    await world.apply(world.row)
    await world.head_over(3)
    await world.audit(recorded)


async def test_salts_differ_so_equal_attempts_have_unlike_leaves(world) -> None:
    await world.record(20)
    await world.start()
    await world.head_over(20)
    rows = await tlog.leaves(world.connection, (await world.log()).id, 0, 20)
    assert len({Leaf.parse(row.leaf).salt for row in rows}) == 20


async def test_attempts_dropped_after_their_retention_do_not_stand_in_the_way(world) -> None:
    now = datetime.now(UTC)
    await partitions.maintain(world.connection, now)
    await world.record(5)
    later = now + timedelta(days=60)
    assert (await partitions.maintain(world.connection, later)).dropped
    await world.configure(integrate_batch=2)
    recorded = await world.record(3)
    await world.start()
    await world.head_over(3)
    await world.audit(recorded)


async def test_full_batch_does_not_wait_for_the_interval(world) -> None:
    await world.configure(integrate_interval=timedelta(hours=1), integrate_batch=10)
    await world.start()
    await world.head_over(0)
    recorded = await world.record(9)
    recorded += await world.record(1)
    await world.head_over(10)
    await world.audit(recorded)


async def test_a_backlog_is_worked_off_without_waiting_for_the_interval(world) -> None:
    await world.configure(integrate_interval=timedelta(hours=1), integrate_batch=10)
    await world.record(95)
    await world.start()
    await world.head_over(90)
