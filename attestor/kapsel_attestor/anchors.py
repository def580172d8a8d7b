"""Has heads dated from outside: while a log is led, one per interval is given to calendars, and followed into a block.

It runs beside the log (`beside`): nothing waits for it, whatever calendars do. What to ask and what follows is decided
in `dating`, how to ask in `calendars`. Everything that must survive stands in the database before anybody is asked, so
whoever leads next goes on where this one was killed. No connection is held while calendars are asked.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import aiohttp

from kapsel_attestor import calendars, dating
from kapsel_attestor.beside import Led
from kapsel_attestor.calendars import Failed, NotYet, Told
from kapsel_attestor.dating import Question
from kapsel_attestor.metrics import Metrics
from kapsel_attestor.status_report import Condition
from kapsel_runtime.backoff import delays
from kapsel_store import anchors
from kapsel_store.anchors import DueAnchor
from kapsel_store.database import Connection
from kapsel_store.rows import Anchoring
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.ots import Timestamp

LOOK: Final = 1.0  # seconds between looks at what is due
BATCH: Final = 16  # anchors that are asked about in one round
NONCE: Final = 16  # bytes

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Work:
    """One anchor in one round; answers are added to its file as they come."""

    anchor: DueAnchor
    timestamp: Timestamp
    questions: list[Question]


@dataclass(slots=True)
class Breaker:
    """What keeps a calendar that has failed from being asked each time."""

    reason: str
    waits: Iterator[float]
    until: float  # by the monotonic clock


class Anchors:
    """The anchors of the log that is led."""

    name = "anchors"

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._open: dict[str, Breaker] = {}  # calendars that failed last time
        self._said: Condition | None = None

    async def run(self, led: Led) -> None:
        """Work until cancelled."""
        self._said = None
        async with calendars.session() as client:
            while True:
                declared = led.row().anchoring
                if declared is not None:
                    await self._round(led, declared, client)
                elif self._said is not None:
                    words = "nobody is named any more who dates heads"
                    self._say(led, Condition(type="Anchored", status="Unknown", reason="NotDeclared", message=words))
                await asyncio.sleep(LOOK)

    async def _round(self, led: Led, declared: Anchoring, client: aiohttp.ClientSession) -> None:
        async with led.pool.acquire(timeout=5) as connection:
            await anchors.begin(connection, led.log.id, declared.interval, os.urandom(NONCE))
            # A crash here leaves an anchor that nobody was asked about yet: it is due at once.
            due = await anchors.due(connection, BATCH)
        works, damaged = _readable(due, declared)
        await asyncio.gather(*(self._ask_calendar(client, url, works, declared) for url in declared.calendars))
        # A crash here loses answers; calendars are asked the same again, and answer again.
        async with led.pool.acquire(timeout=5) as connection:
            for work in works:
                await self._keep(connection, work, declared)
            for anchor in damaged:
                later = dating.unit(declared) * 720
                await anchors.keep(
                    connection, anchor, ots=anchor.ots, height=anchor.height, complete=False, next_in=later
                )
            newest = await anchors.newest(connection, led.log.id)
            confirmed = await anchors.newest_confirmed(connection, led.log.id)
            pending = await anchors.pending(connection, led.log.id)
        failures = [f"{url} {self._open[url].reason}" for url in declared.calendars if url in self._open]
        self._say(led, dating.condition(declared, newest, confirmed, pending, failures))

    async def _ask_calendar(
        self, client: aiohttp.ClientSession, url: str, works: list[Work], declared: Anchoring
    ) -> None:
        """Ask one calendar all that there is to ask it, until it fails."""
        breaker = self._open.get(url)
        if breaker is not None and time.monotonic() < breaker.until:
            return
        for work in works:
            for question in work.questions:
                if question.calendar != url:
                    continue
                answer = await self._ask(client, work, question, declared)
                if isinstance(answer, Failed):
                    self._failed(url, answer.reason, declared)
                    return
                self._open.pop(url, None)

    async def _ask(
        self, client: aiohttp.ClientSession, work: Work, question: Question, declared: Anchoring
    ) -> Told | NotYet | Failed:
        ask = calendars.ask if question.promised else calendars.submit
        answer = await ask(client, question.calendar, question.message, declared.timeout)
        if not isinstance(answer, Told):
            return answer
        wrong = dating.unfit(question, answer.paths, declared.calendars)
        if wrong is not None:
            return Failed(wrong)
        try:
            work.timestamp = dating.absorb(work.timestamp, question, answer.paths)
        except VerificationError as error:
            return Failed(f"answers with more than fits into a timestamp: {error}")
        return answer

    def _failed(self, url: str, reason: str, declared: Anchoring) -> None:
        self._metrics.calendar_failures.labels(calendar=url).inc()
        breaker = self._open.get(url)
        if breaker is None:
            unit = dating.unit(declared).total_seconds()
            waits = delays(unit, unit * 30, Random())  # noqa: S311 - jitter, not a secret
            breaker = self._open[url] = Breaker(reason, waits, 0.0)
            logger.warning("the calendar %s %s", url, reason)
        breaker.reason = reason
        breaker.until = time.monotonic() + next(breaker.waits)

    async def _keep(self, connection: Connection, work: Work, declared: Anchoring) -> None:
        anchor = work.anchor
        known = dating.progress(work.timestamp, declared.calendars)
        kept = await anchors.keep(
            connection,
            anchor,
            ots=work.timestamp.encode() if work.timestamp.paths else None,
            height=known.height,
            complete=dating.is_complete(known, declared, anchor.age),
            next_in=dating.rest(known, declared, anchor.age, anchor.tries),
        )
        if kept and anchor.height is None and known.height is not None:
            self._metrics.anchors_confirmed.inc()
            logger.info("block %d dates the head of %d leaves, calendars say", known.height, anchor.tree_size)

    def _say(self, led: Led, condition: Condition) -> None:
        if condition != self._said:
            led.say(condition)
            self._said = condition


def _readable(due: list[DueAnchor], declared: Anchoring) -> tuple[list[Work], list[DueAnchor]]:
    """Return the work on anchors, and those whose stored file is damaged: they must not keep the others waiting."""
    works: list[Work] = []
    damaged: list[DueAnchor] = []
    for anchor in due:
        try:
            timestamp = dating.begun(anchor)
            works.append(Work(anchor, timestamp, dating.questions(anchor, timestamp, declared)))
        except VerificationError as error:
            logger.error("the stored timestamp of the head of %d leaves is damaged: %s", anchor.tree_size, error)
            damaged.append(anchor)
    return works, damaged
