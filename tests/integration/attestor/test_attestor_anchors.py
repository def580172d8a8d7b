"""Anchors against real calendar servers, which fail in their ways, and the stock OpenTimestamps client."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from nacl.signing import SigningKey
from otscalendar import CalendarServer, Chain, Node
from prometheus_client import CollectorRegistry

from kapsel_attestor.anchors import Anchors
from kapsel_attestor.beside import Led
from kapsel_attestor.metrics import Metrics
from kapsel_attestor.status_report import Condition
from kapsel_store import anchors, tlog
from kapsel_store.anchors import Anchored
from kapsel_store.rows import Anchoring
from kapsel_tlog import prover
from kapsel_tlog.errors import DamagedTreeError
from kapsel_tlog.prover import NotYetAnchored, Unknown
from kapsel_verifier import ots
from kapsel_verifier import proof as proof_file
from kapsel_verifier.errors import AnchorError
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.levels import Means
from kapsel_verifier.verify import verify_proof

OTS = Path(sys.executable).with_name("ots")
SOON = timedelta(seconds=2)  # an interval of which all waits are short
LONG = timedelta(hours=24)
PATIENT = timedelta(minutes=1)  # for an answer of a calendar on a busy machine
MINED_AT = 1_795_300_000  # 2026-11-21


@dataclass
class Surroundings:
    """A log, three calendars that write to one chain, and what is said about the anchors."""

    world: object
    eventually: Callable
    chain: Chain
    calendars: list[CalendarServer]
    said: list[Condition] = field(default_factory=list)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    async def declare(self, minimum: int = 2, interval: timedelta = SOON, timeout: timedelta = PATIENT):
        anchoring = Anchoring(
            calendars=tuple(one.url for one in self.calendars), minimum=minimum, interval=interval, timeout=timeout
        )
        await self.world.configure(anchoring=anchoring)

    async def publish(self, count: int = 1) -> None:
        """Have a head over some more attempts published, by an attestor without anchors that ends again."""
        log = await tlog.state(self.world.connection, self.world.row.origin)
        running = await self.world.start()
        await self.world.record(count)
        await self.world.head_over(count if log is None else log.tree_size + count)
        await running.stop()

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[asyncio.Task[None]]:
        """Run the anchors of one attestor, alone."""
        pool = await self.world.database.pool("attestor")
        self.registry = CollectorRegistry()
        task = Anchors(Metrics(self.registry))
        led = Led(pool=pool, log=await self.world.log(), row=lambda: self.world.row, say=self.said.append)
        running = asyncio.create_task(task.run(led))
        try:
            yield running
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def anchor(self) -> Anchored | None:
        return await anchors.covering(self.world.connection, (await self.world.log()).id, 0)

    async def promised(self, by: int = 2) -> Anchored:
        """Wait until so many calendars have promised to date the first leaf."""

        async def found() -> Anchored | None:
            anchor = await self.anchor()
            return anchor if anchor is not None and len(ots.parse(anchor.ots).promises()) >= by else None

        return await self.eventually(found)

    async def dated(self, by: int = 1) -> Anchored:
        """Wait until so many calendars have led the first leaf to a block."""

        async def found() -> Anchored | None:
            anchor = await self.anchor()
            return anchor if anchor is not None and len(ots.parse(anchor.ots).blocks()) >= by else None

        return await self.eventually(found)

    async def condition(self, reason: str, *words: str) -> Condition:
        """Wait until a condition with this reason is said in these words."""

        def found() -> Condition | None:
            told = (one for one in self.said if one.reason == reason)
            return next((one for one in told if all(part in one.message for part in words)), None)

        return await self.eventually(found)

    def check(self, anchor: Anchored) -> ots.Anchor:
        """Judge an anchor as an auditor does who has the header from elsewhere."""
        timestamp = ots.of_file(anchor.ots, anchor.head.checkpoint.encode())
        first = min(claim.height for claim in timestamp.blocks())  # the file's order is that of hashes
        header = self.chain.header(first)
        return ots.check(timestamp, header, not_before_ms=anchor.head.timestamp_ms, min_difficulty=0)


@pytest.fixture
async def around(world, eventually) -> AsyncIterator[Surroundings]:
    chain = Chain()
    calendars = [CalendarServer(chain) for _ in range(3)]
    for one in calendars:
        await one.start()
    made = Surroundings(world, eventually, chain, calendars)
    await made.declare()
    yield made
    for one in calendars:
        await one.stop()


async def stock(*arguments: str, home: Path) -> tuple[int, str]:
    """Run the stock client and return its exit code and all that it said."""
    child = await asyncio.create_subprocess_exec(
        OTS,
        *arguments,
        env=os.environ | {"HOME": str(home), "TZ": "UTC", "XDG_CACHE_HOME": str(home)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(child.communicate(), 240)
    return child.returncode or 0, said.decode()


def write(directory: Path, anchor: Anchored) -> Path:
    """Write the two files as the stock client wants them, and return the timestamp's."""
    (directory / "checkpoint").write_text(anchor.head.checkpoint)
    file = directory / "checkpoint.ots"
    file.write_bytes(anchor.ots)
    return file


