"""An attestor as its container starts it tells `kubectl` who has cosigned the newest head, and who has not."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from witnessing import WitnessProcess

from kapsel_store.rows import Witness, Witnessing
from kapsel_verifier.note import VerifierKey


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[WitnessProcess]:
    made = WitnessProcess(tmp_path / "witness")
    made.make("witness.example/w")
    yield made
    if made.popen is not None and made.popen.poll() is None:
        made.kill()


async def test_cosignatures_and_their_absence_are_told_as_a_condition_beside_the_others(
    world, kit, witness: WitnessProcess
) -> None:
    key = VerifierKey(world.row.origin, bytes(SigningKey(world.key.secret).verify_key))
    witness.start([key])
    declared = (Witness(name="one", vkey=witness.key.encode(), url=witness.url),)
    witnessing = Witnessing(witnesses=declared, quorum=1, timeout=timedelta(seconds=20))
    await world.configure(replace(world.row, witnessing=witnessing, idle_interval=timedelta(seconds=1)))
    child = await world.start_process()
    try:
        await world.record()
        there = await world.condition("Witnessed", "True")
        assert (there["reason"], there["message"]) == ("Quorum", "cosigned by one")
        witness.kill()

        async def away() -> bool:  # said otherwise at first, if it was killed within an answer
            told = await world.condition("Witnessed", "False")
            return told["reason"] == "NoQuorum" and "not by one: it cannot be reached" in told["message"]

        await kit.eventually(away)
        told = {one["type"] for one in (await world.status())["conditions"]}
        assert told >= {"LogConsistent", "CheckpointFresh", "Witnessed"}
    finally:
        child.terminate()
        await asyncio.wait_for(child.wait(), 240)
