"""Asks GitHub for what never arrived: GitHub sends each webhook once, and keeps what failed for three days.

Every deliverer runs one; for each endpoint that declares gap healing they take turns by a row in the database. A look
lists the attempts of the hook, leaves out what has succeeded and what is here under its idempotency key, and asks for
the rest to be sent again: it arrives like any other webhook. Nothing has to be remembered, for GitHub's list has every
attempt; so a look that a crash cuts short is simply made again.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver

from kapsel_deliverer import proxy
from kapsel_deliverer.addresses import Borrowed
from kapsel_deliverer.github import GitHub, Sent, Trouble
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_egress.verdicts import Denied, check_url
from kapsel_runtime.waiting import until
from kapsel_store import database, event_names, healings
from kapsel_store.rows import Configuration, EndpointRow, GapHealing, KeyRow

POLL: Final = 5.0  # seconds between looks for a turn
PACE: Final = 0.5  # seconds between two requests for a redelivery
MOST: Final = 100  # redeliveries that one look asks for
MOST_PAGES: Final = 100  # that one look reads, of a hundred attempts each
# Seconds for all looks of a namespace in one turn; one at a full hook takes three minutes. Who names a server that
# hangs is not to keep back the hooks of others, whose deliveries GitHub forgets after three days.
LOOK: Final = 300.0
AT_ONCE: Final = 16  # namespaces that are looked at at the same time
KEPT: Final = timedelta(days=3)  # how long GitHub keeps deliveries
SETTLED: Final = timedelta(minutes=1)  # an attempt that is younger may be on its way, or waiting for its commit
# How long after the n-th attempt the next one is asked for. An event that fails so often is not healed by one more.
WAITS: Final = tuple(timedelta(minutes=minutes) for minutes in (1, 5, 30, 120, 480))
DELIVERY_HEADER: Final = "X-GitHub-Delivery"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An event that no attempt has brought here."""

    newest: Sent
    attempts: int

    def is_due(self, now: datetime) -> bool:
        """Whether it is time for another attempt."""
        return not self.given_up and self.newest.delivered_at + WAITS[self.attempts - 1] <= now

    @property
    def given_up(self) -> bool:
        """Whether it failed so often that nothing but a person helps."""
        return self.attempts > len(WAITS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a look came to."""

    reason: str
    message: str
    missing: int = 0
    requested: int = 0
    wait: timedelta = timedelta(0)


def failed(sent: Sequence[Sent], now: datetime) -> list[Failed]:
    """Return the events of which every attempt failed and the last one is over, the oldest first."""
    by_guid: dict[str, list[Sent]] = {}
    for one in sent:
        by_guid.setdefault(one.guid, []).append(one)
    found = [
        Failed(newest=max(attempts, key=lambda one: (one.delivered_at, one.id)), attempts=len(attempts))
        for attempts in by_guid.values()
        if not any(200 <= one.status_code < 300 for one in attempts)
    ]
    settled = [one for one in found if one.newest.delivered_at + SETTLED <= now]
    return sorted(settled, key=lambda one: (one.newest.delivered_at, one.newest.id))


def key(guid: str) -> bytes:
    """Return the idempotency key that the receiver gives an event of GitHub's."""
    return event_names.header_key(DELIVERY_HEADER, guid.encode())


def looks_back(row: EndpointRow) -> timedelta:
    """Return how far a look goes back: as long as the ids of what is here are remembered."""
    return min(KEPT, row.idempotency.window if row.idempotency else timedelta(0))


def report(missing: Sequence[Failed], requested: int, trouble: Trouble | None) -> Report:
    """Say in a word and a sentence what a look came to."""
    number = len(missing)
    if trouble is not None:
        return Report(
            reason=trouble.reason,
            message=trouble.message,
            missing=number,
            requested=requested,
            wait=trouble.wait,
        )
    if not missing:
        return Report(reason="Healed", message="nothing is missing of what GitHub tried to deliver")
    given_up = sum(one.given_up for one in missing)
    if given_up == number:
        message = f"{number} events failed more than {len(WAITS)} times each: see the answers in GitHub's settings"
        return Report(reason="GivenUp", message=message, missing=number)
    message = f"{number} events are missing; {requested} were asked for now, {given_up} are given up"
    return Report(reason="Healing", message=message, missing=number, requested=requested)


class Healer:
    """Looks at every hook whose time has come."""

    def __init__(
        self,
        pool: database.Pool,
        resolver: AbstractResolver,
        context: ssl.SSLContext,
        metrics: DelivererMetrics,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pace: float = PACE,
        look: float = LOOK,
    ) -> None:
        self._pool = pool
        self._resolver = resolver
        self._context = context
        self._metrics = metrics
        self._now = now
        self._pace = pace
        self._longest = look
        self._places = asyncio.Semaphore(AT_ONCE)
        self._configuration = Configuration()

    def configure(self, configuration: Configuration) -> None:
        """Look at the hooks of this configuration from now on."""
        self._configuration = configuration

    async def run(self, stopping: asyncio.Event) -> None:
        """Take turns until `stopping`."""
        while not stopping.is_set():
            await self.turn(stopping)
            await until(stopping, timeout=POLL)

    async def turn(self, stopping: asyncio.Event) -> None:
        """Look at each hook that is due and nobody else's: one after the other in a namespace, those side by side."""
        by_namespace: dict[str, list[EndpointRow]] = {}
        for row in self._configuration.endpoints:
            if row.verification.gap_healing is not None and not row.suspend:
                by_namespace.setdefault(row.namespace, []).append(row)
        async with asyncio.TaskGroup() as tasks:
            for rows in by_namespace.values():
                tasks.create_task(self._turn_of(rows, stopping))

    async def _turn_of(self, rows: Sequence[EndpointRow], stopping: asyncio.Event) -> None:
        try:
            async with self._places:
                end = asyncio.get_running_loop().time() + self._longest
                for row in rows:
                    if stopping.is_set() or asyncio.get_running_loop().time() >= end:
                        break
                    await self._hook(row, end, stopping)
        except Exception as error:  # the edge: what is wrong here must not stop deliveries
            if not database.is_away(error):
                self._metrics.errors.labels("healing").inc()
                logger.exception("gap healing failed; it is tried again")

    async def _hook(self, row: EndpointRow, end: float, stopping: asyncio.Event) -> None:
        healing = row.verification.gap_healing
        if healing is None:
            return
        async with self._pool.acquire(timeout=5) as connection:
            mine = await healings.take(connection, row.id, healing.period)
        # A crash from here on leaves this period without a look; the next one sees all that this one would have.
        if mine:
            await self._look(row, healing, end, stopping)

    async def _look(self, row: EndpointRow, healing: GapHealing, end: float, stopping: asyncio.Event) -> None:
        label = f"{row.namespace}/{row.name}"
        deadline = asyncio.timeout_at(end)
        try:
            async with deadline:
                found = await self._heal(row, healing, stopping)
        except Exception as error:  # the edge: what is wrong with one hook must not keep back the others
            if deadline.expired():
                found = Report(reason="GitHubUnavailable", message="the look took too long, and was broken off")
            elif database.is_away(error):
                raise
            else:
                self._metrics.errors.labels("healing").inc()
                logger.exception("a look at a hook failed; it is made again", extra={"endpoint": label})
                found = Report(reason="GitHubUnavailable", message=f"the look failed: {type(error).__name__}")
        self._metrics.gap_looks.labels(label, found.reason).inc()
        self._metrics.gap_missing.labels(label).set(found.missing)
        self._metrics.gap_requested.labels(label).inc(found.requested)
        level = logging.DEBUG if found.reason == "Healed" else logging.INFO
        logger.log(level, "gap healing: %s", found.message, extra={"endpoint": label, "reason": found.reason})
        async with self._pool.acquire(timeout=5) as connection:
            await healings.record(
                connection,
                row.id,
                reason=found.reason,
                message=found.message,
                missing=found.missing,
                requested=found.requested,
                not_before=found.wait,
            )

    async def _heal(self, row: EndpointRow, healing: GapHealing, stopping: asyncio.Event) -> Report:
        now = self._now()
        token = self._token(row, now)
        if token is None:
            return Report(reason="NoToken", message="the Secret of the token is not there, or its value is no token")
        verdict = check_url(f"{healing.api_url}{healing.hook}", self._configuration.relay)
        if isinstance(verdict, Denied):
            return Report(reason="EgressDenied", message=verdict.detail)
        relay, through = self._configuration.relay, proxy.declared(self._configuration)
        connector = proxy.connector(Borrowed(self._resolver), relay, through, ssl=self._context, limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            github = GitHub(session, str(verdict.url), token, self._now)
            return await self._through(github, row, now, stopping)

    async def _through(self, github: GitHub, row: EndpointRow, now: datetime, stopping: asyncio.Event) -> Report:
        listed = await _listed(github, now - looks_back(row), stopping)
        if isinstance(listed, Trouble):
            return report((), 0, listed)
        missing = await self._not_here(row, failed(listed, now))
        requested = 0
        for one in [one for one in missing if one.is_due(now)][:MOST]:
            if github.spent is not None or stopping.is_set():
                break
            trouble = await github.redeliver(one.newest)
            if trouble is not None and trouble.reason != "Refused":
                return report(missing, requested, trouble)
            requested += trouble is None
            await until(stopping, timeout=self._pace)
        return report(missing, requested, github.spent)

    async def _not_here(self, row: EndpointRow, found: Sequence[Failed]) -> list[Failed]:
        """Leave out what is here: the answer may have been lost after the commit."""
        keys = {key(one.newest.guid): one for one in found}
        async with self._pool.acquire(timeout=5) as connection:
            here = await healings.held(connection, row.id, keys)
        return [one for known, one in keys.items() if known not in here]

    def _token(self, row: EndpointRow, now: datetime) -> str | None:
        live = [one for one in self._configuration.keys if _is_token(one, row, now)]
        newest = max(live, key=lambda one: one.version, default=None)
        text = "" if newest is None else newest.secret.decode("latin-1").strip()
        return text if text.isascii() and text.isprintable() and text else None


async def _listed(github: GitHub, since: datetime, stopping: asyncio.Event) -> list[Sent] | Trouble:
    """Return the attempts since a moment, the newest first; of a hook that is too busy for it, as many as is decent."""
    found: list[Sent] = []
    cursor: str | None = None
    for _ in range(MOST_PAGES):
        page = await github.page(cursor)
        if isinstance(page, Trouble):
            return page
        found += [one for one in page.sent if one.delivered_at >= since]
        cursor = page.cursor
        if (
            cursor is None
            or stopping.is_set()
            or github.spent is not None
            or any(one.delivered_at < since for one in page.sent)
        ):
            break
    return found


def _is_token(one: KeyRow, row: EndpointRow, now: datetime) -> bool:
    named = (one.namespace, one.name) == (row.namespace, row.verification.token_key_name)
    return named and one.not_before <= now and (one.not_after is None or now < one.not_after)
