"""The rate of an endpoint, which all receivers keep together: tokens are drawn from a bucket in the database.

`app` takes one token for each webhook that it would store. Tokens that are needed now are drawn for all requests that
wait, in one question at a time; where many come, some are drawn ahead and are good for a moment. So a busy endpoint
costs a few questions a second, an idle one none, and an endpoint without a limit never any.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Final
from uuid import UUID

from kapsel_store import database, limits
from kapsel_store.limits import Draw, Drawn
from kapsel_store.rows import RateLimit

SPAN: Final = timedelta(seconds=1)  # how long tokens that were drawn ahead are kept for this process
VALID: Final = 0.8  # of the span: by then this clock says that it is over
PAUSE: Final = 0.02  # seconds that a bucket without a token is left alone
TIMEOUT: Final = 5.0  # seconds for one question

logger = logging.getLogger(__name__)


class TokenBucket:
    """A bucket of this process alone: tokens flow in at the rate up to the burst. For what is rare and harmless."""

    __slots__ = ("_burst", "_filled_at", "_rate", "_tokens")

    def __init__(self, limit: RateLimit, now: float) -> None:
        self._rate = limit.requests_per_second
        self._burst = float(limit.burst)
        self._tokens = self._burst
        self._filled_at = now

    def take(self, now: float) -> float:
        """Take a token and return 0, or take none and return the seconds to wait."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0


class Tokens:
    """The tokens of one endpoint in this process; the clock is passed in, and must be one that never goes back."""

    __slots__ = (
        "_ask",
        "_asked_at",
        "_clock",
        "_empty_until",
        "_taken",
        "_tokens",
        "_until",
        "_waiting",
        "id",
        "limit",
    )

    def __init__(
        self, endpoint_id: UUID, limit: RateLimit, ask: "Callable[[Tokens], None]", clock: Callable[[], float]
    ) -> None:
        self.id = endpoint_id
        self.limit = limit
        self._ask = ask
        self._clock = clock
        self._tokens = 0
        self._until = 0.0
        self._empty_until = 0.0
        self._taken = 0
        self._asked_at = 0.0
        self._waiting: deque[asyncio.Future[float | None]] = deque()

    def wait(self) -> float:
        """Return how many seconds no token will be there for, as far as is known."""
        return max(0.0, self._empty_until - self._clock())

    async def take(self) -> float | None:
        """Take a token and return 0, or take none and return the seconds to wait; None if nobody can tell."""
        if seconds := self.wait():
            return seconds
        if self._tokens and self._clock() < self._until and not self._waiting:
            self._tokens -= 1
            self._taken += 1
            return 0.0
        waiting: asyncio.Future[float | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        self._ask(self)
        return await waiting

    def draw(self) -> Draw:
        """Return what to ask for: a token for each request that waits, and as many ahead as were taken of late."""
        now = self._clock()
        unused = self._tokens if now < self._until else 0
        busy = now - self._asked_at < SPAN.total_seconds()
        extra = min(self._taken + len(self._waiting), self.limit.burst // 2) if busy else 0
        self._tokens, self._taken, self._asked_at = 0, 0, now
        return Draw(limit=self.limit, need=len(self._waiting), extra=extra, unused=unused)

    def drawn(self, draw: Draw, drawn: Drawn) -> bool:
        """Answer those for whom was asked; return whether others have come meanwhile."""
        served = min(draw.need, drawn.tokens)
        self._answer(served, 0.0)
        self._taken += served
        self._tokens, self._until = drawn.tokens - served, self._asked_at + SPAN.total_seconds() * VALID
        if served < draw.need:
            self._empty_until = self._clock() + max(drawn.wait, PAUSE)
            self._answer(len(self._waiting), max(drawn.wait, PAUSE))
        return bool(self._waiting)

    def failed(self) -> None:
        """Tell those that wait that nobody can say whether they may."""
        self._answer(len(self._waiting), None)

    def _answer(self, count: int, seconds: float | None) -> None:
        for _ in range(count):
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(seconds)


class Limiter:
    """Draws tokens for the endpoints of this process, for all that ask in one question."""

    def __init__(self, pool: database.Pool, instance: str) -> None:
        self._pool = pool
        self._instance = instance
        self._asking: dict[UUID, Tokens] = {}
        self._asked = asyncio.Event()

    def ask(self, tokens: Tokens) -> None:
        """Have tokens drawn for an endpoint."""
        before = self._asking.get(tokens.id, tokens)
        if before is not tokens:
            before.failed()  # of an endpoint that was removed, and is there again
        self._asking[tokens.id] = tokens
        self._asked.set()

    async def run(self) -> None:
        """Draw whenever somebody asks."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            asking, self._asking = self._asking, {}
            draws = {one: tokens.draw() for one, tokens in asking.items()}
            try:
                async with asyncio.timeout(TIMEOUT), self._pool.acquire() as connection:
                    drawn = await limits.take(connection, self._instance, draws, SPAN)
            except Exception as error:  # the edge: a request must not hang because its token could not be drawn
                if not database.is_away(error):
                    logger.exception("tokens cannot be drawn")
                for tokens in asking.values():
                    tokens.failed()
                continue
            for one, tokens in asking.items():
                # What is missing was lost to other receivers, and is asked for again.
                if one not in drawn or tokens.drawn(draws[one], drawn[one]):
                    self.ask(tokens)
