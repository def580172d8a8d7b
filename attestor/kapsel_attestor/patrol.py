"""Reads the log back beside all other work, for as long as it is led: a change that nobody reports is found.

The leader runs it. First all tiles are folded anew, as quickly as that goes; then leaves are held against their hashes
and heads against their signatures and the tree, once with a fifth of one processor, and from then on ever again at a
pace that nobody notices. What is read before each signature (publisher.inspect) does not wait for any of this.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from kapsel_attestor.errors import MismatchError
from kapsel_store import tlog
from kapsel_store.database import Connection, Pool
from kapsel_store.errors import StaleTreeError
from kapsel_store.tlog import LogState
from kapsel_tlog import check
from kapsel_tlog.errors import DamagedTreeError

LEAVES: Final = 1024  # in one query
HEADS: Final = 32
REST: Final = 4.0  # of the first pass: how many times longer it rests than it works
PACE: Final = 10.0  # seconds between two queries of every later pass: ten million leaves take a day


async def patrol(pool: Pool, log: LogState, *, refold: bool, folded: Callable[[], None], pace: float = PACE) -> None:
    """Read a log back until cancelled; `folded` is called when all tiles were found to fit.

    Raises MismatchError, which says how it was found, if the log must never be signed again.
    """
    try:
        if refold:
            async with pool.acquire(timeout=5) as connection:
                await check.refold(connection, log.id, log.tree_size)
            folded()
        await _leaves(pool, log, 0.0)
        await _heads(pool, log, 0.0)
        while True:
            await asyncio.sleep(pace)
            await _leaves(pool, log, pace)
            await _heads(pool, log, pace)
    except DamagedTreeError as error:
        raise MismatchError(f"{error}; found by reading the whole log back") from error


async def _leaves(pool: Pool, log: LogState, pace: float) -> None:
    async with pool.acquire(timeout=5) as connection:
        size = (await _now(connection, log)).tree_size
    for first in range(0, size, LEAVES):
        begun = time.monotonic()
        async with pool.acquire(timeout=5) as connection:
            await check.rehash(connection, log.id, first, min(first + LEAVES, size))
        await _rest(begun, pace)


async def _heads(pool: Pool, log: LogState, pace: float) -> None:
    after = -1
    while True:
        begun = time.monotonic()
        async with pool.acquire(timeout=5) as connection:
            heads = await tlog.all_heads(connection, log.id, after, HEADS)
            now = await _now(connection, log)  # after the heads: the log has what they cover
            for head in heads:
                await check.require_head(connection, now, head)
        if len(heads) < HEADS:
            return
        after = heads[-1].timestamp_ms
        await _rest(begun, pace)


async def _now(connection: Connection, log: LogState) -> LogState:
    found = await tlog.state(connection, log.origin)
    if found is None:
        raise StaleTreeError(log.origin, log.tree_size, -1)
    return found


async def _rest(begun: float, pace: float) -> None:
    await asyncio.sleep(max(pace, REST * (time.monotonic() - begun)))
