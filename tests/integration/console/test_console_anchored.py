"""The proof of an attempt under a head that a block dates, from the first question until there is one."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

from kapsel_store import anchors
from kapsel_store.rows import Anchoring
from kapsel_verifier import ots, ots_paths
from kapsel_verifier import proof as proof_file
from kapsel_verifier.keys import parse_key_set
from kapsel_verifier.merkle import verify_consistency
from kapsel_verifier.note import Checkpoint, Note
from kapsel_verifier.ots_paths import Step
from kapsel_verifier.verify import verify_proof

PATH = "/api/v1/attestation"
STEPS = (Step(ots_paths.APPEND, b"a calendar's own"), Step(ots_paths.SHA256))
PROMISE = ots_paths.Path(STEPS, ots_paths.pending("https://calendar.example/"))
BLOCK = ots_paths.Path(STEPS, ots_paths.bitcoin(930_000))


async def anchor(world, height: int | None, *paths: ots_paths.Path) -> None:
    """Keep what calendars have said of the head that is due, as the attestor does."""
    (due,) = await anchors.due(world.connection, 1)
    file = ots.Timestamp(hashlib.sha256(due.checkpoint.encode()).digest(), paths).encode()
    assert await anchors.keep(
        world.connection, due, ots=file, height=height, complete=height is not None, next_in=timedelta(0)
    )


async def test_where_no_head_is_ever_anchored_that_is_said(console, world) -> None:
    await console.source._refresh()
    (attempt,) = await world.delivered(1)
    status, code, detail = await console.problem(f"{PATH}/blockchain-proof/{attempt.id}")
    assert (status, code) == (404, "not_anchored")
    assert "spec.anchoring" in detail
    assert (await console.problem(f"{PATH}/blockchain-proof/{uuid4()}"))[:2] == (404, "unknown_attempt")
    assert (await console.problem(f"{PATH}/blockchain-proof/1"))[0] == 400


async def test_a_block_is_awaited_and_then_dates_the_proof(console, world) -> None:
    log = replace(world.desired.log, anchoring=Anchoring(calendars=("https://calendar.example/",), minimum=1))
    await world.apply(log=log)
    await console.source._refresh()
    await world.put()
    (attempt,) = await world.attempt()
    path = f"{PATH}/blockchain-proof/{attempt.id}"

    async def waits_for() -> tuple[int, str, str]:
        status, content, response = await console.ask(path)
        return status, content["status"], response.headers["Retry-After"]

    assert await waits_for() == (202, "not_integrated", "1")
    await world.sequence()
    first = await world.publish()
    assert await waits_for() == (202, "not_anchored", "60")
    await world.delivered(2)
    assert await anchors.begin(world.connection, first.log_id, timedelta(hours=1), bytes(16))
    assert await waits_for() == (202, "not_anchored", "60")
    await anchor(world, None, PROMISE)
    assert await waits_for() == (202, "not_confirmed", "600")
    await anchor(world, 930_000, PROMISE, BLOCK)

    raw, headers = await console.raw(path)
    assert headers["Cache-Control"] == "private, no-store"
    found = proof_file.parse(raw)
    verify_proof(found, parse_key_set((await console.raw(f"{PATH}/keys"))[0]))
    assert (found.assurance, found.leaf_index) == ("anchored", 0)
    (block,) = ots.of_file(found.ots or b"", found.checkpoint.encode()).blocks()
    assert block.height == 930_000
    # The two files of stock clients, to the byte.
    assert (await console.raw(f"{path}.ots"))[0] == found.ots
    assert (await console.raw(f"{path}.checkpoint"))[0] == found.checkpoint.encode()
    # The head that was anchored is a later one than that of the proof; one is the beginning of the other.
    dated = Checkpoint.parse(Note.parse(found.checkpoint.encode()).text)
    assert (first.tree_size, dated.tree_size) == (1, 3)
    sizes = f"old_size={first.tree_size}&new_size={dated.tree_size}"
    nodes = (await console.get(f"{PATH}/consistency-proof?{sizes}"))["proof"]
    verify_consistency(1, 3, [bytes.fromhex(node) for node in nodes], first.root, dated.root_hash)


async def test_an_erased_attempt_has_no_dated_proof_either(console, world) -> None:
    (event,) = await world.put()
    (attempt,) = await world.attempt()
    await world.sequence()
    await world.publish()
    await console.ask(f"/api/v1/events/{event.id}/erase", method="POST")
    status, content, _ = await console.ask(f"{PATH}/blockchain-proof/{attempt.id}")
    assert (status, content["erased"], content["leaf_index"]) == (410, True, 0)
