"""What must never be signed, is not: restored databases, damaged tiles, fences that do not fit."""

from pathlib import Path

import pytest

from kapsel_attestor.sequencer import Sequencer
from kapsel_store import tlog


async def refused(running, eventually) -> str:
    """Wait until the attestor says that it does not sign, and return why."""
    problem = await eventually(running.attestor.problem)
    assert running.value("attestation_frozen") == 1
    return problem


async def nothing_moved(world, since) -> None:
    """No head was signed, no attempt was put into the log."""
    fenced, log, head = since
    assert world.guard().read() == fenced
    now = await world.log()
    assert (now.tree_size, now.root) == (log.tree_size, log.root)
    assert await world.head() == head


async def position(world) -> tuple:
    return world.guard().read(), await world.log(), await world.head()


async def published(world, leaves: int) -> None:
    """Publish a head over this many leaves more and stop."""
    size = 0 if await world.head() is None else (await world.log()).tree_size
    running = await world.start()
    await world.record(leaves)
    await world.head_over(size + leaves)
    await running.stop()


async def test_restored_older_database_is_frozen_before_anything_goes_into_it(world, eventually) -> None:
    await published(world, 5)
    await world.back_up()
    await published(world, 5)
    await world.restore()
    await world.record(3)
    before = await position(world)
    running = await world.start()
    reason = await world.frozen()
    assert "has 5 leaves, but a head over 10 was signed" in reason
    assert reason in await refused(running, eventually)
    await running.stop()
    await nothing_moved(world, before)
    assert len(await tlog.pending(world.connection, 10)) == 3


async def test_database_restored_under_a_running_attestor_is_frozen(world) -> None:
    await world.start()
    await world.record(5)
    await world.head_over(5)
    await world.back_up()
    await world.record(5)
    await world.head_over(10)
    await world.restore()
    await world.record(7)
    assert "a head over 10 was signed" in await world.frozen()
    assert (await world.head()).tree_size == 5


async def test_restored_database_that_grew_past_the_signed_size_is_frozen(world) -> None:
    await published(world, 5)
    await world.back_up()
    await published(world, 5)
    await world.restore()
    await world.record(20)
    sequencer = await Sequencer.open(world.connection, await world.log())
    await sequencer.integrate(world.connection, 100)
    before = await position(world)
    await world.start()
    assert "the proof does not lead to the older root" in await world.frozen()
    await nothing_moved(world, before)


async def test_restored_database_of_the_same_size_is_frozen(world) -> None:
    await published(world, 5)
    await world.back_up()
    await published(world, 5)
    await world.restore()
    await world.record(5)
    sequencer = await Sequencer.open(world.connection, await world.log())
    await sequencer.integrate(world.connection, 100)
    await world.start()
    assert "two roots for one tree size" in await world.frozen()


async def test_frozen_log_stays_frozen_after_a_restart(world, eventually) -> None:
    await published(world, 5)
    await tlog.freeze(world.connection, (await world.log()).id, "a person said so")
    await world.record(3)
    before = await position(world)
    running = await world.start()
    assert "a person said so" in await refused(running, eventually)
    await nothing_moved(world, before)


async def test_attempts_that_waited_while_frozen_are_proven_in_the_next_log(world, tmp_path: Path) -> None:
    await published(world, 5)
    await tlog.freeze(world.connection, (await world.log()).id, "a person said so")
    waiting = await world.record(8)
    await world.configure(origin="log.example.com/second")
    world.fence_file = tmp_path / "second.json"
    await world.start()
    await world.head_over(8)
    await world.audit(waiting)


@pytest.mark.parametrize("place", [0, 1000, 44 * 256 - 1])
async def test_flipped_bit_in_the_right_edge_is_frozen(world, place: int) -> None:
    await published(world, 300)
    await world.flip(0, 1, place)
    before = await position(world)
    await world.start()
    assert "do not fold to the root" in await world.frozen()
    await nothing_moved(world, before)


