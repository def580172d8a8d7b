"""The lists of the console: what is stored is shown whole, in pages, filtered, and nothing is guessed."""

import base64
from dataclasses import replace
from uuid import uuid4

import pytest

from kapsel_console.parameters import key_cursor, name_cursor
from kapsel_store import circuits, endpoints, processes
from kapsel_store.rows import RateLimit
from kapsel_store.states import State


async def test_an_endpoint_shows_its_paths_destinations_and_what_waits(console, world) -> None:
    await world.put(3)
    await world.put(2, to=world.crm)
    await world.attempt(State.PENDING, count=1)
    page = await console.get("/api/v1/endpoints")
    assert page["next"] is None
    orders, other = page["items"]
    assert (orders["namespace"], orders["name"], orders["verification"]) == ("shop", "orders", "github")
    assert orders["ingest_paths"] == [f"/ingest/{world.orders.id}", "/ingest/shop/orders"]
    assert (orders["pending"], orders["pending_more"], orders["sending"]) == (3, False, 0)
    assert orders["oldest_pending_at"].endswith("Z")
    assert other["pending"] == 2
    (billing,) = orders["destinations"]
    assert (billing["name"], billing["url"], billing["circuit"]["state"]) == ("billing", world.billing.url, "closed")


@pytest.mark.parametrize(
    "path",
    [
        "endpoints?name=%00",
        "endpoints?namespace=sh%00p",
        "endpoints?cursor=" + name_cursor("sh\0p", "orders"),
        "replays?cursor=" + key_cursor("sh\0p", "again", 1),
        "events?endpoint=shop/%00",
        "undelivered?destination=shop/orders/%00",
        "attestation/consistency-proof?old_size=1&origin=%00",
    ],
)
async def test_what_no_text_in_the_database_can_be_is_refused_in_words(console, path: str) -> None:
    assert (await console.problem(f"/api/v1/{path}"))[:2] == (400, "parameter_invalid")


async def test_an_endpoint_is_ready_once_every_receiver_and_deliverer_has_loaded_it(console, world) -> None:
    async def readiness() -> tuple[bool, str]:
        item = (await console.get("/api/v1/endpoints?name=orders"))["items"][0]
        return item["ready"], item["reason"]

    assert await readiness() == (False, "NoReceiver")
    await processes.report(world.connection, "receiver", "r1", "http://127.0.0.1:1", 1)
    assert await readiness() == (False, "NoDeliverer")
    await processes.report(world.connection, "deliverer", "d1", "http://127.0.0.1:1", 1)
    assert await readiness() == (True, "Loaded")
    await world.apply(
        endpoints=(replace(world.orders, rate_limit=RateLimit(requests_per_second=1, burst=1)), world.other)
    )
    assert await readiness() == (False, "Loading")
    shown = (await console.get("/api/v1/processes"))["items"]
    assert [(one["component"], one["instance"], one["generation"]) for one in shown] == [
        ("deliverer", "d1", 1),
        ("receiver", "r1", 1),
    ]


async def test_a_stopped_destination_says_since_when_and_why(console, world) -> None:
    await world.connection.execute("INSERT INTO circuits (destination_id) VALUES ($1)", world.billing.id)

    def stop(row, now):
        return replace(row, state="closed", disabled_at=now, disabled_reason="gone")

    await circuits.change(world.connection, world.billing.id, stop)
    (item,) = (await console.get("/api/v1/endpoints?namespace=shop&name=orders"))["items"]
    circuit = item["destinations"][0]["circuit"]
    assert (circuit["state"], circuit["disabled_reason"]) == ("disabled", "gone")
    assert circuit["disabled_at"].endswith("Z")


async def test_the_values_of_headers_that_a_manifest_adds_are_not_shown(console, world) -> None:
    await world.apply(destinations=(replace(world.billing, headers=(("X-Token", "very-secret"),)), world.crm))
    _, content, response = await console.ask("/api/v1/endpoints")
    assert "very-secret" not in await response.text()
    assert content["items"][0]["destinations"][0]["headers"] == ["X-Token"]


