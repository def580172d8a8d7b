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


async def test_promises_and_blocks_are_told_as_a_condition_beside_the_others(world, calendar: CalendarServer) -> None:
    declared = Anchoring(calendars=(calendar.url,), minimum=1, interval=timedelta(seconds=2))
    await world.configure(replace(world.row, anchoring=declared))
    child = await world.start_process()
    try:
        await world.record()
        promised = await world.condition("Anchored", "False")
        assert promised["reason"] == "Promised"
        while not calendar.digests:
            await asyncio.sleep(0.05)
        height = calendar.mine(int(time.time()))
        dated = await world.condition("Anchored", "True")
        assert (dated["reason"], f"block {height} " in dated["message"]) == ("Dated", True)
        told = {one["type"] for one in (await world.status())["conditions"]}
        assert told >= {"LogConsistent", "CheckpointFresh", "Anchored"}
    finally:
        child.terminate()
        await asyncio.wait_for(child.wait(), 60)
