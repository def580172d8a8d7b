"""Time and chance of a run: import this before anything else, for modules keep the functions that they found.

Until a run begins everything passes through to the real clock and the system's entropy. In a run the monotonic clock
is moved by the loop alone, the wall clock of each life differs from it by the life's own error, and every random byte
comes from the seed.
"""

import contextvars
import datetime as dt
import os
import random
import sys
import time
from typing import Any, Final

EPOCH: Final = dt.datetime(2031, 3, 1, tzinfo=dt.UTC)
_EPOCH_NS: Final = int(EPOCH.timestamp()) * 1_000_000_000
_BEGIN: Final = 1000.0  # what the monotonic clock says when a run begins

real_monotonic = time.monotonic
_real_perf_counter = time.perf_counter
_real_thread_time = time.thread_time
_real_time = time.time
_real_time_ns = time.time_ns
_real_urandom = os.urandom
_RealRandom = random.Random
_RealDatetime = dt.datetime


class Clock:
    """Virtual time: how long a run has lasted, and what the database's clock makes of it."""

    def __init__(self, chance: random.Random) -> None:
        self.elapsed = 0.0
        self.database_error = 0.0  # seconds that the database's clock is ahead
        self.chance = chance

    def wall_ns(self) -> int:
        life = LIFE.get(None)
        return _EPOCH_NS + int((self.elapsed + (0.0 if life is None else life.clock_error)) * 1e9)

    def database_microseconds(self) -> int:
        return _EPOCH_NS // 1000 + int((self.elapsed + self.database_error) * 1e6)


LIFE: contextvars.ContextVar[Any] = contextvars.ContextVar("life")  # of the process whose code runs
_clock: Clock | None = None


def begin(clock: Clock) -> None:
    """Let a run begin: from now on all time and chance are its own."""
    global _clock  # noqa: PLW0603 - time is one
    _clock = clock
    for name, module in list(sys.modules.items()):
        if name.startswith("kapsel_") and getattr(module, "datetime", None) is _RealDatetime:
            module.datetime = _VirtualDatetime  # type: ignore[attr-defined]


def _monotonic() -> float:
    return real_monotonic() if _clock is None else _BEGIN + _clock.elapsed


def _perf_counter() -> float:
    return _real_perf_counter() if _clock is None else _BEGIN + _clock.elapsed


def _thread_time() -> float:
    return _real_thread_time() if _clock is None else 0.0  # what is computed takes no time


def _time() -> float:
    return _real_time() if _clock is None else _clock.wall_ns() / 1e9


def _time_ns() -> int:
    return _real_time_ns() if _clock is None else _clock.wall_ns()


def _urandom(count: int) -> bytes:
    return _real_urandom(count) if _clock is None else _clock.chance.randbytes(count)


class _Random(_RealRandom):
    """Seeded by the run where whoever makes one leaves that to the system."""

    def __init__(self, *seed: Any) -> None:
        if not seed and _clock is not None:
            seed = (_clock.chance.getrandbits(64),)
        super().__init__(*seed)


class _Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _RealDatetime)


class _VirtualDatetime(_RealDatetime, metaclass=_Meta):
    """The class that modules under test know as datetime: only `now` differs, and what it makes is a plain one."""

    @classmethod
    def now(cls, tz: dt.tzinfo | None = None) -> Any:
        if _clock is None:
            return _RealDatetime.now(tz)
        microseconds = _clock.wall_ns() // 1000
        return _RealDatetime(1970, 1, 1, tzinfo=dt.UTC).astimezone(tz) + dt.timedelta(microseconds=microseconds)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return _RealDatetime(*args, **kwargs)


time.monotonic, time.perf_counter, time.time, time.time_ns = _monotonic, _perf_counter, _time, _time_ns
time.thread_time = _thread_time
os.urandom = _urandom
random.Random = _Random  # type: ignore[misc]