async def test_a_head_is_promised_by_calendars_and_dated_by_a_block(around: Surroundings) -> None:
    await around.publish()
    async with around.at_work():
        promised = await around.promised(by=3)
        assert promised.height is None
        assert (await around.condition("Promised")).status == "False"
        mined = int(time.time())
        heights = [one.mine(mined) for one in around.calendars]
        await around.dated(by=3)
        said = await around.condition("Dated", f"block {heights[0]} ")
    dated = await around.anchor()
    assert dated is not None
    assert dated.height == heights[0]
    assert said.status == "True"
    assert around.check(dated).day == datetime.fromtimestamp(mined, UTC).date().isoformat()
    assert around.registry.get_sample_value("attestation_anchors_confirmed_total") == 1
    running = await around.world.start()
    async with around.world.measured(running):
        await around.eventually(lambda: running.value("attestation_anchor_age_seconds") > 0)
    # Each was asked to date it once, and learnt nothing but a salted hash.
    assert [len(one.digests) for one in around.calendars] == [1, 1, 1]
    assert {len(digest) for one in around.calendars for digest in one.digests} == {32}
    assert ots.parse(dated.ots).digest not in around.calendars[0].digests


async def test_the_stock_client_reads_upgrades_and_verifies_the_file(around: Surroundings, tmp_path: Path) -> None:
    await around.publish()
    async with around.at_work():
        promised = await around.promised(by=3)
    file = write(tmp_path, promised)

    code, said = await stock("info", str(file), home=tmp_path)
    assert code == 0, said
    assert all(f"PendingAttestation('{one.url}')" in said for one in around.calendars)

    height = around.calendars[0].mine(MINED_AT)
    whitelist = [argument for one in around.calendars for argument in ("--whitelist", one.url)]
    code, said = await stock("--no-default-whitelist", *whitelist, "upgrade", str(file), home=tmp_path)
    assert code == 0, said
    assert "Success! Timestamp complete" in said
    # What the stock client has made of our file is read by us.
    upgraded = ots.of_file(file.read_bytes(), promised.head.checkpoint.encode())
    assert ots.check(upgraded, around.chain.header(height), min_difficulty=0).day == "2026-11-21"

    async with around.at_work():
        dated = await around.dated()
    file = write(tmp_path, dated)
    code, said = await stock("--no-bitcoin", "--no-cache", "verify", str(file), home=tmp_path)
    root = ots.parse(dated.ots).blocks()[0].merkle_root[::-1].hex()
    assert f"check that Bitcoin block {height} has merkleroot {root}" in said

    node = Node(around.chain)
    await node.start()
    try:
        bitcoin = ["--btc-regtest", "--bitcoin-node", node.url]
        code, said = await stock("--no-cache", *bitcoin, "verify", str(file), home=tmp_path)
    finally:
        await node.stop()
    assert code == 0, said
    assert f"Success! Bitcoin block {height} attests existence as of 2026-11-21 UTC" in said
    (tmp_path / "checkpoint").write_text(dated.head.checkpoint + " ")
    code, said = await stock("--no-cache", "--no-bitcoin", "verify", str(file), home=tmp_path)
    assert code == 1
    assert "File does not match original" in said


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("hang", "does not answer within 5 s"),
        ("drip", "does not answer within 5 s"),
        ("error", "answers with status 503"),
        ("garbage", "answers with what is no timestamp"),
        ("huge", "answers with more than 10000 bytes"),
        ("redirect", "answers with status 302"),
        ("elsewhere", "answers for https://somebody.example.com, which is not among the calendars"),
    ],
)
async def test_a_calendar_that_fails_is_told_of_and_the_others_date_the_head(
    around: Surroundings, fault: str, words: str
) -> None:
    await around.declare(minimum=3, timeout=timedelta(seconds=5) if fault in ("hang", "drip") else PATIENT)
    await around.publish()
    bad, *good = around.calendars
    bad.fault = fault
    async with around.at_work():
        await around.promised(by=2)
        two = "2 of the 3 calendars that are needed have promised"
        await around.condition("CalendarsAway", two, f"{bad.url} {words}")
        assert around.registry.get_sample_value("attestation_calendar_failures_total", {"calendar": bad.url}) >= 1
        good[0].mine(int(time.time()))
        dated = await around.dated()
        assert around.check(dated).height == dated.height
        # It is left alone for a while, asked again, and stands in the file in the end.
        bad.fault = None
        await around.promised(by=3)
    assert len(set(bad.digests)) == 1, "the same is asked again, not another digest"