async def test_counting_what_waits_stops_at_a_bound(world) -> None:
    await world.put(5)
    listed = await endpoints.page(world.connection, limit=1)
    assert listed[0].destinations[0].pending == 5
    listed = await endpoints.page(world.connection, limit=1, counted=3)
    assert listed[0].destinations[0].pending == 4


async def test_an_event_comes_back_byte_for_byte(console, world) -> None:
    (text,) = await world.put(body="grüß".encode())
    (binary,) = await world.put(body=b"\xff\x00\xfe")
    shown = await console.get(f"/api/v1/events/{text.id}")
    assert (shown["endpoint"], shown["body_text"], shown["headers"]) == (
        "shop/orders",
        "grüß",
        [["X-GitHub-Event", "push"]],
    )
    assert (shown["body_hash"], shown["correlation_id"]) == (text.body_hash.hex(), "abc")
    shown = await console.get(f"/api/v1/events/{binary.id}")
    assert (base64.b64decode(shown["body_base64"]), shown["body_text"], shown["size"]) == (b"\xff\x00\xfe", None, 3)


async def test_an_erased_event_says_so_by_having_no_body(console, world) -> None:
    (event,) = await world.put()
    await world.connection.execute("UPDATE events SET body = NULL, salt = NULL WHERE id = $1", event.id)
    shown = await console.get(f"/api/v1/events/{event.id}")
    assert (shown["body_base64"], shown["body_text"], shown["size"]) == (None, None, None)


async def test_an_attempt_shows_the_response_it_got(console, world) -> None:
    await world.put()
    (attempt,) = await world.attempt(State.EXHAUSTED)
    shown = await console.get(f"/api/v1/attempts/{attempt.id}")
    assert (shown["outcome"], shown["reason"], shown["response_status"]) == ("refused", "status_500", 500)
    assert (shown["duration_ms"], shown["leaf_index"]) == (3.21, None)
    assert base64.b64decode(shown["response_body_base64"]) == b"\xff\xfe"
    assert shown["response_body_text"] is None
    assert shown["payload_hash"] == attempt.payload_hash.hex()
    delivery = await console.get(f"/api/v1/deliveries/{attempt.delivery_id}")
    assert (delivery["state"], delivery["attempts"], delivery["due_at"]) == ("exhausted", 1, None)
    assert delivery["finished_at"].endswith("Z")


@pytest.mark.parametrize("kind", ["events", "deliveries", "attempts"])
async def test_pages_follow_each_other_without_gap_or_repetition(console, world, kind: str) -> None:
    await world.put(7)
    await world.attempt()
    seen, cursor, pages = [], "", 0
    while True:
        page = await console.get(f"/api/v1/{kind}?limit=3{cursor}")
        seen += [item["id"] for item in page["items"]]
        pages += 1
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
        await world.put(1)  # what arrives meanwhile is newer than every cursor
    assert len(seen) == 7
    assert pages == 3
    assert seen == sorted(seen, reverse=True)


async def test_pages_of_endpoints_follow_their_names(console, world) -> None:
    first = await console.get("/api/v1/endpoints?limit=1")
    second = await console.get(f"/api/v1/endpoints?limit=1&cursor={first['next']}")
    assert [item["name"] for item in first["items"] + second["items"]] == ["orders", "other"]
    assert second["next"] is None


async def test_deliveries_are_filtered_by_state_endpoint_and_event(console, world) -> None:
    (first, *_) = await world.put(2)
    await world.attempt(count=1)
    await world.attempt(State.EXHAUSTED, count=1)
    await world.put(1, to=world.crm)

    async def states(query: str) -> list[str]:
        return sorted(item["state"] for item in (await console.get(f"/api/v1/deliveries?{query}"))["items"])

    assert await states("") == ["delivered", "exhausted", "pending"]
    assert await states("state=pending") == ["pending"]
    assert await states("state=exhausted") == ["exhausted"]
    assert await states("state=delivered,pending") == ["delivered", "pending"]
    assert await states("state=exhausted,cancelled,sending") == ["exhausted"]
    assert await states("endpoint=shop/orders") == ["delivered", "exhausted"]
    assert await states("endpoint=shop/orders&state=pending") == []
    assert len(await states(f"event={first.id}")) == 1
    assert await states(f"event={first.id}&state=cancelled") == []


