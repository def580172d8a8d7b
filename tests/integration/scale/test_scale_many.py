"""Many receivers and many deliverers on one Postgres: each webhook once, whoever takes it and whoever delivers it."""

import asyncio
from datetime import UTC, datetime

import pytest
from traffic.accounts import account, settled

RECEIVERS, DELIVERERS = 3, 3
WEBHOOKS = 240


@pytest.fixture
async def plane(database, tmp_path, destination, planes):
    made = planes(url=database.url, schema=database.schema, directory=tmp_path, destination=destination)
    await made.configure(datetime.now(UTC))
    yield made
    await made.stop()


async def test_three_receivers_and_three_deliverers_account_for_every_webhook_though_one_of_each_dies(
    plane, until
) -> None:
    receivers = [await plane.start("receiver", number) for number in range(RECEIVERS)]
    for number in range(DELIVERERS):
        await plane.start("deliverer", number, KAPSEL_DELIVERER_LEASE="10")
    for number in range(2):
        await plane.start("attestor", number)
    producers = [await plane.producer(receiver) for receiver in receivers]

    # Every third webhook comes to two receivers, as a provider sends again what it takes for lost.
    shares = [[n for n in range(WEBHOOKS) if n % RECEIVERS == own or n % 3 == own - 1] for own in range(RECEIVERS)]
    survivors = producers[1:]
    sending = [asyncio.create_task(one.run(share)) for one, share in zip(producers, shares, strict=True)]
    try:
        await until(lambda: all(len(one.accepted) > WEBHOOKS // 10 for one in producers))
        await plane.kill("deliverer-0")
        await plane.kill("receiver-0")
        sending[0].cancel()
        # What the dead one did not answer is sent to another, as a load balancer does.
        rest = [n for n in shares[0] if f"delivery-{n}" not in producers[0].accepted]
        await asyncio.gather(*sending[1:], survivors[0].run(rest))
    finally:
        for one in sending:
            one.cancel()
        await asyncio.gather(*sending, return_exceptions=True)

    accepted: dict[str, str] = {}
    for producer in producers:
        for guid, event in producer.accepted.items():
            assert accepted.setdefault(guid, event) == event, "two events for one webhook"
    assert len(accepted) == WEBHOOKS
    connection = await plane.connection()
    try:
        await settled(connection)
        await account(connection, accepted, plane.destination)
        assert await connection.fetchval("SELECT count(*) FROM events") == WEBHOOKS
        assert not plane.faults()
    finally:
        await connection.close()