async def test_no_calendar_at_all_leaves_the_head_waiting(around: Surroundings) -> None:
    await around.publish()
    for one in around.calendars:
        one.fault = "error"
    async with around.at_work():
        said = await around.condition("CalendarsAway")
        assert said.message.startswith("0 of the 2 calendars")
        assert await around.anchor() is None
        for one in around.calendars:
            one.fault = None
        await around.promised()


async def test_a_head_that_nobody_follows_to_a_block_any_more_waits_for_none(around: Surroundings) -> None:
    await around.publish()
    async with around.at_work():
        await around.promised()
    running = await around.world.start()
    async with around.world.measured(running):
        await around.eventually(lambda: running.value("attestation_anchors_pending") == 1)
        assert running.value("attestation_anchor_oldest_pending_seconds") > 0
        await around.world.configure(anchoring=None)
        await around.eventually(lambda: running.value("attestation_anchors_pending") == 0)
        assert running.value("attestation_anchor_oldest_pending_seconds") == 0


async def test_hanging_calendars_slow_neither_leaves_nor_heads(around: Surroundings) -> None:
    await around.declare(minimum=3, timeout=timedelta(minutes=10))
    for one in around.calendars:
        one.fault = "hang"
    running = await around.world.start(beside=lambda metrics: [Anchors(metrics)])
    asked = await around.world.record()
    await around.world.head_over(1)
    await around.eventually(lambda: all(one.digests for one in around.calendars))
    for size in range(2, 12):
        asked += await around.world.record()
        await around.world.head_over(size)
    await running.stop()  # which has a deadline of its own: who ends waits for no calendar
    await around.world.audit(asked)


async def test_a_calendar_that_forgets_does_not_keep_the_others_from_dating(around: Surroundings) -> None:
    await around.publish()
    around.calendars[0].fault = "forgets"
    async with around.at_work():
        await around.promised(by=3)
        for one in around.calendars:
            one.mine(int(time.time()))
        dated = await around.dated(by=2)
    assert {claim.height for claim in ots.parse(dated.ots).blocks()} <= set(range(967_001, 967_003))


