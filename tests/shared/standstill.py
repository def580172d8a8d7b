"""How long one evaluation takes, and how long a loop stands still: for tests of work that leaves other work its time.

In CPU time of the thread, so that what else the machine does counts for nothing.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

from kapsel_expressions.event import Event, parse_body
from kapsel_expressions.expression import Expression, Failed, compile_source

MUCH_WORK: Final = "event.body.a.all(x, event.body.a.exists(y, y == -1) == false)"
BODY: Final = json.dumps({"a": list(range(300))}).encode()


def evaluation() -> float:
    """Return how many seconds of CPU this machine takes for MUCH_WORK on an event of this body, which is new to it."""
    compiled = compile_source(MUCH_WORK, "bool")
    assert isinstance(compiled, Expression)
    took = []
    for _ in range(5):
        event = Event(
            id="",
            type=None,
            endpoint="",
            namespace="",
            received_at=datetime.now(UTC),
            headers={},
            body=parse_body(BODY),
        )
        began = time.thread_time()
        assert not isinstance(compiled.evaluate(event), Failed)
        took.append(time.thread_time() - began)
    return min(took)


@asynccontextmanager
async def standstills() -> AsyncIterator[list[float]]:
    """Note how many seconds of CPU go by between two turns of whoever only wants to go on."""
    found: list[float] = []

    async def watch() -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            found.append(time.thread_time() - before)

    watching = asyncio.create_task(watch())
    try:
        yield found
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
