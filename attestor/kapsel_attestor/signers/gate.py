"""The gate to a signer: a call has a deadline and a thread of its own, and one that failed is not repeated at once.

Whoever holds keys may hang, throttle or be gone. A call that has not come back keeps its thread, which nobody can end;
so there is at most one, and until it is back the signer counts as away.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from random import Random
from threading import Thread
from typing import Final, TypeVar

from kapsel_attestor.errors import LateError, SignerAwayError
from kapsel_runtime.backoff import delays

DEADLINE: Final = 15.0  # seconds for both signatures of a head
FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 60.0

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Gate:
    """The way to one signer, closed for a while after each failure."""

    def __init__(self, deadline: float = DEADLINE, first_wait: float = FIRST_WAIT) -> None:
        """Give a call `deadline` seconds, and another one none for `first_wait`, then ever longer, after a failure."""
        self._deadline = deadline
        self._turn = asyncio.Lock()  # a head and an announcement may want the same signer at once
        self._busy = False
        self._error: LateError | None = None
        self._opens = 0.0
        self._first_wait = first_wait
        self._waits = self._delays()

    def check(self) -> None:
        """Raise what the last call failed with, if it is too early for another."""
        if self._error is not None and time.monotonic() < self._opens:
            raise type(self._error)(str(self._error))

    async def call(self, name: str, function: Callable[[], T]) -> T:
        """Return what a blocking function returns; raise LateError if it fails, is too slow, or failed just now."""
        async with self._turn:
            self.check()
            try:
                result = await self._in_thread(name, function)
            except LateError as error:
                self._fail(error)
                raise
            except Exception as error:
                # No answer, however odd, may end the leader, who also writes leaves. What the error says may quote a
                # credential, so only its kind is told.
                logger.debug("%s fails in a way that nobody foresaw", name, exc_info=error)
                odd = SignerAwayError(
                    f"{name} fails with {type(error).__name__}: its answer is none that it should give"
                )
                self._fail(odd)
                raise odd from None
            self._error = None
            self._waits = self._delays()
            return result

    def _fail(self, error: LateError) -> None:
        self._error = error
        self._opens = time.monotonic() + next(self._waits)

    def _delays(self) -> Iterator[float]:
        return delays(self._first_wait, LONGEST_WAIT, Random())  # noqa: S311 - jitter, not a secret

    async def _in_thread(self, name: str, function: Callable[[], T]) -> T:
        if self._busy:
            raise SignerAwayError(f"{name} has not come back from the last request")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        self._busy = True

        def finish(result: T | None, error: Exception | None) -> None:
            self._busy = False
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]  # None only if T may be

        def work() -> None:
            try:
                outcome: tuple[T | None, Exception | None] = (function(), None)
            except Exception as error:  # noqa: BLE001 - it is raised again where it is awaited
                outcome = (None, error)
            with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
                loop.call_soon_threadsafe(finish, *outcome)

        # A daemon: the process must be able to end while a module or a server hangs.
        Thread(target=work, name=f"signer {name}", daemon=True).start()
        try:
            async with asyncio.timeout(self._deadline):
                return await done
        except TimeoutError:
            raise SignerAwayError(f"{name} did not answer within {self._deadline:g} s") from None
