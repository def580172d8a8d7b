"""Webhooks for destinations that ask for order: each gets its place in line, and none is lost for want of a key."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from uuid import UUID

import standstill

from kapsel_store import turns
from kapsel_store.rows import DestinationRow, EndpointRow, Idempotency, Ordering

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


SLOW = f"(({standstill.MUCH_WORK}) ? event.body.customer : '')"


def slow(endpoint: EndpointRow, keys: int = 1) -> tuple[DestinationRow, ...]:
    """Return destinations of an endpoint whose keys are much work, each in other words."""
    return tuple(
        DestinationRow(
            id=UUID(int=endpoint.id.int + 1 + number),
            endpoint_id=endpoint.id,
            name=f"slow-{number}",
            url="https://a.example",
            ordering=Ordering(key=f"{SLOW} + '/{number}'"),
        )
        for number in range(keys)
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


async def test_order_keys_that_are_much_work_stop_no_other_endpoint(receive: Any, post: Make, endpoint: Make) -> None:
    """One webhook for 8 destinations with such keys would keep everything else waiting for as many evaluations."""
    costly = [endpoint(id=UUID(int=number * 1000), name=f"costly-{number}") for number in (1, 2)]
    destinations = tuple(one for row in costly for one in slow(row, 8))
    body = json.dumps({"customer": "c-1", **json.loads(standstill.BODY)}).encode()
    async with receive(endpoint(), *costly, destinations=destinations) as receiver:
        for_one = standstill.evaluation()
        async with standstill.standstills() as gaps:
            paths = [f"/ingest/shop/{row.name}" for row in costly]
            waiting = [asyncio.create_task(receiver.exchange(post(body, path=path))) for path in (*paths, paths[0])]
            while not all(task.done() for task in waiting):
                assert (await receiver.exchange(post(body))).status == 202
        assert [(await task).status for task in waiting] == [202] * 3
        assert max(gaps) < 5 * for_one
        lines = await receiver.rows("SELECT shown, last FROM turns")
        assert {(one["shown"], one["last"]) for one in lines} == {
            (f"c-1/{n}", last) for n in range(8) for last in (1, 2)
        }


async def test_webhooks_of_one_key_keep_their_order_where_only_some_keys_are_much_work(
    receive: Any, post: Make, endpoint: Make
) -> None:
    async with receive(destinations=slow(endpoint())) as receiver:

        async def send(customer: str) -> None:
            for number in range(6):
                items = list(range(300 if number % 3 else 1))
                body = json.dumps({"customer": customer, "number": number, "a": items}).encode()
                assert (await receiver.exchange(post(body))).status == 202

        await asyncio.gather(*(send(f"c-{number}") for number in range(3)))
        found = await receiver.rows(
            "SELECT e.body FROM deliveries d JOIN events e ON e.id = d.event_id ORDER BY d.order_number"
        )
        numbers = defaultdict(list)
        for row in found:
            body = json.loads(row["body"])
            numbers[body["customer"]].append(body["number"])
        assert numbers == {f"c-{number}": [0, 1, 2, 3, 4, 5] for number in range(3)}


async def test_who_cannot_have_slow_keys_soon_is_refused_at_once_and_who_waits_at_the_end_was_not_accepted(
    receive: Any, post: Make, endpoint: Make, until: Make
) -> None:
    quick = endpoint(id=UUID(int=1000), name="quick")
    body = json.dumps({"customer": "c-1", **json.loads(standstill.BODY)}).encode()
    async with receive(endpoint(), quick, destinations=slow(endpoint(), 4)) as receiver:

        def awaited() -> float:
            return receiver.registry.get_sample_value("webhook_order_keys_awaited") or 0.0

        assert (await receiver.exchange(post(body))).status == 202
        sending = [asyncio.create_task(receiver.exchange(post(body))) for _ in range(400)]
        await until(lambda: awaited() + receiver.count("overloaded") + receiver.count("accepted") >= 401)
        assert 0 < awaited() < 200
        assert (await receiver.exchange(post(path="/ingest/shop/quick"))).status == 202
        await receiver.server.shutdown(0.5)
        assert awaited() == 0
        ended = await asyncio.gather(*sending, return_exceptions=True)
        answers = [one for one in ended if not isinstance(one, BaseException)]
        refused = [one for one in answers if one.status != 202]
        assert {(one.status, one.code) for one in refused} == {(503, "overloaded")}
        assert min(int(one.headers["retry-after"]) for one in refused) >= 10
        stored = {str(row["id"]) for row in await receiver.events()}
        assert {one.json["id"] for one in answers if one.status == 202} <= stored
        assert len(stored) < 200
