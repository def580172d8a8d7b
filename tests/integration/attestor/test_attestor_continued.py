"""A log that continues another: by a statement nobody can forget, with everything that the old one left unproven."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kapsel_attestor.sequencer import Sequencer
from kapsel_store import log_keys, tlog
from kapsel_tlog import continuation
from kapsel_tlog.errors import BusyLogError, NoContinuationError
from kapsel_tlog.prover import Erased, proof_for_attempt
from kapsel_verifier import leaf
from kapsel_verifier.note import Note, VerifierKey
from kapsel_verifier.statements import LogContinuation

SECOND = "log.example.com/second"


async def published(world, leaves: int) -> list:
    running = await world.start()
    recorded = await world.record(leaves)
    await world.head_over(leaves)
    await running.stop()
    return recorded


async def move(world, tmp_path: Path, origin: str = SECOND) -> None:
    """Name another origin, as the runbook has it; a log on a machine has a fence file of its own."""
    world.fence_file = tmp_path / f"{origin.rpartition('/')[2]}.json"
    await world.configure(origin=origin)


async def statement(world) -> LogContinuation:
    [row] = await tlog.leaves(world.connection, (await world.log()).id, 0, 1)
    found = leaf.parse_any(row.leaf)
    assert isinstance(found, LogContinuation)
    return found


async def test_first_leaf_of_the_next_log_is_the_last_checkpoint_of_the_one_before(world, tmp_path) -> None:
    old = await published(world, 5)
    last = await world.head()
    before = {attempt: await world.prove(attempt) for attempt in old}
    first = replace(world)
    await tlog.freeze(world.connection, (await world.log()).id, "a person said so")
    waiting = await world.record(8)
    await move(world, tmp_path)
    await world.start()
    await world.head_over(9)
    await world.audit(waiting)
    said = await statement(world)
    assert (said.checkpoint.decode(), said.origin, said.reason) == (last.checkpoint, SECOND, "a person said so")
    Note.parse(said.checkpoint).verify([VerifierKey(first.row.origin, last.public_key)])
    [key] = await log_keys.history(world.connection, (await first.log()).id)
    assert key.not_after_ms >= last.timestamp_ms
    # Nothing of the old log is lost: its heads are there, and its proofs are what they were.
    assert await first.head() == last
    assert {attempt: await first.prove(attempt) for attempt in old} == before


async def test_first_log_of_a_database_begins_with_its_first_attempt(world) -> None:
    recorded = await published(world, 1)
    rows = await tlog.leaves(world.connection, (await world.log()).id, 0, 10)
    assert [row.attempt_id for row in rows] == recorded


async def test_log_that_is_continued_is_closed_also_if_it_was_not_frozen(world, tmp_path, eventually) -> None:
    await published(world, 3)
    row, fence = world.row, world.fence_file
    await move(world, tmp_path)
    running = await world.start()
    await world.head_over(1)
    assert (await statement(world)).reason == continuation.BY_CONFIGURATION
    world.fence_file = fence
    await running.stop()
    await world.configure(origin=row.origin)
    again = await world.start()
    problem = await eventually(again.attestor.problem)
    assert f"the log {row.origin} is frozen: the log {SECOND} continues it" in problem


async def test_change_of_origin_under_a_running_attestor_ends_the_old_log_with_a_head_over_all_of_it(
    world, tmp_path
) -> None:
    await world.configure(publish_interval=timedelta(hours=1), publish_pending=10_000)
    await world.start()
    await world.head_over(0)
    recorded = await world.record(20)
    first = replace(world)

    async def integrated() -> bool:
        return (await first.log()).tree_size == 20

    while not await integrated():
        await asyncio.sleep(0.01)
    # The fence file is asked for anew by each log, so the new one gets its own.
    await move(world, tmp_path)
    head = await first.head_over(20)
    for attempt in recorded:
        await first.prove(attempt)
    await world.head_over(1)
    assert (await statement(world)).checkpoint.decode() == head.checkpoint


async def test_leaves_that_no_head_covers_are_proven_by_the_next_log(world, tmp_path) -> None:
    old = await published(world, 5)
    first = replace(world)
    sequencer = await Sequencer.open(world.connection, await world.log())
    uncovered = await world.record(7)
    await sequencer.integrate(world.connection, 100)
    await tlog.freeze(world.connection, (await world.log()).id, "a person said so")
    waiting = await world.record(3)
    await move(world, tmp_path)
    await world.start()
    await world.head_over(11)
    await world.audit(uncovered + waiting)
    assert (await first.log()).tree_size == 12
    for attempt in old:
        await first.prove(attempt)


async def test_what_was_erased_is_not_told_again(world, tmp_path) -> None:
    await published(world, 5)
    sequencer = await Sequencer.open(world.connection, await world.log())
    erased, kept = await world.record(2)
    await sequencer.integrate(world.connection, 100)
    async with world.tampering():
        await world.connection.execute("UPDATE leaves SET leaf = NULL WHERE attempt_id = $1", erased)
    await move(world, tmp_path)
    await world.start()
    await world.head_over(2)
    await world.audit([kept])
    assert isinstance(await proof_for_attempt(world.connection, erased), Erased)


async def test_log_without_a_head_leaves_nothing_to_continue_but_its_attempts(world, tmp_path) -> None:
    sequencer = await Sequencer.open(world.connection, await tlog.open_log(world.connection, world.row.origin))
    recorded = await world.record(4)
    await sequencer.integrate(world.connection, 100)
    await move(world, tmp_path)
    await world.start()
    await world.head_over(4)
    await world.audit(recorded)


async def test_third_log_continues_the_second_and_takes_what_both_left(world, tmp_path) -> None:
    await published(world, 2)
    await move(world, tmp_path)
    await published(world, 1)
    middle = await world.head()
    sequencer = await Sequencer.open(world.connection, await world.log())
    uncovered = await world.record(3)
    await sequencer.integrate(world.connection, 100)
    await move(world, tmp_path, "log.example.com/third")
    await world.start()
    await world.head_over(4)
    await world.audit(uncovered)
    assert (await statement(world)).checkpoint.decode() == middle.checkpoint


async def test_log_that_somebody_still_leads_is_not_continued(world) -> None:
    await published(world, 2)
    other = await world.beside()
    assert await tlog.try_lock(other.connection, world.row.origin)
    with pytest.raises(BusyLogError, match="another attestor still leads"):
        await continuation.begin(world.connection, SECOND, 1)
    assert await tlog.state(world.connection, SECOND) is None
    await tlog.unlock(other.connection, world.row.origin)
    assert (await continuation.begin(world.connection, SECOND, 1)).tree_size == 1


async def test_later_checkpoint_that_others_have_kept_is_stated_instead(world, tmp_path) -> None:
    """The database is older than what was signed, and a receiver has the newer checkpoint."""
    await published(world, 5)
    await world.back_up()
    await published(world, 10)
    newest = (await world.head()).checkpoint
    await world.restore()
    await continuation.begin(world.connection, SECOND, 1, reason="the backup of Monday", checkpoint=newest)
    await move(world, tmp_path)
    said = await statement(world)
    assert (said.checkpoint.decode(), said.reason) == (newest, "the backup of Monday")


async def test_checkpoint_that_is_not_a_later_one_of_that_log_is_refused(world) -> None:
    await published(world, 5)
    older = (await world.head()).checkpoint
    await published(world, 10)
    for wrong, says in (
        (older, "it is earlier"),
        ("no note", "is none of the log"),
        (older.replace(world.row.origin, "log.example.com/x"), "is none of the log"),
    ):
        with pytest.raises(NoContinuationError, match=says):
            await continuation.begin(world.connection, SECOND, 1, checkpoint=wrong)
    assert await tlog.state(world.connection, SECOND) is None
    assert (await world.log()).frozen_reason is None


async def test_fence_of_another_log_is_found_out_before_the_old_log_is_closed(world, eventually) -> None:
    await published(world, 5)
    first = replace(world)
    await world.configure(origin=SECOND)  # and the fence file is still that of the old log
    running = await world.start()
    assert "belongs to the log" in await eventually(running.attestor.problem)
    assert await tlog.state(world.connection, SECOND) is None
    assert (await first.log()).frozen_reason is None
