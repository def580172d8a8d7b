"""`kapsel proof --anchored`: waits for a block in words, then brings a proof that holds against its header."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from otscalendar import Chain
from otscalendar.calendar_server import CalendarServer

from kapsel_attestor import dating
from kapsel_store import anchors, tlog
from kapsel_store.rows import Anchoring
from kapsel_verifier import ots, ots_paths
from kapsel_verifier import proof as proof_file
from kapsel_verifier.keys import parse_key_set
from kapsel_verifier.levels import Means
from kapsel_verifier.verify import verify_proof


@pytest.fixture
async def calendar():
    server = CalendarServer(Chain())
    await server.start()
    yield server
    await server.stop()


async def test_an_anchored_proof_is_awaited_in_words_and_then_holds_against_the_block(
    console, world, kapsel: Callable, calendar: CalendarServer
) -> None:
    (attempt,) = await world.delivered()
    asked = ("proof", str(attempt.id), "--anchored", "--server", console.url)
    await console.source._refresh()
    ran = await kapsel(*asked)
    assert ran.code == 1
    assert "spec.anchoring" in ran.err

    declared = Anchoring(calendars=(calendar.url,), minimum=1)
    await world.apply(log=replace(world.desired.log, anchoring=declared))
    await console.source._refresh()
    ran = await kapsel(*asked)
    assert (ran.code, ran.out) == (3, "")
    assert "Try again in some hours." in ran.err

    log = await tlog.open_log(world.connection, world.desired.log.origin)
    assert await anchors.begin(world.connection, log.id, timedelta(hours=1), bytes(16))
    (due,) = await anchors.due(world.connection, 1)
    timestamp = dating.begun(due)
    (question,) = dating.questions(due, timestamp, declared)
    async with console.session.post(f"{calendar.url}/digest", data=question.message) as response:
        timestamp = dating.absorb(timestamp, question, ots_paths.parse(await response.read(), len(question.message)))
    later = {"complete": False, "next_in": timedelta(0)}
    assert await anchors.keep(world.connection, due, ots=timestamp.encode(), height=None, **later)
    ran = await kapsel(*asked)
    assert ran.code == 3
    assert "promised" in ran.err

    height = calendar.mine(world.clock // 1000)
    (due,) = await anchors.due(world.connection, 1)
    (question,) = dating.questions(due, timestamp, declared)
    async with console.session.get(f"{calendar.url}/timestamp/{question.message.hex()}") as response:
        timestamp = dating.absorb(timestamp, question, ots_paths.parse(await response.read(), len(question.message)))
    assert await anchors.keep(world.connection, due, ots=timestamp.encode(), height=height, **later)
    ran = await kapsel(*asked, "-f", "proof.json")
    assert ran.code == 0, ran.err

    file = kapsel.directory / "proof.json"
    keys = parse_key_set((await console.raw("/api/v1/attestation/keys"))[0])
    means = Means(block_headers=(calendar.chain.header(height),), min_difficulty=0, require=frozenset({"anchored"}))
    assert verify_proof(proof_file.parse(file.read_bytes()), keys, means=means).assurance == "anchored"
    # The two files of the stock client, as docs/anchors.md takes them out of it.
    content = json.loads(file.read_bytes())
    assert (
        ots.of_file(proof_file.parse(file.read_bytes()).ots, content["checkpoint"].encode()).blocks()[0].height
        == height
    )
