"""What order by key costs: `python bench/ordering.py [--events 4000] [--rounds 3]`.

One embedded Postgres, one receiver's commits, one real deliverer and a destination that answers at once, all on this
machine. Each round stores and then delivers the same number of events without ordering, with a thousand keys and with
one key, in turn, so that what else the machine does falls on all of them; the medians of the rounds are printed.
"""

import argparse
import asyncio
import hashlib
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import asyncpg
from aiohttp import web
from pydantic import SecretStr

from kapsel_cli.postgres import EmbeddedPostgres
from kapsel_deliverer.__main__ import serve
from kapsel_deliverer.settings import DelivererSettings
from kapsel_store import configuration, database, events, ids, turns
from kapsel_store.migrate import migrate
from kapsel_store.rows import (
    Configuration,
    DestinationRow,
    EndpointRow,
    KeyRow,
    NewDelivery,
    NewEvent,
    Ordering,
    RelayRow,
    Verification,
)
from kapsel_store.sealing import SealingKeys

BATCH = 64  # events in one commit, as of a receiver under load
BODY = b'{"customer": "c-0001", "filling": "%s"}' % (b"x" * 980)
KEYS = {"without": 0, "1,000 keys": 1000, "1 key": 1}
ENDPOINT = EndpointRow(id=uuid4(), namespace="bench", name="orders", verification=Verification(scheme="none"))


@dataclass(frozen=True)
class Measured:
    """Events a second."""

    stored: float
    delivered: float


def event(to: DestinationRow, key: str | None) -> NewEvent:
    """Return one event for the destination."""
    delivery = NewDelivery(
        id=ids.new(),
        destination_id=to.id,
        max_age=to.policy.max_age,
        order_key=None if key is None else turns.digest(to.id, key),
        order_shown=key,
    )
    return NewEvent(
        id=ids.new(),
        endpoint_id=ENDPOINT.id,
        received_at=datetime.now(UTC),
        content_type="application/json",
        headers="[]",
        body=BODY,
        body_hash=hashlib.sha256(BODY).digest(),
        salt=os.urandom(32),
        idempotency_key=None,
        idempotency_window=None,
        correlation_id=None,
        deliveries=(delivery,),
    )


async def measure(settings: DelivererSettings, to: DestinationRow, keys: int, count: int) -> Measured:
    """Store events, then start a deliverer and wait until all are delivered."""
    url, schema = settings.database_url.get_secret_value(), settings.database_schema
    store = await asyncpg.connect(
        url, server_settings=database.settings(schema=schema, role=None, component="receiver")
    )
    made = [event(to, f"c-{number % keys}" if keys else None) for number in range(count)]
    begun = time.perf_counter()
    for first in range(0, count, BATCH):
        await events.insert(store, made[first : first + BATCH])
    stored = count / (time.perf_counter() - begun)
    stopping = asyncio.Event()
    deliverer = asyncio.create_task(serve(replace_instance(settings), stopping))
    await until(store, "SELECT EXISTS (SELECT FROM attempts)")
    begun, before = time.perf_counter(), await store.fetchval("SELECT count(*) FROM attempts")
    await until(store, "SELECT NOT EXISTS (SELECT FROM deliveries_live)")
    delivered = (count - before) / (time.perf_counter() - begun)
    stopping.set()
    await deliverer
    for table in ("attempts", "events", "deliveries", "unsequenced"):
        await store.execute(
            f"ALTER TABLE {table} DISABLE TRIGGER USER; DELETE FROM {table}; ALTER TABLE {table} ENABLE TRIGGER USER"
        )
    await store.execute("VACUUM deliveries_live, turns, ended_turns")
    await store.close()
    return Measured(stored, delivered)


async def until(store: asyncpg.Connection, query: str) -> None:
    """Wait until the database says yes."""
    while True:
        if await store.fetchval(query):
            return
        await asyncio.sleep(0.01)


def replace_instance(settings: DelivererSettings) -> DelivererSettings:
    """Return the settings under a name that no other deliverer had."""
    return settings.model_copy(update={"instance": f"bench-{uuid4()}"})


async def run(url: str, directory: Path, count: int, rounds: int) -> dict[str, list[Measured]]:
    """Measure each way of ordering, in turn."""
    key_file = directory / "sealing.key"
    key_file.write_text(os.urandom(32).hex() + "\n")
    await migrate(url, schema="bench")

    async def answer(request: web.BaseRequest) -> web.Response:
        await request.read()
        return web.Response()

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    plain = DestinationRow(
        id=uuid4(), endpoint_id=ENDPOINT.id, name="plain", url=f"http://127.0.0.1:{runner.addresses[0][1]}/",
        max_in_flight=256, key_name="endpoint/orders",
    )  # fmt: skip
    ordered = replace(plain, id=uuid4(), name="ordered", ordering=Ordering(key="event.body.customer"))
    signing = KeyRow(
        id=uuid4(), namespace="bench", name="endpoint/orders", version=1, algorithm="HMAC-SHA256",
        secret=os.urandom(32), not_before=datetime(2020, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    desired = Configuration(
        relay=RelayRow(allowed_cidrs=("127.0.0.0/8",), allow_http=True),
        endpoints=(ENDPOINT,), destinations=(plain, ordered), keys=(signing,),
    )  # fmt: skip
    connection = await asyncpg.connect(
        url, server_settings=database.settings(schema="bench", role=None, component="bench")
    )
    await configuration.apply(connection, SealingKeys.from_file(key_file), desired, actor="bench")
    await connection.close()
    settings = DelivererSettings(
        database_url=SecretStr(url), database_role="kapsel_deliverer", database_schema="bench",
        sealing_key_file=key_file, instance="bench", deliverer_lease=timedelta(seconds=60),
        health_port=0,
    )  # fmt: skip
    found: dict[str, list[Measured]] = {name: [] for name in KEYS}
    for _ in range(rounds):
        for name, keys in KEYS.items():
            few = count // 10 if keys == 1 else count  # one after the other takes its time
            found[name].append(await measure(settings, ordered if keys else plain, keys, few))
    await runner.cleanup()
    return found


def main() -> None:
    """Run it and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=4000, help="of each kind and round (one key: a tenth)")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        server = EmbeddedPostgres(Path(directory) / "postgres")
        server.start()
        try:
            found = asyncio.run(run(server.url, Path(directory), asked.events, asked.rounds))
        finally:
            server.stop()
    print(f"{'ordering':12} {'stored/s':>10} {'delivered/s':>12}")
    for name, measured in found.items():
        stored = statistics.median(one.stored for one in measured)
        delivered = statistics.median(one.delivered for one in measured)
        print(f"{name:12} {stored:10,.0f} {delivered:12,.0f}")


if __name__ == "__main__":
    main()
