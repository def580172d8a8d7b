"""Looks names up for all connections of a deliverer, so that a name that hangs keeps no other from its address.

getaddrinfo keeps a thread busy until it returns, which may be a minute after everybody has given up on it. So a name
has one look-up at a time, whoever waits for it; `Threads` decides which names may have one; and what was found is kept,
so that a name that has answered keeps nobody waiting when it no longer does. Which of its addresses may be called is
decided by `addresses`, anew for each connection.
"""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Literal, NamedTuple, get_args

from aiohttp.abc import AbstractResolver, ResolveResult

from kapsel_deliverer.metrics import DelivererMetrics

THREADS: Final = 256  # look-ups of names without addresses at a time, and half as many others; each has about 30 KiB
QUICK: Final = 1.0  # seconds of a look-up from which on its name is not quick, and what was found before is used
PATIENCE: Final = 4.0  # seconds that a connection waits for a name that was never found: most of what it has in all
FRESH: Final = 30.0  # seconds that addresses are used before they are looked up again
STALE: Final = 3600.0  # seconds that they are used if they cannot be, and that a name's manners are remembered

_GONE: Final = (socket.EAI_NONAME, socket.EAI_NODATA)  # there is no such name; all else may pass

logger = logging.getLogger(__name__)


class Address(NamedTuple):
    """One address of a name."""

    host: str
    family: int
    proto: int


Key = tuple[str, socket.AddressFamily]
LookUp = Callable[[str, socket.AddressFamily], Sequence[Address]]  # blocks; raises OSError, or UnicodeError
Standing = Literal["quick", "unknown", "slow"]  # by how long a name's last look-up took; in this order they get threads