async def test_a_calendar_that_lies_about_a_block_hides_none_of_the_others(around: Surroundings) -> None:
    await around.publish()
    async with around.at_work():
        await around.promised(by=3)
        around.calendars[0].fault = "lies"
        await around.eventually(lambda: around.registry.get_sample_value("attestation_anchors_confirmed_total"))
        heights = [one.mine(int(time.time())) for one in around.calendars[1:]]
        dated = await around.dated(by=3)
    timestamp = ots.of_file(dated.ots, dated.head.checkpoint.encode())
    for height in heights:
        assert ots.check(timestamp, around.chain.header(height), min_difficulty=0).height == height


async def test_a_block_that_no_message_can_lead_to_is_none(around: Surroundings) -> None:
    await around.publish()
    async with around.at_work():
        await around.promised(by=3)
        for one in around.calendars:
            one.fault = "misleads"
        url = around.calendars[0].url
        await around.eventually(
            lambda: around.registry.get_sample_value("attestation_calendar_failures_total", {"calendar": url})
        )
        assert (await around.anchor()).height is None
        for one in around.calendars:
            one.fault = None
            one.mine(int(time.time()))
        await around.dated(by=3)


async def test_at_most_one_head_per_interval_is_dated_and_none_that_says_nothing_new(around: Surroundings) -> None:
    async def begun(interval: timedelta) -> bool:
        return await anchors.begin(around.world.connection, (await around.world.log()).id, interval, os.urandom(16))

    await around.publish(count=0)
    assert not await begun(timedelta(0)), "a head without leaves has nothing to date"
    await around.publish()
    assert await begun(LONG)
    assert not await begun(timedelta(0)), "this very head is begun already"
    await around.publish()
    assert not await begun(LONG)
    assert await begun(timedelta(0))
    size = (await around.world.head()).tree_size
    await around.world.configure(idle_interval=timedelta(milliseconds=1))
    running = await around.world.start()
    before = (await around.world.head()).timestamp_ms
    await around.eventually(lambda: newer(around, before))
    await running.stop()
    assert (await around.world.head()).tree_size == size
    assert not await begun(timedelta(0)), "a head anew over the same leaves says nothing new"


async def newer(around: Surroundings, than_ms: int) -> bool:
    return (await around.world.head()).timestamp_ms > than_ms


async def test_what_was_begun_is_taken_up_by_whoever_leads_next(around: Surroundings) -> None:
    await around.publish()
    for one in around.calendars:
        one.fault = "hang"
    async with around.at_work():
        await around.eventually(lambda: all(one.digests for one in around.calendars))
    # Killed between asking and storing: nothing was kept but that there is something to ask.
    assert await around.anchor() is None
    for one in around.calendars:
        one.fault = None
    async with around.at_work():
        await around.promised(by=3)
    assert {len(set(one.digests)) for one in around.calendars} == {1}
    log = await around.world.log()
    assert (await anchors.pending(around.world.connection, log.id)).count == 1


async def test_the_last_heads_of_a_log_are_dated_while_the_next_one_is_led(around: Surroundings) -> None:
    await around.publish()
    ended = await around.world.log()
    async with around.at_work():
        await around.promised(by=3)
    await around.world.configure(origin=f"{around.world.row.origin}/2")
    around.world.fence_file = around.world.fence_file.with_name("fence-2.json")
    await around.publish(count=0)
    for one in around.calendars:
        one.mine(int(time.time()))

    async def dated() -> bool:
        found = await anchors.covering(around.world.connection, ended.id, 0)
        return found is not None and found.height is not None

    async with around.at_work():
        await around.eventually(dated)


async def test_two_attestors_at_once_lose_no_promise(around: Surroundings) -> None:
    await around.publish()
    async with around.at_work(), around.at_work():
        await around.promised(by=3)
        for one in around.calendars:
            one.mine(int(time.time()))
        dated = await around.dated(by=3)
    assert around.check(dated).height == dated.height


async def test_processes_that_are_killed_lose_no_anchor(around: Surroundings) -> None:
    world = around.world
    await around.declare(minimum=3)
    child = await world.start_process()
    asked = await world.record()
    await around.eventually(lambda: any(one.digests for one in around.calendars))
    child.kill()
    await child.wait()
    child = await world.start_process()
    await around.promised(by=3)
    child.kill()
    await child.wait()
    for one in around.calendars:
        one.mine(int(time.time()))
    await world.start_process()
    dated = await around.dated(by=3)
    assert around.check(dated).height == dated.height
    await world.audit(asked)


