"""SNS over HTTP: the receiver asks for what it needs from outside, and takes what is proved."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kapsel_store import errands
from kapsel_store.rows import Verification

Make = Callable[..., Any]
VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "providers" / "sns.json").read_text())
NOW = datetime.fromtimestamp(VECTORS["cases"][0]["now"], UTC)
NOTIFICATION, CONFIRMATION = (VECTORS["cases"][number]["body"].encode() for number in (0, 3))
SNS = Verification(scheme="sns", topic_arns=tuple(VECTORS["cases"][0]["topic_arns"]))
URL = json.loads(NOTIFICATION)["SigningCertURL"]


async def run_errand(database: Any, **end: Any) -> errands.Errand:
    """Do what a deliverer does, once there is something to do."""
    connection = await database.connection("deliverer")
    try:
        async with asyncio.timeout(60):
            while (errand := await errands.take(connection)) is None:
                await asyncio.sleep(0.01)
        await errands.finish(connection, errand.url, **end)
    finally:
        await connection.close()
    return errand


async def test_the_first_message_waits_for_its_certificate_and_the_next_does_not(
    receive: Any, post: Make, endpoint: Make, database: Any
) -> None:
    async with receive(endpoint(verification=SNS), now=lambda: NOW) as receiver:
        first = asyncio.create_task(receiver.exchange(post(NOTIFICATION)))
        errand = await run_errand(database, answer=VECTORS["certificate"].encode())
        assert (errand.url, errand.kind) == (URL, "certificate")
        assert (await first).status == 202
        assert (await receiver.exchange(post(NOTIFICATION))).status == 202
        forged = NOTIFICATION.replace(b"Hello", b"Hullo")
        assert (await receiver.exchange(post(forged))).code == "signature_mismatch"
        assert len(await receiver.events()) == 2


async def test_without_a_certificate_sns_is_asked_to_come_again(
    receive: Any, post: Make, endpoint: Make, database: Any
) -> None:
    async with receive(endpoint(verification=SNS), now=lambda: NOW) as receiver:
        first = asyncio.create_task(receiver.exchange(post(NOTIFICATION)))
        await run_errand(database, failure="refused with 404")
        answer = await first
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (503, "certificate_unknown", "10")
        assert await receiver.events() == []


async def test_a_message_of_another_topic_asks_for_nothing(receive: Any, post: Make, endpoint: Make) -> None:
    async with receive(endpoint(verification=SNS), now=lambda: NOW) as receiver:
        other = NOTIFICATION.replace(b":MyTopic", b":Another")
        assert (await receiver.exchange(post(other))).code == "credentials_mismatch"
        assert await receiver.rows("SELECT * FROM errands") == []


async def test_a_subscription_of_a_declared_topic_is_confirmed_and_is_no_event(
    receive: Any, post: Make, endpoint: Make, database: Any
) -> None:
    async with receive(endpoint(verification=SNS), now=lambda: NOW) as receiver:
        first = asyncio.create_task(receiver.exchange(post(CONFIRMATION)))
        await run_errand(database, answer=VECTORS["certificate"].encode())
        assert (await first).status == 200
        again = await receiver.exchange(post(CONFIRMATION))
        assert again.status == 200
        visit = await run_errand(database, answer=b"<ok/>")
        assert (visit.url, visit.kind) == (json.loads(CONFIRMATION)["SubscribeURL"], "confirmation")
        assert len(await receiver.rows("SELECT * FROM errands")) == 2
        assert receiver.count("handshake") == 2
        assert await receiver.events() == []
        forged = CONFIRMATION.replace(b"Hello", b"Hullo")
        assert (await receiver.exchange(post(forged))).code == "signature_mismatch"


async def test_a_suspended_endpoint_confirms_its_subscription_and_takes_no_message(
    receive: Any, post: Make, endpoint: Make, database: Any
) -> None:
    async with receive(endpoint(verification=SNS, suspend=True), now=lambda: NOW) as receiver:
        first = asyncio.create_task(receiver.exchange(post(CONFIRMATION)))
        await run_errand(database, answer=VECTORS["certificate"].encode())
        assert (await first).status == 200
        assert (await run_errand(database, answer=b"<ok/>")).kind == "confirmation"
        assert (await receiver.exchange(post(NOTIFICATION))).code == "endpoint_suspended"
        assert await receiver.events() == []
