"""Runs the errands of receivers: fetches the certificates of SNS, and visits what confirms a subscription.

Every deliverer runs one; an errand is taken by one of them. The URLs were vetted by who asked, and are judged again
here by the egress rules, like those of destinations.
"""

import asyncio
import logging
import ssl
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver

from kapsel_deliverer import proxy
from kapsel_deliverer.addresses import Borrowed
from kapsel_deliverer.exchange import read_whole
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.proxy import Proxy
from kapsel_egress.verdicts import Denied, check_url
from kapsel_runtime.waiting import until
from kapsel_store import database, errands
from kapsel_store.errands import Errand, Kind
from kapsel_store.rows import Configuration, RelayRow

POLL: Final = 1.0
MOST_TRIES: Final = 8  # the pause doubles from 15 s, so the last comes after half an hour
LARGEST: Final = 65_536
TIMEOUT: Final = aiohttp.ClientTimeout(total=10)

logger = logging.getLogger(__name__)


class Runner:
    """Takes errands and goes."""

    def __init__(
        self, pool: database.Pool, resolver: AbstractResolver, context: ssl.SSLContext, metrics: DelivererMetrics
    ) -> None:
        self._pool = pool
        self._resolver = resolver
        self._context = context
        self._metrics = metrics
        self._relay = RelayRow()
        self._proxy: Proxy | None = None

    def configure(self, configuration: Configuration) -> None:
        """Go by these egress rules, and through this proxy, from now on."""
        self._relay, self._proxy = configuration.relay, proxy.declared(configuration)

    async def run(self, stopping: asyncio.Event) -> None:
        """Look for errands until `stopping`."""
        while not stopping.is_set():
            try:
                while not stopping.is_set() and await self.turn():
                    pass
            except Exception as error:  # the edge: an errand must not stop deliveries
                if not database.is_away(error):
                    self._metrics.errors.labels("errand").inc()
                    logger.exception("an errand failed; it is tried again")
            await until(stopping, timeout=POLL)

    async def turn(self) -> bool:
        """Run one errand; return whether there was one."""
        async with self._pool.acquire(timeout=5) as connection:
            await errands.prune(connection)
            errand = await errands.take(connection)
        if errand is None:
            return False
        # A crash here leaves the errand to whoever comes after its pause.
        answer, failure = await self._go(errand)
        facts = {"url": errand.url.partition("?")[0], "kind": errand.kind}  # the query has the token of a subscription
        if answer is not None:
            logger.info("an errand is done", extra=facts)
        else:
            logger.warning("an errand failed: %s", failure, extra=facts)
        if answer is not None or failure is None or errand.tries >= MOST_TRIES or failure.startswith("refused"):
            async with self._pool.acquire(timeout=5) as connection:
                await errands.finish(connection, errand.url, answer=answer, failure=failure)
        return True

    async def _go(self, errand: Errand) -> tuple[bytes | None, str | None]:
        """Return the answer, or why there is none: refused, if it is no use to try again."""
        verdict = check_url(errand.url, self._relay)
        if isinstance(verdict, Denied):
            return None, f"refused by the egress rules: {verdict.detail}"
        connector = proxy.connector(Borrowed(self._resolver), self._relay, self._proxy, ssl=self._context, limit=1)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, headers={"User-Agent": "kapsel"}) as session,
                session.get(verdict.url, timeout=TIMEOUT, allow_redirects=False) as response,
            ):
                if response.status != 200:
                    final = 400 <= response.status < 500 and response.status != 429
                    return None, f"{'refused' if final else 'answered'} with {response.status}"
                body = await read_whole(response.content, LARGEST)
                return _judged(errand.kind, body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return None, f"no answer: {type(error).__name__}"


def _judged(kind: Kind, body: bytes | None) -> tuple[bytes | None, str | None]:
    """Return an answer that may be kept: a certificate is kept for ever, so it must be one."""
    if body is None:
        return None, f"refused: the answer is longer than {LARGEST} bytes"
    if kind == "certificate" and not _is_certificate(body):
        return None, "refused: the answer is no certificate"
    return body or b" ", None


def _is_certificate(body: bytes) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=body.decode("ascii"))
    except (ValueError, ssl.SSLError):
        return False
    return True
