"""What must never be signed, is not: restored databases, damaged tiles, fences that do not fit."""

import asyncio

import pytest

from kapsel_attestor.errors import MismatchError
from kapsel_attestor.patrol import patrol
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


async def edit_leaf(world, index: int) -> None:
    """Change what a leaf says, as somebody does who would rather not have delivered that."""
    async with world.tampering():
        await world.connection.execute(
            "UPDATE leaves SET leaf = convert_to(replace(convert_from(leaf, 'UTF8'), 'delivered', 'refused'), 'UTF8') "
            "WHERE leaf_index = $1",
            index,
        )


@pytest.mark.parametrize("index", [0, 299])
async def test_leaf_edited_by_hand_is_frozen_before_anything_is_signed(world, index: int) -> None:
    await published(world, 300)
    await edit_leaf(world, index)
    before = await position(world)
    await world.start()
    assert f"leaf {index} is not what its hash in the tree says" in await world.frozen()
    if index == 299:
        await nothing_moved(world, before)


async def test_leaf_edited_under_a_running_attestor_stops_the_next_head(world) -> None:
    await world.start()
    await world.record(300)
    head = await world.head_over(300)
    await edit_leaf(world, 298)
    await world.record(1)
    assert "leaf 298 is not what its hash in the tree says" in await world.frozen()
    assert await world.head() == head


async def test_leaf_edited_after_it_was_integrated_and_before_it_is_signed_is_never_signed(world) -> None:
    await published(world, 5)
    sequencer = await Sequencer.open(world.connection, await world.log())
    await world.record(700)
    await sequencer.integrate(world.connection, 1000)
    await edit_leaf(world, 6)
    before = await position(world)
    await world.start()
    assert "leaf 6 is not" in await world.frozen()
    await nothing_moved(world, before)


@pytest.mark.parametrize("index", [3, 2900])
async def test_deleted_leaf_row_is_frozen(world, eventually, index: int) -> None:
    await published(world, 3000)
    async with world.tampering():
        await world.connection.execute("DELETE FROM leaves WHERE leaf_index = $1", index)
    running = await world.start()
    assert f"leaf {index} is missing" in await world.frozen()
    assert "is missing" in await refused(running, eventually)


async def test_leaf_row_that_is_in_no_tree_is_frozen_and_parks_nothing(world) -> None:
    await published(world, 5)
    async with world.tampering():
        await world.connection.execute(
            "INSERT INTO leaves (log_id, leaf_index, leaf) SELECT log_id, 5, leaf FROM leaves WHERE leaf_index = 4"
        )
    await world.record(3)
    await world.start()
    assert "in no tree" in await world.frozen()
    assert await tlog.parked_count(world.connection) == 0


HEAD_EDITS = {
    "tree_size": "tree_size = tree_size + 1",
    "root": "root = sha256('other')",
    "timestamp": "timestamp_ms = timestamp_ms - 1",
    "checkpoint": "checkpoint = replace(checkpoint, E'\\n5\\n', E'\\n6\\n')",
    "signature": "sth_signature = set_byte(sth_signature, 0, 255 - get_byte(sth_signature, 0))",
    "key": "public_key = sha256('other')",
}


@pytest.mark.parametrize("edit", HEAD_EDITS)
async def test_head_row_edited_by_hand_is_frozen(world, edit: str) -> None:
    await published(world, 5)
    before = world.guard().read()
    async with world.tampering():
        await world.connection.execute(
            f"UPDATE heads SET {HEAD_EDITS[edit]} WHERE timestamp_ms = (SELECT max(timestamp_ms) FROM heads)"
        )
    running = await world.start()
    if edit == "tree_size":
        # A head beyond the fence may as well be a fence that is too old.
        await published_refusal(running)
    else:
        assert "the head of 5 leaves" in await world.frozen()
    assert world.guard().read() == before


async def published_refusal(running) -> None:
    deadline = asyncio.get_running_loop().time() + 120
    while running.attestor.problem() is None:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


async def test_older_head_row_edited_by_hand_is_found_by_reading_the_log_back(world) -> None:
    await published(world, 5)
    await published(world, 5)
    async with world.tampering():
        await world.connection.execute(
            "UPDATE heads SET root = sha256('other') WHERE timestamp_ms = "
            "(SELECT max(timestamp_ms) FROM heads WHERE tree_size = 5)"
        )
    await world.start()
    assert "the head of 5 leaves" in await world.frozen()


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("UPDATE leaves SET leaf = leaf || '\\x20' WHERE leaf_index = 3", "leaf 3 is not what its hash"),
        ("DELETE FROM leaves WHERE leaf_index = 3", "leaf 3 is missing"),
        ("UPDATE heads SET root = sha256('other') WHERE tree_size = 3000", "the head of 3000 leaves"),
    ],
)
async def test_change_after_all_was_read_back_once_is_found_by_the_next_round(world, sql: str, says: str) -> None:
    await published(world, 3000)
    folded = asyncio.Event()
    pool = await world.database.pool("attestor")
    rounds = asyncio.create_task(patrol(pool, await world.log(), refold=True, folded=folded.set, pace=0.01))
    await asyncio.wait_for(folded.wait(), 240)
    async with world.tampering():
        await world.connection.execute(sql)
    with pytest.raises(MismatchError, match=says):
        await asyncio.wait_for(rounds, 240)


async def test_two_attestors_on_two_copies_of_the_database_sign_one_tree(world, eventually) -> None:
    """The advisory lock is split, since each copy has its own; the fence lets one pass and freezes the other."""
    await published(world, 5)
    other = await world.cloned()
    await asyncio.gather(world.record(10), other.record(10))
    await asyncio.gather(world.start(), other.start())

    async def one_is_frozen() -> bool:
        return ((await world.log()).frozen_reason is None) != ((await other.log()).frozen_reason is None)

    await eventually(one_is_frozen)
    signing = other if (await world.log()).frozen_reason else world
    recorded = await signing.record(3)
    await signing.head_over(18)
    await signing.prove(recorded[0])
    assert (await signing.log()).frozen_reason is None


async def test_lock_lost_while_the_attestor_leads_does_not_make_two_trees(world) -> None:
    await world.start()
    await world.head_over(0)
    second = await world.start()
    recorded = await world.record(20)
    await world.head_over(20)
    # The connection with the lock dies, and the second attestor takes over while the first is still at work.
    await world.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid() "
        "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    recorded += await world.record(20)
    await world.head_over(40)
    await world.audit(recorded)
    assert (await world.log()).frozen_reason is None
    await second.well()


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
    await running.well()
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
    await running.well()


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
