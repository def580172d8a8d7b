"""A crash at any statement, and a kill at any durable step: afterwards the log verifies, with every leaf once."""

import asyncio
import signal

import asyncpg
import pytest
from cutting import CuttingWire

from kapsel_attestor import publisher
from kapsel_attestor.attestor import now_ms
from kapsel_attestor.sequencer import Sequencer
from kapsel_attestor.signers.gate import Gate
from kapsel_attestor.signers.seeds import SeedBackend
from kapsel_attestor.signers.signer import Signer
from kapsel_store import tlog
from kapsel_store.database import settings
from kapsel_tlog import continuation
from kapsel_tlog.examination import examine
from kapsel_verifier.note import VerifierKey

STATEMENTS_AT_LEAST = 20  # of a batch and a head, so that the test cannot pass by looking at nothing


def signer(world) -> Signer:
    key = world.keys[0]
    backend = SeedBackend(key.secret)
    return Signer(
        key=VerifierKey(world.row.origin, backend.public_key()),
        key_id=key.id,
        where="the key of the tests",
        not_before=key.not_before,
        not_after=None,
        backend=backend,
        gate=Gate(),
    )


async def connect(world, url: str) -> asyncpg.Connection:
    return await asyncpg.connect(
        url, server_settings=settings(schema=world.database.schema, role="kapsel_attestor", component="attestor")
    )


async def one_batch_and_head(world, url: str) -> None:
    """Begin the log or take it up, integrate what waits, and publish a head: what an attestor does all day."""
    connection = await connect(world, url)
    try:
        log = await continuation.begin(connection, world.row.origin, now_ms())
        await publisher.inspect(connection, log, world.guard())
        sequencer = await Sequencer.open(connection, log)
        await sequencer.integrate(connection, 1000)
        await publisher.publish(connection, sequencer.log, world.guard(), [signer(world)], now_ms)
    finally:
        connection.terminate()


async def holds_together(world) -> None:
    """Whatever was cut off, what is stored is a whole log."""
    log = await tlog.state(world.connection, world.row.origin)
    if log is not None:
        assert (await examine(world.connection, log, lambda _: None)).findings == []
        assert log.frozen_reason is None


@pytest.mark.parametrize("side", ["before", "after"])
async def test_crash_at_any_statement_leaves_a_log_that_verifies(world, side) -> None:
    recorded = []
    for number in range(1, 500):
        recorded += await world.record(3)
        async with CuttingWire(world.database.url, lambda seen, _, at=number: seen == at, side) as wire:
            try:
                await one_batch_and_head(world, wire.url)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                assert wire.cut
        await holds_together(world)
        if not wire.cut:
            break
    assert number > STATEMENTS_AT_LEAST
    await world.audit(recorded)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_crash_at_any_statement_of_a_continuation_begins_the_new_log_whole_or_not_at_all(world, side) -> None:
    await world.record(5)
    await one_batch_and_head(world, world.database.url)
    first = world.row.origin
    # Leaves that no head covers, which the next log takes.
    uncovered = await world.record(4)
    sequencer = await Sequencer.open(world.connection, await world.log())
    await sequencer.integrate(world.connection, 1000)
    for number in range(1, 500):
        async with CuttingWire(world.database.url, lambda seen, _, at=number: seen == at, side) as wire:
            try:
                connection = await connect(world, wire.url)
                try:
                    await continuation.begin(connection, "log.example.com/second", now_ms())
                finally:
                    connection.terminate()
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                assert wire.cut
        await nobody_is_left(world)
        old, new = [await tlog.state(world.connection, origin) for origin in (first, "log.example.com/second")]
        waiting = {attempt.id for attempt in await tlog.pending(world.connection, 100)}
        if new is None:
            assert (old.frozen_reason, waiting) == (None, set())
        else:
            assert (new.tree_size, waiting) == (1, set(map(str, uncovered)))
            assert old.frozen_reason == continuation.closed_by(new.origin)
        if not wire.cut:
            break
    assert number > 10
    assert new is not None


async def nobody_is_left(world) -> None:
    """Wait until the server has ended the session that was cut off: the next one is to get its locks."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'kapsel-attestor'"
    while await world.connection.fetchval(query):
        await asyncio.sleep(0.001)


def copying(_: int, texts: list[str]) -> bool:
    return "COPY" in texts[-1]


def committing_leaves(_: int, texts: list[str]) -> bool:
    return texts[-1] == "COMMIT;" and any("COPY" in text for text in texts)


def storing_head(_: int, texts: list[str]) -> bool:
    return "INSERT INTO heads" in texts[-1]


def committing_head(_: int, texts: list[str]) -> bool:
    return texts[-1] == "COMMIT;" and any("INSERT INTO heads" in text for text in texts)


STEPS = {
    "while leaves are copied": (copying, "before"),
    "before the batch is committed": (committing_leaves, "before"),
    "once the batch is committed": (committing_leaves, "after"),
    "once the fence is swapped and the head is signed": (storing_head, "before"),
    "before the head is committed": (committing_head, "before"),
    "once the head is committed": (committing_head, "after"),
}


@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_durable_step_it_loses_and_doubles_nothing(world, step: str) -> None:
    at, side = STEPS[step]
    recorded = await world.record(40)
    killed = asyncio.Event()

    def kill() -> None:
        world.children[-1].send_signal(signal.SIGKILL)
        killed.set()

    async with CuttingWire(world.database.url, at, side, kill) as wire:
        child = await world.start_process(KAPSEL_DATABASE_URL=wire.url)
        await asyncio.wait_for(killed.wait(), 240)
        assert await asyncio.wait_for(child.wait(), 240) == -signal.SIGKILL
    if step.startswith("once the fence"):
        assert world.guard().read() is not None
        assert await world.head() is None
    await holds_together(world)
    recorded += await world.record(5)
    await world.start_process()
    await world.head_over(45)
    await world.audit(recorded)
