"""What is reported to a circuit is counted once, and each change told once, whatever becomes of a COMMIT's answer."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from kapsel_deliverer.breakers import Breakers
from kapsel_deliverer.clock import DatabaseClock
from kapsel_deliverer.lanes import Lanes
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.outcome import TimedOut
from kapsel_store import circuits, configuration
from kapsel_store import database as store_database
from kapsel_store.rows import CircuitBreaker, Configuration, DestinationRow, EndpointRow, Verification

ENDPOINT = EndpointRow(id=uuid4(), namespace="shop", name="orders", verification=Verification(scheme="none"))
BREAKER = CircuitBreaker()
FAILED = TimedOut(phase="response")
BILLING = DestinationRow(id=uuid4(), endpoint_id=ENDPOINT.id, name="billing", url="http://127.0.0.1:9/")


class Losing(asyncpg.Connection):
    """A connection that is cut around a COMMIT: before it reaches the server, or before its answer comes back."""

    reaches = False
    spared = 0  # COMMITs before that

    async def execute(self, query: str, *arguments: object, timeout: float | None = None) -> str:
        if query != "COMMIT;" or self.spared:
            self.spared -= query == "COMMIT;"
            return await super().execute(query, *arguments, timeout=timeout)
        if self.reaches:
            await super().execute(query)
        self.terminate()
        raise asyncpg.ConnectionDoesNotExistError("the connection was cut")


async def reported(
    database,
    *,
    reaches: bool,
    spared: int = 0,
    meanwhile: Callable[[Breakers], None] = lambda _: None,
    breaker: CircuitBreaker = BREAKER,
) -> circuits.CircuitRow:
    """Return the circuit after three failures and what came `meanwhile`; the answer to a COMMIT was lost."""
    owner = await database.connection()
    declared = Configuration(endpoints=(ENDPOINT,), destinations=(BILLING,))
    await configuration.apply(owner, database.sealing, declared, actor="test")
    settings = store_database.settings(schema=database.schema, role="kapsel_deliverer", component="test")
    losing = await asyncpg.connect(database.url, server_settings=settings, connection_class=Losing)
    losing.reaches, losing.spared = reaches, spared
    well = await database.connection("deliverer")
    acquired = 0

    class Pool:
        @asynccontextmanager
        async def acquire(self, timeout: float) -> AsyncIterator[asyncpg.Connection]:
            nonlocal acquired
            acquired += 1
            if acquired == 2:
                meanwhile(breakers)
                breakers.close()
            yield losing if acquired == 1 else well

    lanes = Lanes(10)
    lanes.configure([BILLING], 0.0)
    breakers = Breakers(Pool(), lanes, DatabaseClock(), DelivererMetrics(CollectorRegistry()), lambda _: None)
    breakers.configure({BILLING.id: breaker}, {BILLING.id: "shop/orders/billing"})
    for _ in range(3):
        breakers.observe(BILLING.id, FAILED, probe=False, gone=False)
    await breakers.run()
    row = (await circuits.load(owner, [BILLING.id]))[BILLING.id]
    await well.close()
    await owner.close()
    return row


@pytest.mark.parametrize("reaches", [False, True])
async def test_a_report_whose_commit_is_not_answered_is_counted_once(database, reaches: bool) -> None:
    row = await reported(database, reaches=reaches)
    assert (row.attempts, row.failures) == (3, 3)


@pytest.mark.parametrize("reaches", [False, True])
async def test_a_circuit_that_has_opened_is_told_once_whatever_becomes_of_the_answer(
    database, reaches: bool, caplog: pytest.LogCaptureFixture
) -> None:
    row = await reported(database, reaches=reaches, breaker=CircuitBreaker(min_attempts=3))
    assert row.state == "open"
    assert [record.getMessage() for record in caplog.records] == ["circuit of shop/orders/billing: open"]


@pytest.mark.parametrize("reaches", [False, True])
async def test_a_circuit_that_is_probed_is_told_once_whatever_becomes_of_the_answer(
    database, reaches: bool, caplog: pytest.LogCaptureFixture
) -> None:
    breaker = CircuitBreaker(min_attempts=3, open_for=timedelta(0))
    row = await reported(database, reaches=reaches, spared=1, breaker=breaker)
    assert row.state == "half_open"
    told = [record.getMessage() for record in caplog.records]
    assert told == ["circuit of shop/orders/billing: open", "circuit of shop/orders/billing: half_open"]


@pytest.mark.parametrize("reaches", [False, True])
async def test_a_410_that_comes_before_that_is_known_still_stops_the_destination(database, reaches: bool) -> None:
    def gone(breakers: Breakers) -> None:
        breakers.observe(BILLING.id, FAILED, probe=False, gone=True)

    row = await reported(database, reaches=reaches, meanwhile=gone)
    assert (row.attempts, row.failures) == (4, 4)
    assert row.disabled_at is not None
