"""Attempts that cannot be put into the log: found one by one, put aside aloud and durably, and taken up again."""

from uuid import UUID

import asyncpg
import pytest

from kapsel_attestor.sequencer import SYSTEMATIC, Sequencer
from kapsel_store import tlog
from kapsel_store.queries import statement
from kapsel_tlog.prover import NotYetIntegrated, proof_for_attempt

UNENCODABLE = "ALTER TABLE attempts DROP CONSTRAINT attempts_payload_hash_check"


async def odd(world, count: int) -> list:
    """Record attempts whose leaves the database refuses."""
    await world.connection.execute("ALTER TABLE leaves ADD CONSTRAINT picky CHECK (length(leaf) < 8000)")
    return await world.record(count, url="https://example.com/" + "a" * 8000)


async def test_only_the_offending_attempts_are_parked_and_all_others_go_on(world, eventually) -> None:
    recorded = await world.record(20)
    refused = await odd(world, 3)
    recorded += await world.record(20)
    running = await world.start()
    await world.head_over(40)
    await world.audit(recorded)
    parked = await tlog.parked(world.connection, 10)
    assert {row.attempt_id for row in parked} == set(refused)
    assert {row.reason for row in parked} == {"CheckViolationError: 23514 picky"}
    assert await proof_for_attempt(world.connection, refused[0]) == NotYetIntegrated()
    assert "3 attempts cannot be put into the log" in running.attestor.problem()
    recorded += await world.record(5)
    await world.head_over(45)
    await world.audit(recorded)


async def test_reason_of_a_fault_of_ours_says_where_it_is_and_quotes_nothing(world) -> None:
    recorded = await world.record(1)
    await world.record(1, payload_hash=None)
    sequencer = await Sequencer.open(world.connection, await tlog.open_log(world.connection, world.row.origin))
    await sequencer.integrate(world.connection, 10)
    [parked] = await tlog.parked(world.connection, 10)
    assert parked.reason == "TypeError in _short"
    assert sequencer.log.tree_size == len(recorded)


async def test_attempt_that_no_leaf_can_hold_is_parked(world) -> None:
    await world.connection.execute(UNENCODABLE)
    broken = await world.record(3, payload_hash=b"short")
    await world.configure(integrate_batch=2)
    await world.start()
    recorded = await world.record(5)
    await world.head_over(5)
    await world.audit(recorded)
    parked = await tlog.parked(world.connection, 10)
    assert {row.attempt_id for row in parked} == set(broken)
    assert "does not have 32 bytes" in parked[0].reason


async def test_parked_attempts_are_counted_apart_from_those_that_wait(world, eventually) -> None:
    await odd(world, 2)
    running = await world.start()
    await eventually(running.attestor.problem)
    count, age = await tlog.pending_count(world.connection, await world.connection.fetchval("SELECT now()"))
    assert (count, age.total_seconds()) == (0, 0)
    assert await tlog.pending(world.connection, 10) == []
    assert await tlog.parked_count(world.connection) == 2
    async with world.measured(running):
        await eventually(lambda: running.value("attestation_parked") == 2)


async def test_parked_attempts_are_taken_up_by_the_next_attestor_once_nothing_is_wrong(world, eventually) -> None:
    refused = await odd(world, 2)
    running = await world.start()
    await eventually(running.attestor.problem)
    await running.stop()
    await world.connection.execute("ALTER TABLE leaves DROP CONSTRAINT picky")
    again = await world.start()
    await world.head_over(2)
    await world.audit(refused)
    assert await tlog.parked(world.connection, 10) == []
    await again.well()


async def test_parked_attempt_is_tried_again_when_it_is_due_and_later_each_time(world) -> None:
    [refused] = await odd(world, 1)
    sequencer = await Sequencer.open(world.connection, await tlog.open_log(world.connection, world.row.origin))
    await sequencer.integrate(world.connection, 10)
    [first] = await tlog.parked(world.connection, 10)
    await world.connection.execute("UPDATE parked SET due_at = now()")
    sequencer = await Sequencer.open(world.connection, await world.log())
    await sequencer.integrate(world.connection, 10)
    [second] = await tlog.parked(world.connection, 10)
    assert (first.attempt_id, first.tries, second.tries) == (refused, 1, 2)
    assert second.due_at - second.parked_at > first.due_at - first.parked_at


async def test_when_every_attempt_fails_none_is_parked_for_it_is_not_the_attempts(world) -> None:
    await odd(world, SYSTEMATIC + 5)
    sequencer = await Sequencer.open(world.connection, await tlog.open_log(world.connection, world.row.origin))
    with pytest.raises(asyncpg.CheckViolationError) as raised:
        await sequencer.integrate(world.connection, 100)
    assert "Failing row" not in str(raised.value)
    assert await tlog.parked_count(world.connection) == 0
    assert len(await tlog.pending(world.connection, 100)) == SYSTEMATIC + 5


