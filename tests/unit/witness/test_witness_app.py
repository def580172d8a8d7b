"""What the HTTP side of a witness does beside judging."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry
from witnessing import SmallLog

from kapsel_witness import state
from kapsel_witness.app import Witness
from kapsel_witness.key import open_key
from kapsel_witness.metrics import Metrics


class Clock:
    """The seconds of a witness, set by the test."""

    def __init__(self) -> None:
        self.seconds = 1_700_000_000

    def __call__(self) -> int:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def client(tmp_path: Path, log: SmallLog, clock: Clock) -> AsyncIterator[TestClient]:
    key = open_key(tmp_path, "witness.example/w1")
    found = state.load(tmp_path, key.public)
    logs = {log.origin: [log.key]}
    witness = Witness(key, found, logs, Metrics(CollectorRegistry()), tmp_path / "evidence", clock)
    async with TestClient(TestServer(witness.app())) as made:
        yield made


async def test_the_same_head_again_in_the_same_second_is_answered_without_a_write(
    client: TestClient, log: SmallLog, clock: Clock, tmp_path: Path
) -> None:
    async def ask(old: int, new: int) -> tuple[str, int]:
        async with client.post("/add-checkpoint", data=log.request(old, new).encode()) as response:
            assert response.status == 200
            # Each write is another file that takes the place of the last one, so the two never share a number.
            return await response.text(), (tmp_path / state.FILE).stat().st_ino

    await ask(0, 3)
    first, written = await ask(3, 5)
    for _ in range(5):
        assert await ask(5, 5) == (first, written)
    clock.seconds -= 100
    assert await ask(5, 5) == (first, written)
    clock.seconds += 101
    later, rewritten = await ask(5, 5)
    assert later != first
    assert rewritten != written
    assert (await ask(5, 9))[1] != rewritten