async def test_bit_flipped_under_a_running_attestor_stops_the_next_head(world) -> None:
    await world.start()
    await world.record(300)
    await world.head_over(300)
    await world.flip(1, 0, 17)
    await world.record(1)
    assert "cannot be signed" in await world.frozen()
    assert (await world.head()).tree_size == 300


async def test_flipped_bit_far_from_the_edge_is_found_by_reading_the_log_back(world, eventually) -> None:
    await published(world, 600)
    await world.flip(0, 0, 4711)
    running = await world.start()
    assert "tile tile/1/000 does not follow" in await world.frozen()
    assert "reading the whole log back" in await refused(running, eventually)


async def test_missing_tile_is_frozen(world) -> None:
    await published(world, 300)
    async with world.tampering():
        await world.connection.execute("DELETE FROM tiles WHERE level = 1")
    await world.start()
    assert "tile/1/000" in await world.frozen()


async def test_missing_fence_is_refused_until_it_is_back(world, eventually) -> None:
    await published(world, 5)
    kept = world.fence_file.read_bytes()
    world.fence_file.unlink()
    running = await world.start()
    problem = await refused(running, eventually)
    assert f"the fence {world.fence_file} is missing: put its newest copy back" in problem
    assert (await world.log()).frozen_reason is None
    world.fence_file.write_bytes(kept)
    await world.record(2)
    await world.head_over(7)
    assert running.attestor.problem() is None
    assert running.value("attestation_frozen") == 0


async def test_line_that_the_refusal_gives_is_a_fence(world, eventually) -> None:
    await published(world, 5)
    world.fence_file.unlink()
    running = await world.start()
    _, _, line = (await refused(running, eventually)).partition("write this line into it: ")
    world.fence_file.write_text(line)
    await world.record(2)
    await world.head_over(7)


async def test_fence_that_is_older_than_a_published_head_is_refused(world, eventually) -> None:
    await published(world, 5)
    older = world.fence_file.read_bytes()
    await published(world, 5)
    world.fence_file.write_bytes(older)
    running = await world.start()
    assert "is older than the last published head" in await refused(running, eventually)
    assert (await world.log()).frozen_reason is None


@pytest.mark.parametrize(("content", "says"), [(b"{}", "is damaged"), (None, "belongs to the log other.example.com")])
async def test_fence_of_no_use_is_refused_and_kept(world, eventually, content: bytes | None, says: str) -> None:
    await published(world, 5)
    if content is None:
        content = world.fence_file.read_bytes().replace(world.row.origin.encode(), b"other.example.com")
    world.fence_file.write_bytes(content)
    waiting = await world.record(3)
    running = await world.start()
    assert says in await refused(running, eventually)
    assert world.fence_file.read_bytes() == content
    assert len(await tlog.pending(world.connection, 10)) == len(waiting)


async def test_log_without_a_key_waits_for_one(world, eventually) -> None:
    keys, world.keys = world.keys, []
    await world.configure()
    running = await world.start()
    assert "needs a live version with algorithm Ed25519" in await refused(running, eventually)
    world.keys = keys
    await world.configure()
    await world.record(2)
    await world.head_over(2)
    assert running.attestor.problem() is None


async def test_fence_passed_without_a_head_is_continued(world) -> None:
    """What a crash between the fence and the head leaves behind."""
    await published(world, 5)
    sequencer = await Sequencer.open(world.connection, await world.log())
    recorded = await world.record(4)
    await sequencer.integrate(world.connection, 10)
    log, fenced = await world.log(), world.guard().read()
    ahead = type(fenced)(
        origin=fenced.origin, tree_size=9, root=log.root, timestamp_ms=fenced.timestamp_ms + 10_000_000
    )
    world.guard().swap(fenced, ahead)
    await world.start()
    head = await world.head_over(9)
    assert head.timestamp_ms == ahead.timestamp_ms + 1
    await world.prove(recorded[0])
