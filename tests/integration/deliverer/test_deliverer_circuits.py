"""What is reported to a circuit is counted once, whatever becomes of the answer to its COMMIT."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
BILLING = DestinationRow(id=uuid4(), endpoint_id=ENDPOINT.id, name="billing", url="http://127.0.0.1:9/")


class Losing(asyncpg.Connection):
    """A connection that is cut around a COMMIT: before it reaches the server, or before its answer comes back."""

    reaches = False

    async def execute(self, query: str, *arguments: object, timeout: float | None = None) -> str:
        if query != "COMMIT;":
            return await super().execute(query, *arguments, timeout=timeout)
        if self.reaches:
            await super().execute(query)
        self.terminate()
        raise asyncpg.ConnectionDoesNotExistError("the connection was cut")


@pytest.mark.parametrize("reaches", [False, True])
async def test_a_report_whose_commit_is_not_answered_is_counted_once(database, reaches: bool) -> None:
    owner = await database.connection()
    declared = Configuration(endpoints=(ENDPOINT,), destinations=(BILLING,))
    await configuration.apply(owner, database.sealing, declared, actor="test")
    settings = store_database.settings(schema=database.schema, role="kapsel_deliverer", component="test")
    losing = await asyncpg.connect(database.url, server_settings=settings, connection_class=Losing)
    losing.reaches = reaches
    well = await database.connection("deliverer")
    connections = [losing, well]

    class Pool:
        @asynccontextmanager
        async def acquire(self, timeout: float) -> AsyncIterator[asyncpg.Connection]:
            if len(connections) == 1:
                breakers.close()
                yield connections[0]
            else:
                yield connections.pop(0)

    breakers = Breakers(Pool(), Lanes(10), DatabaseClock(), DelivererMetrics(CollectorRegistry()), lambda _: None)
    breakers.configure({BILLING.id: CircuitBreaker()}, {BILLING.id: "shop/orders/billing"})
    for _ in range(3):
        breakers.observe(BILLING.id, TimedOut(phase="response"), probe=False, gone=False)
    await breakers.run()
    row = (await circuits.load(owner, [BILLING.id]))[BILLING.id]
    assert (row.attempts, row.failures) == (3, 3)
    await well.close()
    await owner.close()
