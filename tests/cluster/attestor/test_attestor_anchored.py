"""An attestor as its container starts it tells `kubectl` what has become of its anchors."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from otscalendar import CalendarServer, Chain

from kapsel_store.rows import Anchoring


@pytest.fixture
async def calendar() -> AsyncIterator[CalendarServer]:
    server = CalendarServer(Chain())
    await server.start()
    yield server
    await server.stop()


async def test_promises_and_blocks_are_told_as_a_condition_beside_the_others(
    world, kit, calendar: CalendarServer
) -> None:
    declared = Anchoring(calendars=(calendar.url,), minimum=1, interval=timedelta(seconds=2))
    await world.configure(replace(world.row, anchoring=declared))
    child = await world.start_process()
    try:
        await world.record()

        async def promised() -> bool:
            return (await world.condition("Anchored", "False"))["reason"] == "Promised"

        await kit.eventually(promised)
        height = calendar.mine(int(time.time()))
        dated = await world.condition("Anchored", "True")
        assert (dated["reason"], f"block {height} " in dated["message"]) == ("Dated", True)
        told = {one["type"] for one in (await world.status())["conditions"]}
        assert told >= {"LogConsistent", "CheckpointFresh", "Anchored"}
    finally:
        child.terminate()
        await asyncio.wait_for(child.wait(), 240)