def system(host: str, family: socket.AddressFamily) -> list[Address]:
    """Return what getaddrinfo says: hosts files, search domains and whatever else the system goes by."""
    found = socket.getaddrinfo(host, None, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    return [Address(_host(address), kind, proto) for kind, _, proto, _, address in found]


def _host(address: tuple[Any, ...]) -> str:
    """Return the host of a socket address, with the zone of a link-local one so that the policy sees it."""
    host: str = address[0]
    return f"{host}%{address[3]}" if len(address) > 3 and address[3] and "%" not in host else host


@dataclass(frozen=True, slots=True, kw_only=True)
class Threads:
    """How many there are of one kind, and who has them: those that are given up on too, until they return.

    There are two kinds, for names that have no addresses and for those that have some, which are used meanwhile: so
    however many of those hang, none that has no address waits for them. A quarter of each is the most that names have
    that are known to be slow, and the last quarter is for those that are known to be quick.

    Nobody knows beforehand who begins to hang. But each name that does has a thread once that was not for slow ones:
    when its look-up returns, it is known for it. So those that are not slow wait for no longer than that takes.
    """

    total: int
    taken: int
    slow: int  # of those that are taken: by names that are slow, or hang now

    def may_have(self, standing: Standing) -> bool:
        """Whether a name may have one more."""
        if standing == "quick":
            return self.taken < self.total
        few = self.taken < self.total - self.total // 4
        return few and (standing == "unknown" or self.slow < self.total // 4)

    def less(self, standing: Standing) -> "Threads":
        """Return what is left when a name gets one."""
        return Threads(total=self.total, taken=self.taken + 1, slow=self.slow + (standing == "slow"))


@dataclass(slots=True)
class _Known:
    """What is known of a name; times are monotonic."""

    addresses: tuple[Address, ...] = ()  # the last that were found
    found_at: float = float("-inf")
    took: float = 0.0  # the last look-up, whatever came of it
    ended_at: float = float("-inf")

    def learn(self, answer: Sequence[Address] | OSError, took: float, now: float) -> None:
        self.took, self.ended_at = took, now
        if not isinstance(answer, OSError):
            self.addresses, self.found_at = tuple(answer), now
        elif answer.errno in _GONE:
            self.addresses = ()

    def take(self) -> tuple[Address, ...]:
        """Return the addresses, each time with another one first, so that all of them get connections."""
        self.addresses = self.addresses[1:] + self.addresses[:1]
        return self.addresses


def _literal(host: str, family: socket.AddressFamily) -> _Known | None:
    """Return what needs no look-up, and so no thread: a proxy is often given by its address."""
    try:
        kind = socket.AF_INET if ip_address(host).version == 4 else socket.AF_INET6
    except ValueError:
        return None
    return _Known(addresses=(Address(host, kind, socket.IPPROTO_TCP),)) if family in (socket.AF_UNSPEC, kind) else None


@dataclass(slots=True, eq=False)
class _Asked:
    """One look-up, from when it is asked for until its thread returns."""

    key: Key
    renews: bool  # whether there are addresses that do until it returns
    standing: Standing
    asked_at: float
    failure: asyncio.Future[OSError | None]  # None if addresses were found
    started_at: float = float("inf")
    wanted: int = 0  # how many wait for it


class SystemResolver(AbstractResolver):
    """The system's resolver, on threads that nobody waits for when the process ends."""

    def __init__(
        self,
        metrics: DelivererMetrics,
        look_up: LookUp = system,
        *,
        clock: Callable[[], float] = time.monotonic,
        threads: int = THREADS,
    ) -> None:
        self._metrics = metrics
        self._look_up = look_up
        self._clock = clock
        self._threads = threads
        self._loop = asyncio.get_running_loop()
        self._known: dict[Key, _Known] = {}  # whose last look-up ended longest ago comes first
        # For a thread, in one line for each sort: nobody looks through those of a sort that gets none now.
        self._waiting: dict[tuple[bool, Standing], dict[Key, _Asked]] = {
            (renews, standing): {} for renews in (False, True) for standing in get_args(Standing)
        }
        self._running: dict[Key, _Asked] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of a name, as they are or were lately; raise OSError if there are none in time."""
        key = (host, family)
        known = _literal(host, family) or self._usable(key, FRESH) or await self._renewed(key)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(hostname=host, host=one.host, port=port, family=one.family, proto=one.proto, flags=numeric)
            for one in known.take()
        ]

    async def close(self) -> None:
        """Leave the threads to themselves."""

    def _usable(self, key: Key, age: float) -> _Known | None:
        """Return a name's addresses, if they were found so lately."""
        known = self._known.get(key)
        return known if known is not None and known.addresses and self._clock() - known.found_at < age else None

    async def _renewed(self, key: Key) -> _Known:
        """Look a name up; what was found before must do if that takes long, or fails and the name is not gone."""
        waiting = (line[key] for line in self._waiting.values() if key in line)
        asked = self._running.get(key) or next(waiting, None) or self._ask(key)
        known = self._usable(key, STALE)
        patience = PATIENCE if known is None else max(0.0, asked.asked_at + QUICK - self._clock())
        asked.wanted += 1
        try:
            await asyncio.wait([asked.failure], timeout=patience)
        finally:
            asked.wanted -= 1
            self._forget(asked)
        known = self._usable(key, STALE)
        if known is None:
            failure = asked.failure.result() if asked.failure.done() else None
            raise socket.gaierror(*(failure.args if failure else (socket.EAI_AGAIN, "no answer in time"))) from failure
        if self._clock() - known.found_at >= FRESH:
            self._metrics.stale_answers.inc()
        return known

    def _ask(self, key: Key) -> _Asked:
        renews, standing = self._usable(key, STALE) is not None, self._standing(key)
        asked = _Asked(key, renews, standing, self._clock(), self._loop.create_future())
        self._waiting[renews, standing][key] = asked
        self._start()
        return asked

    def _forget(self, asked: _Asked) -> None:
        """Look nothing up that nobody waits for any more, unless it renews what is in use."""
        line = self._waiting[asked.renews, asked.standing]
        if not asked.wanted and not asked.renews and line.get(asked.key) is asked:  # and not one that came after it
            del line[asked.key]
            self._show()

    def _start(self) -> None:
        """Begin all look-ups that may have a thread, of each sort those first that were asked for first."""
        for (renews, standing), line in self._waiting.items():
            if not line:
                continue
            threads = self._shared(renews)
            while line and threads.may_have(standing):
                threads = threads.less(standing)
                self._begin(line.pop(next(iter(line))))
        self._show()

    def _shared(self, renews: bool) -> Threads:
        taken = [one for one in self._running.values() if one.renews == renews]
        hang = self._clock() - QUICK
        slow = sum(one.standing == "slow" or one.started_at < hang for one in taken)
        return Threads(total=self._threads // 2 if renews else self._threads, taken=len(taken), slow=slow)

    def _standing(self, key: Key) -> Standing:
        known = self._known.get(key)
        if known is None:
            return "unknown"
        return "quick" if known.took <= QUICK else "slow"

    def _begin(self, asked: _Asked) -> None:
        self._running[asked.key], asked.started_at = asked, self._clock()
        try:
            threading.Thread(target=self._run, args=(asked,), name="dns", daemon=True).start()
        except RuntimeError as error:  # the system lets us have no more
            logger.error("a name cannot be looked up: %s", error)
            # It says nothing of the name, so nothing is learnt of it.
            del self._running[asked.key]
            asked.failure.set_result(OSError(socket.EAI_AGAIN, str(error)))

    def _run(self, asked: _Asked) -> None:
        """Look up in a thread; whatever happens, the loop hears of it."""
        answer: Sequence[Address] | OSError = OSError(socket.EAI_FAIL, "the look-up broke off")
        try:
            answer = self._look_up(*asked.key)
        except OSError as error:
            answer = error
        except UnicodeError as error:  # no name can be like that
            answer = socket.gaierror(socket.EAI_NONAME, str(error))
        finally:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(self._ended, asked, answer)

    def _ended(self, asked: _Asked, answer: Sequence[Address] | OSError) -> None:
        failure = answer if isinstance(answer, OSError) else None
        now = self._clock()
        took = now - asked.started_at
        self._metrics.lookup_seconds.labels("found" if failure is None else "failed").observe(took)
        del self._running[asked.key]
        known = self._known.pop(asked.key, None) or _Known()
        known.learn(answer, took, now)
        self._known[asked.key] = known  # the newest last
        while now - self._known[oldest := next(iter(self._known))].ended_at >= STALE:
            del self._known[oldest]
        asked.failure.set_result(failure)
        self._start()

    def _show(self) -> None:
        self._metrics.lookups.labels("running").set(len(self._running))
        self._metrics.lookups.labels("waiting").set(sum(map(len, self._waiting.values())))