@pytest.mark.parametrize("refused_first", [False, True])
async def test_many_parked_attempts_do_not_stop_those_that_come_after(world, refused_first) -> None:
    """However many are parked, wherever they stand in a batch, and whoever tries them again."""
    recorded = [] if refused_first else await world.record(5)
    refused = await odd(world, SYSTEMATIC + 1)
    recorded += await world.record(5) if refused_first else []
    sequencer = await Sequencer.open(world.connection, await tlog.open_log(world.connection, world.row.origin))
    await sequencer.integrate(world.connection, 100)
    recorded += await world.record(5)
    for _ in range(2):
        sequencer = await Sequencer.open(world.connection, await world.log())
        await sequencer.integrate(world.connection, 100)
    leaves = await tlog.leaves(world.connection, sequencer.log.id, 0, 100)
    assert {row.attempt_id for row in leaves} == set(recorded)
    parked = await tlog.parked(world.connection, 100)
    assert {row.attempt_id for row in parked} == set(refused)
    assert {row.tries for row in parked} == {3}


async def test_attempts_that_pass_are_found_between_many_that_do_not(world) -> None:
    refused = await odd(world, SYSTEMATIC + 1)
    recorded = await world.record(6)
    refused += await world.record(SYSTEMATIC + 1, url="https://example.com/" + "a" * 8000)
    sequencer = await Sequencer.open(world.connection, await tlog.open_log(world.connection, world.row.origin))
    await sequencer.integrate(world.connection, 100)
    rows = await tlog.leaves(world.connection, sequencer.log.id, 0, 100)
    assert {row.attempt_id for row in rows} == set(recorded)
    assert {row.attempt_id for row in await tlog.parked(world.connection, 100)} == set(refused)


async def test_what_waits_is_read_without_what_is_parked_whatever_the_tables_were_when_they_were_analyzed(
    world, database
) -> None:
    """Statements of a leader are planned once; a join would compare all that wait with all that is parked."""
    await world.connection.execute("ANALYZE unsequenced, parked")
    async with (await database.pool("attestor")).acquire() as attestor:
        await attestor.execute(f"PREPARE pending (bigint, uuid) AS {statement('tlog.pending')}")
        plan = await attestor.fetch(f"EXPLAIN EXECUTE pending (10, '{UUID(int=0)}')")
    [line] = [line for (line,) in plan if "SubPlan" in line and "Filter" in line]
    assert "hashed SubPlan" in line
    assert not [line for (line,) in plan if "Sort" in line]  # they come in the order of an index
    await world.connection.execute(
        "WITH made AS (INSERT INTO unsequenced SELECT gen_random_uuid() FROM generate_series(1, 5000) RETURNING *) "
        "INSERT INTO parked (attempt_id, reason, due_at) SELECT attempt_id, 'as parked', now() FROM made"
    )
    recorded = await world.record(12)
    waiting = await tlog.pending(world.connection, 10)
    waiting += await tlog.pending(world.connection, 10, after=waiting[-1].id)
    assert [attempt.id for attempt in waiting] == list(map(str, recorded))


async def test_what_its_retention_took_away_is_not_parked_any_more(world) -> None:
    await odd(world, 1)
    sequencer = await Sequencer.open(world.connection, await tlog.open_log(world.connection, world.row.origin))
    await sequencer.integrate(world.connection, 10)
    await world.connection.execute("DELETE FROM unsequenced")
    sequencer = await Sequencer.open(world.connection, await world.log())
    assert sequencer.parked == 0
    assert await tlog.parked_count(world.connection) == 0


async def test_what_is_erased_is_not_parked_any_more_without_a_new_attestor(world, monkeypatch) -> None:
    monkeypatch.setattr("kapsel_attestor.sequencer.PARKED_LOOK", 0.0)
    await odd(world, 2)
    sequencer = await Sequencer.open(world.connection, await tlog.open_log(world.connection, world.row.origin))
    await sequencer.integrate(world.connection, 10)
    assert sequencer.parked == 2
    await world.connection.execute("DELETE FROM unsequenced")
    await sequencer.integrate(world.connection, 10)
    assert sequencer.parked == 0


async def test_an_attempt_that_no_leaf_can_hold_is_parked_from_a_batch_that_was_read_ahead(
    world, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kapsel_attestor.sequencer.CATCHING_UP", 20)
    monkeypatch.setattr("kapsel_attestor.sequencer.AT_ONCE", 7)
    recorded = await world.record(50)
    strange = [*await world.record(1, payload_hash=None), *await odd(world, 1)]
    recorded += await world.record(50)
    log, pool = await tlog.open_log(world.connection, world.row.origin), await world.database.pool("attestor")
    sequencer = await Sequencer.open(world.connection, log, ahead=pool)
    while await sequencer.integrate(world.connection, 20):
        pass
    await sequencer.close()
    assert {row.attempt_id for row in await tlog.parked(world.connection, 10)} == set(strange)
    await world.start()
    await world.head_over(100)
    await world.audit(recorded)


async def test_backlog_is_read_ahead_and_integrated_whole(world) -> None:
    await world.configure(integrate_batch=100)
    recorded = []
    for _ in range(5):
        recorded += await world.record(1000)
    await world.start()
    await world.head_over(5000)
    rows = await tlog.leaves(world.connection, (await world.log()).id, 0, 6000)
    assert [row.attempt_id for row in rows] == recorded
