"""Heads before witnesses: real attestors, real witnesses of our own, and witnesses that lie, hang or know too much."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from nacl.signing import SigningKey
from ports import own_ports
from witnessing import WitnessProcess, http

from kapsel_store import processes, rows, tlog
from kapsel_verifier import cosignature
from kapsel_verifier.add_checkpoint import SIZE_TYPE, AddCheckpoint
from kapsel_verifier.cosignature import WitnessKey, cosign
from kapsel_verifier.note import Checkpoint, Note, VerifierKey

PATIENT = timedelta(seconds=20)  # far more than a witness on a busy machine takes
SECRET = SigningKey(bytes([7]) * 32)
LIAR = WitnessKey("liar.example", bytes(SECRET.verify_key))

Answer = Callable[[AddCheckpoint], Awaitable[web.StreamResponse] | web.StreamResponse]


@pytest.fixture
def witnesses(tmp_path: Path) -> Iterator[Callable[[int], list[WitnessProcess]]]:
    made: list[WitnessProcess] = []

    def make(count: int) -> list[WitnessProcess]:
        for number in range(len(made), len(made) + count):
            one = WitnessProcess(tmp_path / f"w{number}")
            one.make(f"witness.example/w{number}")
            made.append(one)
        return made

    yield make
    for one in made:
        one.close()


@pytest.fixture
def own_port() -> Iterator[list[int]]:
    """A port that nobody takes while the witness that had it is down."""
    with own_ports(1) as ports:
        yield ports


@asynccontextmanager
async def lying(answer: Answer) -> AsyncIterator[str]:
    """A witness that says what it is told to."""

    async def handle(request: web.Request) -> web.StreamResponse:
        said = answer(AddCheckpoint.parse(await request.read()))
        return await said if isinstance(said, Awaitable) else said

    app = web.Application(client_max_size=2**20)
    app.router.add_post("/add-checkpoint", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def log_key(world) -> VerifierKey:
    return VerifierKey(world.row.origin, bytes(SigningKey(world.keys[0].secret).verify_key))


def named(*some: WitnessProcess) -> tuple[rows.Witness, ...]:
    return tuple(rows.Witness(name=f"w{number}", vkey=one.key.encode(), url=one.url) for number, one in enumerate(some))


async def cosigned_by(world, keys: list[WitnessKey], size: int = 0, *, at_least: int = 1) -> Note:
    """Wait for a head over so many leaves with so many cosignatures."""
    for _ in range(24_000):
        head = await world.head()
        if head is not None and head.tree_size >= size:
            note = Note.parse(head.checkpoint)
            if len(cosignature.find(note, keys)) >= at_least:
                return note
        await asyncio.sleep(0.01)
    raise AssertionError("no such head was published")


async def value(world, metric: str) -> float | None:
    """Return a metric of the attestor that reported last."""
    for row in await processes.list_live(world.connection):
        async with aiohttp.ClientSession() as session, session.get(f"{row.address}/metrics") as answer:
            for line in (await answer.text()).splitlines():
                if line.startswith(f"{metric} "):
                    return float(line.rpartition(" ")[2])
    return None


async def test_heads_carry_the_cosignatures_of_all_witnesses_and_grow_with_them(world, witnesses, eventually) -> None:
    one, two = witnesses(2)
    for each in (one, two):
        each.start([log_key(world)])
    await world.configure(
        witnessing=rows.Witnessing(witnesses=named(one, two), quorum=2, required=True, timeout=PATIENT)
    )
    recorded = await world.record(3)
    await world.start_process()
    keys = [one.key, two.key]
    await cosigned_by(world, keys, 3, at_least=2)
    recorded += await world.record(300)
    note = await cosigned_by(world, keys, 303, at_least=2)
    assert note.verify([log_key(world)])
    for each in (one, two):
        seen = Note.parse(each.view(sha256(world.row.origin.encode()).hexdigest()).body)
        assert Checkpoint.parse(seen.text).tree_size >= 303
    await world.audit(recorded)

    async def measured() -> bool:
        return await value(world, f'attestation_witnessed{{origin="{world.row.origin}"}}') == 1

    await eventually(measured)

    async def aged() -> bool:
        # Cosignatures are dated in whole seconds, so that it is some part of one old at once.
        age = await value(world, 'attestation_cosignature_age_seconds{witness="w1"}')
        return age is not None and 0 < age < 600

    await eventually(aged)


async def test_an_attestor_that_starts_anew_learns_by_409_where_its_witnesses_are(world, witnesses, eventually) -> None:
    (one,) = witnesses(1)
    one.start([log_key(world)])
    await world.configure(witnessing=rows.Witnessing(witnesses=named(one), quorum=1, required=True, timeout=PATIENT))
    await world.record(5)
    child = await world.start_process()
    await cosigned_by(world, [one.key], 5)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    await world.record(5)
    await world.start_process()
    await cosigned_by(world, [one.key], 10)


async def test_without_a_required_quorum_heads_are_withheld_while_leaves_go_on(
    world, witnesses, own_port, eventually
) -> None:
    one, two = witnesses(2)
    one.start([log_key(world)])
    [port] = own_port
    two.start([log_key(world)], listen=f"127.0.0.1:{port}")
    declared = named(one, two)
    two.kill()
    await world.configure(
        witnessing=rows.Witnessing(witnesses=declared, quorum=2, required=True, timeout=timedelta(seconds=2))
    )
    await world.record(20)
    await world.start_process()

    async def integrated() -> bool:
        found = await tlog.state(world.connection, world.row.origin)
        return found is not None and found.tree_size == 20

    async def withheld() -> bool:
        return (await value(world, 'attestation_late_heads_total{waits_for="witnesses"}') or 0) > 2

    await eventually(integrated)
    await eventually(withheld)
    assert await world.head() is None
    two.start([log_key(world)], listen=f"127.0.0.1:{port}")
    await cosigned_by(world, [one.key, two.key], 20, at_least=2)


async def test_what_came_in_time_is_published_where_no_quorum_is_required(world, witnesses, eventually) -> None:
    (one,) = witnesses(1)
    one.start([log_key(world)])

    async def hang(_: AddCheckpoint) -> web.StreamResponse:
        await asyncio.sleep(3600)
        raise AssertionError

    async with lying(hang) as url:
        liar = rows.Witness(name="liar", vkey=LIAR.encode(), url=url)
        await world.configure(
            witnessing=rows.Witnessing(witnesses=(*named(one), liar), quorum=2, timeout=timedelta(seconds=5))
        )
        await world.record(4)
        await world.start_process()
        await cosigned_by(world, [one.key], 4)

        async def left_out() -> bool:
            await world.record(1)
            return (await value(world, 'attestation_cosignatures_total{result="left_out",witness="liar"}') or 0) > 0

        await eventually(left_out)
        assert await value(world, f'attestation_witnessed{{origin="{world.row.origin}"}}') == 0


def _forged(asked: AddCheckpoint) -> web.Response:
    return web.Response(text=LIAR.line(1_700_000_000, bytes(64)))


def _of_another_head(asked: AddCheckpoint) -> web.Response:
    secret = SigningKey(bytes([101]) * 32)
    key = WitnessKey("liar.example", bytes(secret.verify_key))
    text = Note.parse(asked.checkpoint).text.replace("\n", "\n1", 1)
    return web.Response(text=cosign(text, 1_700_000_000, key, lambda message: secret.sign(message).signature))


def _by_a_stranger(asked: AddCheckpoint) -> web.Response:
    stranger = WitnessKey("stranger.example", LIAR.public_key)
    text = Note.parse(asked.checkpoint).text
    return web.Response(text=cosign(text, 1_700_000_000, stranger, lambda message: SECRET.sign(message).signature))


LIES: dict[str, tuple[Answer, str]] = {
    "forged": (_forged, "invalid"),
    "of another head": (_of_another_head, "invalid"),
    "by a stranger": (_by_a_stranger, "invalid"),
    "nothing": (lambda _: web.Response(text=""), "invalid"),
    "garbage": (lambda _: web.Response(body=b"\xff\x00" * 100), "invalid"),
    "huge": (lambda _: web.Response(body=b"x" * 10_000_000), "invalid"),
    "refused": (lambda _: web.Response(status=403, text="no"), "refused"),
    "redirected": (lambda _: web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"}), "refused"),
    "no size": (lambda _: web.Response(status=409, body=b"five\n", headers={"Content-Type": SIZE_TYPE}), "invalid"),
    "a conflict without a type": (lambda _: web.Response(status=409, text="5\n"), "refused"),
    "another size each time": (
        lambda asked: web.Response(
            status=409, body=f"{1 - asked.old_size}\n".encode(), headers={"Content-Type": SIZE_TYPE}
        ),
        "conflict",
    ),
    "a larger tree than there is": (
        lambda _: web.Response(status=409, body=b"999999\n", headers={"Content-Type": SIZE_TYPE}),
        "ahead",
    ),
}


async def test_a_witness_that_lies_adds_nothing_to_a_head_and_is_counted(world, eventually) -> None:
    async with AsyncExitStack() as stack:
        liars = []
        for number, (answer, _) in enumerate(LIES.values()):
            url = await stack.enter_async_context(lying(answer))
            key = WitnessKey("liar.example", bytes(SigningKey(bytes([100 + number]) * 32).verify_key))
            liars.append(rows.Witness(name=f"liar-{number}", vkey=key.encode(), url=url))
        liars[0] = replace(liars[0], vkey=LIAR.encode())
        await world.configure(witnessing=rows.Witnessing(witnesses=tuple(liars), quorum=1, timeout=PATIENT))
        recorded = await world.record(4)
        await world.start_process()
        head = await world.head_over(4)
        assert "liar.example" not in head.checkpoint
        assert "stranger.example" not in head.checkpoint
        for number, (_, result) in enumerate(LIES.values()):
            name = f'attestation_cosignatures_total{{result="{result}",witness="liar-{number}"}}'

            async def counted(name: str = name) -> bool:
                return (await value(world, name) or 0) > 0

            await eventually(counted)
        await world.audit(recorded)


async def test_an_idle_log_has_its_head_cosigned_anew(world, witnesses, eventually) -> None:
    (one,) = witnesses(1)
    one.start([log_key(world)])
    await world.configure(
        witnessing=rows.Witnessing(witnesses=named(one), quorum=1, required=True, timeout=PATIENT),
        idle_interval=timedelta(seconds=1),
    )
    await world.record(2)
    await world.start_process()
    first = cosignature.find(await cosigned_by(world, [one.key], 2), [one.key])[0].timestamp

    async def later() -> bool:
        head = await world.head()
        return cosignature.find(Note.parse(head.checkpoint), [one.key])[0].timestamp > first

    await eventually(later)


async def test_a_witness_keeps_a_restored_database_from_being_shown_as_the_log(world, witnesses, eventually) -> None:
    """Its fence was restored too, so nothing on the log's side remembers; the witness does."""
    (one,) = witnesses(1)
    one.start([log_key(world)])
    await world.configure(witnessing=rows.Witnessing(witnesses=named(one), quorum=1, required=True, timeout=PATIENT))
    await world.record(3)
    child = await world.start_process()
    await cosigned_by(world, [one.key], 3)
    child.send_signal(signal.SIGTERM)
    await child.wait()
    await world.back_up()
    fence = world.fence_file.read_bytes()
    await world.record(4)
    child = await world.start_process()
    await cosigned_by(world, [one.key], 7)
    child.send_signal(signal.SIGTERM)
    await child.wait()
    await world.restore()
    world.fence_file.write_bytes(fence)
    await world.record(1)
    await world.start_process()

    async def counted() -> bool:
        return (await value(world, 'attestation_cosignatures_total{result="ahead",witness="w0"}') or 0) > 0

    await eventually(counted)
    head = await world.head()
    assert head.tree_size == 3
    seen = http("GET", f"{one.url}/{sha256(world.row.origin.encode()).hexdigest()}/checkpoint").body
    assert Checkpoint.parse(Note.parse(seen).text).tree_size == 7
    assert json.loads(fence)["tree_size"] == 3


async def test_a_witness_is_asked_no_more_often_than_its_budget_and_heads_go_on(world, witnesses, eventually) -> None:
    """Between two heads that the budget allows the condition and the metric stay what they were."""
    (one,) = witnesses(1)
    one.start([log_key(world)])
    await world.configure(
        witnessing=rows.Witnessing(witnesses=named(one), quorum=1, timeout=PATIENT, queries_per_day=24),
        idle_interval=timedelta(seconds=0.2),
    )
    await world.record(2)
    await world.start_process()
    budget = 'attestation_cosignatures_total{result="budget",witness="w0"}'

    async def used_up() -> bool:
        return (await value(world, budget) or 0) > 2

    await eventually(used_up)
    await world.record(3)
    head = await world.head_over(5)
    assert cosignature.find(Note.parse(head.checkpoint), [one.key]) == ()
    assert await value(world, 'attestation_cosignatures_total{result="cosigned",witness="w0"}') == 10
    assert await value(world, f'attestation_witnessed{{origin="{world.row.origin}"}}') == 1
