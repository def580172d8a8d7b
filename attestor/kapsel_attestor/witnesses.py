"""The witnesses of the log that is led: asked for each head, all at once, before it is published.

The publisher calls `cosign` through the leader, in a task of its own: no leaf waits. All witnesses together have the
one deadline of the AttestationLog, whoever keeps failing is left out for a while, and nobody is asked more often than
its budget allows. Beside the log, `run` tells how it stands: the condition Witnessed and the age of each witness's last
word. How one is asked is in `witness_client`.

A crash at any moment loses nothing: a cosignature that was not published is asked for again under the next head.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from random import Random
from types import TracebackType
from typing import Final, Self

import aiohttp

from kapsel_attestor.beside import Led
from kapsel_attestor.errors import UncosignedError
from kapsel_attestor.metrics import Metrics
from kapsel_attestor.publisher import Prove
from kapsel_attestor.status_report import Condition
from kapsel_attestor.witness_client import Cosigned, Failed, Head, Witness
from kapsel_runtime.backoff import delays
from kapsel_store import rows
from kapsel_store.rows import LogRow
from kapsel_verifier import policy
from kapsel_verifier.cosignature import WitnessKey
from kapsel_verifier.policy import Policy, WitnessLine

LOOK: Final = 1.0  # seconds between looks at how old the cosignatures are
TRIPPED: Final = 3  # failures in a row after which a witness is left out
LEFT_OUT: Final = (5.0, 60.0)  # seconds: at first, and at most
BURST: Final = 10  # heads that a budget may be ahead of its even rate, such as after an outage
OVER_BUDGET: Final = "its budget of heads is used up"
_DAY: Final = 86_400.0
_MOST_PER_DAY: Final = 86_400  # heads: the most that are ever published

logger = logging.getLogger(__name__)


class Budget:
    """So many questions a day, evenly, with a few ahead; times are seconds of one clock."""

    def __init__(self, per_day: int, now: float) -> None:
        self._rate = per_day / _DAY
        self._left, self._then = float(BURST), now

    def take(self, now: float) -> bool:
        """Take one question, if there is one left."""
        self._left = min(self._left + (now - self._then) * self._rate, BURST)
        self._then = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Asked:
    """One witness with what came of asking it."""

    def __init__(self, declared: rows.Witness, per_day: int, now: float) -> None:
        self.name = declared.name
        self._witness = Witness(declared.url, WitnessKey.parse(declared.vkey))
        self.line = WitnessLine(declared.name, self._witness.key)
        self.said_at: int | None = None  # the date of its newest cosignature
        self._budget = Budget(per_day, now)
        self._failures = 0
        self._failed = ""
        self._waits: Iterator[float] = iter(())
        self._left_out_until = 0.0
        self._last: tuple[str, Cosigned] | None = None  # the newest cosignature, and over what

    def left_out(self, now: float) -> str | None:
        """Return how it failed if it is to be left alone for a while."""
        return self._failed if now < self._left_out_until else None

    def over_budget(self, text: str, now: float) -> Cosigned | str | None:
        """Return what stands in for an answer if it has been asked too often; None if it is to be asked."""
        if self._budget.take(now):
            return None
        if self._last is not None and self._last[0] == text:
            return self._last[1]
        return OVER_BUDGET

    async def ask(self, session: aiohttp.ClientSession, head: Head, prove: Prove) -> Cosigned | Failed:
        """Ask it, and remember what came of it."""
        answer: Cosigned | Failed = Failed(why="timeout", words="it does not answer in time")
        try:
            answer = await self._witness.ask(session, head, prove)
        finally:
            # Also when it was cut off at the deadline.
            self._note(answer, head)
        return answer

    def _note(self, answer: Cosigned | Failed, head: Head) -> None:
        if isinstance(answer, Cosigned):
            self._failures, self._failed, self._left_out_until = 0, "", 0.0
            self.said_at, self._last = answer.timestamp, (text_of(head.checkpoint), answer)
            return
        if answer.words != self._failed:
            logger.warning("the witness %s does not cosign: %s", self.name, answer.words)
        self._failed = answer.words
        self._failures += 1
        if self._failures == TRIPPED:
            self._waits = delays(*LEFT_OUT, Random())  # noqa: S311 - jitter, not a secret
        if self._failures >= TRIPPED:
            self._left_out_until = time.monotonic() + next(self._waits)


class Witnesses:
    """The witnesses of one attestor's log, over one HTTP session; a Cosigner and a SideTask."""

    name = "witnesses"

    def __init__(self, metrics: Metrics) -> None:
        """Tell `metrics` what comes of asking."""
        self._metrics = metrics
        self._session: aiohttp.ClientSession | None = None
        self._asked: dict[tuple[str, rows.Witness, int], Asked] = {}
        self._current: tuple[Asked, ...] = ()
        self._condition: Condition | None = None
        self._said: Condition | None = None

    async def __aenter__(self) -> Self:
        connector, cookies = aiohttp.TCPConnector(limit=64), aiohttp.DummyCookieJar()
        self._session = aiohttp.ClientSession(connector=connector, cookie_jar=cookies)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def cosign(self, row: LogRow, checkpoint: str, prove: Prove) -> Sequence[str]:
        """Return the cosignature lines that came in time.

        Raises UncosignedError if the log demands a quorum and there is none.
        """
        declared = row.witnessing
        if declared is None:
            self._current, self._condition = (), None
            return ()
        self._current = self._of(row.origin, declared)
        answers = await self._ask_all(declared, Head.of(checkpoint), prove)
        cosigned = {name: answer for name, answer in answers.items() if isinstance(answer, Cosigned)}
        met = self._quorum(declared).is_met_by(cosigned.keys())
        missing = {name: answer for name, answer in answers.items() if isinstance(answer, str)}
        told = condition(list(cosigned), missing, declared)
        if met or OVER_BUDGET not in missing.values():
            # A head that goes out between two that a budget allows says nothing of the witnesses.
            self._metrics.witnessed.labels(origin=row.origin).set(met)
            self._condition = told
        if declared.required and not met:
            raise UncosignedError(told.message)
        return [answer.line for answer in cosigned.values()]

    async def run(self, led: Led) -> None:
        """Tell how it stands until cancelled."""
        self._said = None
        try:
            while True:
                if led.row().witnessing is None:
                    self._forget()
                    if self._said is not None and self._said.reason != "NotDeclared":
                        words = "nobody is named any more who cosigns heads"
                        self._condition = Condition(
                            type="Witnessed", status="Unknown", reason="NotDeclared", message=words
                        )
                for one in self._current:
                    if one.said_at is not None:
                        age = max(time.time() - one.said_at, 0)
                        self._metrics.cosignature_age.labels(witness=one.name).set(age)
                if self._condition is not None and self._condition != self._said:
                    led.say(self._condition)
                    self._said = self._condition
                await asyncio.sleep(LOOK)
        finally:
            # Another attestor leads from here on, and its figures count.
            self._forget()

    def _forget(self) -> None:
        self._current, self._condition = (), None
        self._metrics.cosignature_age.clear()
        self._metrics.witnessed.clear()

    def _of(self, origin: str, declared: rows.Witnessing) -> tuple[Asked, ...]:
        per_day = declared.queries_per_day or _MOST_PER_DAY
        keys = [(origin, witness, per_day) for witness in declared.witnesses]
        now = time.monotonic()
        # Those that are not declared any more are forgotten; one that comes back tells its size by a 409.
        self._asked = {key: self._asked.get(key) or Asked(key[1], per_day, now) for key in keys}
        return tuple(self._asked.values())

    async def _ask_all(self, declared: rows.Witnessing, head: Head, prove: Prove) -> dict[str, Cosigned | str]:
        """Return each witness's cosignature, or why there is none, at the deadline at the latest."""
        session = self._session
        if session is None:
            raise RuntimeError("witnesses are asked within their context")
        answers = self._resting(declared, text_of(head.checkpoint))
        tasks = {
            asyncio.create_task(one.ask(session, head, prove)): one for one in self._current if one.name not in answers
        }
        try:
            if tasks:
                await asyncio.wait(tasks, timeout=declared.timeout.total_seconds())
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task, one in tasks.items():
            answer = Failed(why="timeout", words="it does not answer in time") if task.cancelled() else task.result()
            result = "cosigned" if isinstance(answer, Cosigned) else answer.why
            self._metrics.cosignatures.labels(witness=one.name, result=result).inc()
            answers[one.name] = answer if isinstance(answer, Cosigned) else answer.words
        return {one.name: answers[one.name] for one in self._current}

    def _resting(self, declared: rows.Witnessing, text: str) -> dict[str, Cosigned | str]:
        """Return those that are not to be asked now, and what stands in for their answers."""
        now = time.monotonic()
        answers: dict[str, Cosigned | str] = {}
        for one in self._current:
            if (failed := one.left_out(now)) is not None:
                answers[one.name] = failed
                self._metrics.cosignatures.labels(witness=one.name, result="left_out").inc()
        askable = [one for one in self._current if one.name not in answers]
        if declared.required and not self._quorum(declared).is_met_by([one.name for one in askable]):
            # Their cosignatures could not be used, and a budget is not to be spent on that.
            return answers | {one.name: "it is not asked while too many others fail" for one in askable}
        for one in askable:
            if (instead := one.over_budget(text, now)) is not None:
                answers[one.name] = instead
                self._metrics.cosignatures.labels(witness=one.name, result="budget").inc()
        return answers

    def _quorum(self, declared: rows.Witnessing) -> Policy:
        return policy.quorum_of([one.line for one in self._current], declared.quorum)


def condition(cosigned: Sequence[str], missing: dict[str, str], declared: rows.Witnessing) -> Condition:
    """Return what the AttestationLog says of a head, in words that change only when something does."""
    absent = "; ".join(f"{name}: {words}" for name, words in missing.items())
    by = ", ".join(cosigned) if cosigned else "nobody"
    if len(cosigned) >= declared.quorum:
        message = f"cosigned by {by}" + (f"; not by {absent}" if absent else "")
        return Condition(type="Witnessed", status="True", reason="Quorum", message=message)
    held = "heads are withheld" if declared.required else "heads are published without a quorum"
    message = f"{declared.quorum} witnesses are needed, and {held}: cosigned by {by}; not by {absent}"
    return Condition(type="Witnessed", status="False", reason="NoQuorum", message=message)


def text_of(checkpoint: str) -> str:
    """Return the text of a signed note that this attestor made: what witnesses cosign."""
    return checkpoint.rpartition("\n\n")[0]
