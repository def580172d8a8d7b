"""Webhooks for destinations that ask for order: each gets its place in line, and none is lost for want of a key."""

import asyncio
import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

from kapsel_store import turns
from kapsel_store.rows import DestinationRow, Idempotency, Ordering

Make = Callable[..., Any]
ENDPOINT = UUID("11111111-1111-4111-8111-111111111111")
BILLING, AUDIT = UUID(int=21), UUID(int=22)
IN_ORDER = (
    DestinationRow(
        id=BILLING,
        endpoint_id=ENDPOINT,
        name="billing",
        url="https://a.example",
        ordering=Ordering(key="event.body.customer"),
    ),
    DestinationRow(id=AUDIT, endpoint_id=ENDPOINT, name="audit", url="https://b.example"),
)


def about(customer: str, number: int) -> bytes:
    return json.dumps({"customer": customer, "number": number}).encode()


async def test_webhooks_of_one_key_get_places_in_the_order_in_which_they_were_sent(receive: Any, post: Make) -> None:
    async with receive(destinations=IN_ORDER) as receiver:
        for number in range(3):
            for customer in ("c-1", "c-2"):
                assert (await receiver.exchange(post(about(customer, number)))).status == 202
        found = await receiver.rows(
            "SELECT d.order_key, d.order_number, d.held, d.destination_id, e.body FROM deliveries d "
            "JOIN events e ON e.id = d.event_id ORDER BY d.order_key, d.order_number"
        )
        assert all(row["order_key"] is None and not row["held"] for row in found if row["destination_id"] == AUDIT)
        for customer in ("c-1", "c-2"):
            line = [row for row in found if row["order_key"] == turns.digest(BILLING, customer)]
            assert [json.loads(row["body"])["number"] for row in line] == [0, 1, 2]
            assert [row["held"] for row in line] == [False, True, True]
        shown = await receiver.rows("SELECT shown FROM turns ORDER BY shown")
        assert [row["shown"] for row in shown] == ["c-1", "c-2"]


async def test_webhooks_that_come_at_once_get_a_place_each(receive: Any, post: Make) -> None:
    async with receive(destinations=IN_ORDER) as receiver:
        answers = await asyncio.gather(*(receiver.exchange(post(about("c-1", number))) for number in range(60)))
        assert {answer.status for answer in answers} == {202}
        found = await receiver.rows("SELECT order_number FROM deliveries WHERE order_key IS NOT NULL ORDER BY 1")
        assert [row["order_number"] for row in found] == list(range(1, 61))


async def test_a_webhook_without_a_key_is_accepted_and_goes_in_line_with_others_like_it(
    receive: Any, post: Make
) -> None:
    async with receive(destinations=IN_ORDER) as receiver:
        for body in (b"no json", b'{"customer": 7}', b"{}", about("\0\ud800", 1)):
            assert (await receiver.exchange(post(body))).status == 202
        found = await receiver.rows("SELECT order_number FROM deliveries WHERE order_key IS NOT NULL ORDER BY 1")
        assert len(found) == 4
        (line,) = await receiver.rows("SELECT key, last FROM turns WHERE shown IS NULL")
        assert line["key"] == turns.fallback(BILLING)
        counted = sum(
            sample.value
            for metric in receiver.registry.collect()
            for sample in metric.samples
            if sample.name == "webhook_order_key_failures_total"
        )
        assert counted == line["last"] >= 3


async def test_a_duplicate_gets_the_first_answer_and_no_place(receive: Any, post: Make, endpoint: Make) -> None:
    once = endpoint(idempotency=Idempotency(source="Header", header="X-Id"))
    async with receive(once, destinations=IN_ORDER) as receiver:
        first, second = [await receiver.exchange(post(about("c-1", 1), {"X-Id": "7"})) for _ in range(2)]
        assert first.json["id"] == second.json["id"]
        (line,) = await receiver.rows("SELECT last FROM turns")
        assert line["last"] == 1
