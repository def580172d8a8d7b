"""What is open to everybody although the console wants a token: public keys that webhooks are signed with, always, and
the public side of the log, as far as a setting says.

An outsider can hold a log to its word only if they can read it. How much of it they may read is the operator's to say,
since it grows from how many deliveries there are (heads) to where each of them went (leaves). What is open is open to
web pages too (CORS), since nothing that a browser holds is needed to read it; and it is bounded, since nobody is known.
"""

import time
from collections.abc import Callable
from enum import IntEnum
from typing import Final

from aiohttp import web

from kapsel_console.errors import ProblemError

EXPOSED: Final = "ETag, Retry-After, Kapsel-Erased-Leaves"
PREFLIGHT_SECONDS: Final = 86_400
BURST: Final = 2  # seconds of the rate that may come at once


class Openness(IntEnum):
    """How much of the log is open to everybody; each level has what those before it have."""

    NONE = 0  # and what is open without being of the log
    HEADS = 1  # checkpoints, hashes, keys, consistency: how much is delivered, and when
    PROOFS = 2  # the proof of an attempt, for whoever knows its id
    LEAVES = 3  # everything that the log says, for auditors of the whole


class Visitors:
    """Those who bring no token: what they may read, and how often all of them together."""

    def __init__(self, level: Openness, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.level = level
        self._rate = rate
        self._clock = clock
        self._tokens = rate * BURST
        self._filled_at = clock()

    def may_read(self, needed: Openness | None) -> bool:
        """Whether a route that is open from a level on is open here; None: it never is."""
        return needed is not None and needed <= self.level

    def admit(self) -> None:
        """Count a request; raise ProblemError if there are too many."""
        now = self._clock()
        self._tokens = min(self._rate * BURST, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            raise ProblemError(
                "too_many_requests",
                f"without a token all callers together have {self._rate:g} requests a second; try again in a moment",
                retry_after=1,
            )
        self._tokens -= 1


async def preflight(_: web.Request) -> web.Response:
    """Answer a browser that asks whether a page may read what is open."""
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, HEAD",
            "Access-Control-Allow-Headers": "If-None-Match",
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        },
    )


def open_to_pages(response: web.StreamResponse) -> None:
    """Let pages of every origin read an answer."""
    response.headers["Access-Control-Allow-Origin"] = "*"
    response.headers["Access-Control-Expose-Headers"] = EXPOSED