async def test_a_proof_brings_the_anchor_of_its_head_or_is_made_for_an_anchored_one(around: Surroundings) -> None:
    world = around.world
    connection = world.connection
    running = await world.start()
    (first,) = await world.record()
    await world.head_over(1)
    (second,) = await world.record()
    await world.head_over(2)
    await running.stop()
    assert isinstance(await prover.anchored_proof_for_attempt(connection, first), NotYetAnchored)
    assert isinstance(await prover.anchored_proof_for_attempt(connection, uuid4()), Unknown)
    async with around.at_work():
        await around.promised(by=3)
        claimed = await prover.anchored_proof_for_attempt(connection, first)
        assert (claimed.assurance, claimed.ots is None) == ("claimed", False), "a promise is no date"
        for one in around.calendars:
            one.mine(int(time.time()))
        await around.dated(by=3)

    # The first attempt's own head was never anchored, a later one over it was; the second's own head was.
    plain = await prover.proof_for_attempt(connection, first)
    assert (plain.ots, plain.assurance) == (None, "claimed")
    for attempt, proof in (
        (first, await prover.anchored_proof_for_attempt(connection, first)),
        (second, await prover.proof_for_attempt(connection, second)),
    ):
        assert proof.assurance == "anchored"
        trusted = [TrustedKey(bytes(SigningKey(key.secret).verify_key), world.row.origin) for key in world.keys]
        height = ots.parse(proof.ots).blocks()[0].height
        means = Means(block_headers=(around.chain.header(height),), min_difficulty=0, require=frozenset({"anchored"}))
        verified = verify_proof(proof_file.parse(proof.encode()), trusted, means=means)
        assert verified.leaf.delivery_attempt_id == str(attempt)
        assert verified.assurance == "anchored"
        another = around.chain.header(around.chain.mine(bytes(32)))
        with pytest.raises(AnchorError):
            verify_proof(proof, trusted, means=means._replace(block_headers=(another,)))


async def test_a_stored_timestamp_that_was_damaged_is_told_and_keeps_no_other_waiting(around: Surroundings) -> None:
    await around.publish()
    async with around.at_work():
        await around.promised(by=3)
    connection = around.world.connection
    await connection.execute("UPDATE anchors SET ots = set_byte(ots, 0, 1), next_at = now()")
    async with around.at_work():
        assert (await around.condition("Damaged")).status == "False"
        await around.publish()
        await around.condition("Promised")
        log = await around.world.log()

        async def both() -> bool:
            found = await anchors.newest(connection, log.id)
            return found is not None and found.tree_size == 2 and found.ots is not None

        await around.eventually(both)
    assert (await anchors.pending(connection, log.id)).count == 2
    (leaf, _) = await tlog.leaves(connection, log.id, 0, 2)
    with pytest.raises(DamagedTreeError, match="stored timestamp"):
        await prover.proof_for_attempt(connection, leaf.attempt_id)


async def test_what_an_anchor_says_can_only_grow(around: Surroundings) -> None:
    await around.publish()
    async with around.at_work():
        await around.promised(by=3)
    await around.world.connection.execute("UPDATE anchors SET next_at = now()")
    (due,) = await anchors.due(around.world.connection, 5)
    for change in ("ots = NULL", "ots = substr(ots, 2)", "nonce = decode(repeat('00', 16), 'hex')", "tree_size = 7"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await around.world.connection.execute(f"UPDATE anchors SET {change}")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await around.world.connection.execute("DELETE FROM anchors")
    later = {"ots": due.ots, "height": None, "complete": False, "next_in": timedelta(0)}
    assert not await anchors.keep(around.world.connection, replace(due, ots=b"another"), **later)
    assert await anchors.keep(around.world.connection, due, **later)
