"""What tests of a whole `kapsel up` share: a destination, a directory, and patience."""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from aiohttp import web

DEADLINE = 240.0


@pytest.fixture
async def destination() -> AsyncIterator[str]:
    async def take(_: web.Request) -> web.Response:
        return web.Response(text="thanks")

    application = web.Application()
    application.router.add_post("/", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


@pytest.fixture
def directory() -> Iterator[Path]:
    # Sockets of Postgres have short paths, and those of pytest are long.
    with tempfile.TemporaryDirectory(prefix="kapsel-") as made:
        yield Path(made)


@pytest.fixture
def eventually() -> Callable[..., Awaitable[object]]:
    return _eventually


async def _eventually(look: Callable[[], Awaitable[object]]) -> object:
    deadline = time.monotonic() + DEADLINE
    while not (found := await look()):
        assert time.monotonic() < deadline, f"{look} did not come true"
        await asyncio.sleep(0.2)
    return found