async def test_attempts_are_filtered_by_endpoint_event_and_delivery(console, world) -> None:
    (event,) = await world.put()
    await world.put(1, to=world.crm)
    (attempt,) = await world.attempt()
    await world.attempt(to=world.crm)
    for query in (f"event={event.id}", f"delivery={attempt.delivery_id}", "endpoint=shop/orders"):
        items = (await console.get(f"/api/v1/attempts?{query}"))["items"]
        assert [item["id"] for item in items] == [str(attempt.id)]
    assert len((await console.get("/api/v1/attempts"))["items"]) == 2


async def test_since_takes_a_duration_and_a_moment(console, world) -> None:
    await world.put()
    count = [
        len((await console.get(f"/api/v1/events?since={since}"))["items"])
        for since in ("1m", "1h30m", "1969-01-01T00:00:00Z", "2100-01-01T00:00:00%2B02:00", "2000000h")
    ]
    assert count == [1, 1, 1, 0, 1]


async def test_the_name_of_a_removed_endpoint_still_finds_its_events(console, world) -> None:
    await world.put()
    await world.apply(endpoints=(world.other,), destinations=(world.crm,))
    assert len((await console.get("/api/v1/events?endpoint=shop/orders"))["items"]) == 1
    assert [item["name"] for item in (await console.get("/api/v1/endpoints"))["items"]] == ["other"]


async def test_what_is_unknown_is_404_with_its_own_code(console) -> None:
    nobody = uuid4()
    for path, code in (
        (f"/api/v1/events/{nobody}", "unknown_event"),
        (f"/api/v1/deliveries/{nobody}", "unknown_delivery"),
        (f"/api/v1/attempts/{nobody}", "unknown_attempt"),
        ("/api/v1/events?endpoint=shop/nothing", "unknown_endpoint"),
        ("/api/v1/nothing", "unknown_route"),
    ):
        assert (await console.problem(path))[:2] == (404, code)


REFUSED = (
    ("deliveries?stat=pending", "parameter_unknown", "did you mean state?"),
    (
        "deliveries?destination=x",
        "parameter_unknown",
        "this path takes cursor, endpoint, event, limit, since, state",
    ),
    ("processes?limit=1", "parameter_unknown", "takes no query parameters"),
    ("deliveries?state=pendin", "parameter_invalid", "pending, sending, delivered, exhausted, cancelled"),
    ("deliveries?state=", "parameter_invalid", "one or more of"),
    ("deliveries?state=pending&state=sending", "parameter_invalid", "more than once"),
    ("events?limit=0", "parameter_invalid", "from 1 to 200"),
    ("events?limit=201", "parameter_invalid", "from 1 to 200"),
    ("events?limit=1e2", "parameter_invalid", "from 1 to 200"),
    ("events?limit=٣", "parameter_invalid", "from 1 to 200"),
    ("events?since=1d", "parameter_invalid", "15m"),
    ("events?since=yesterday", "parameter_invalid", "15m"),
    ("events?since=2026-01-31T12:00:00", "parameter_invalid", "2026-01-31T12:00:00Z"),
    ("events?since=2026-13-31T12:00:00Z", "parameter_invalid", "2026-01-31T12:00:00Z"),
    ("events?endpoint=orders", "parameter_invalid", "namespace/name"),
    ("events?endpoint=a/b/c", "parameter_invalid", "namespace/name"),
    ("events?cursor=AAAA", "parameter_invalid", "what a page gave as next"),
    ("events?cursor=!", "parameter_invalid", "what a page gave as next"),
    ("endpoints?cursor=_w", "parameter_invalid", "what a page gave as next"),
    ("deliveries?event=123", "parameter_invalid", "an id such as"),
    ("events/123", "parameter_invalid", "not an id"),
    ("events/0190F5FE-7C00-7A00-8000-000000000001", "parameter_invalid", "lower case"),
    ("attempts?event=0190f5fe-7c00-7a00-8000-000000000001&endpoint=a/b", "parameter_invalid", "exclude each other"),
)


async def test_what_is_not_understood_is_refused_in_words(console) -> None:
    for query, code, words in REFUSED:
        status, found, detail = await console.problem(f"/api/v1/{query}")
        assert (status, found) == (400, code), query
        assert words in detail, query
