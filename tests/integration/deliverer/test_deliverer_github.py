"""Gap healing against a local GitHub: lists by cursor, keeps its limits, and sends again what is asked for."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from aiohttp import web
from github_api import HOOK, TOKEN, FakeGitHub
from prometheus_client import CollectorRegistry

from kapsel_deliverer.github import LONGEST_GUID, PAGE
from kapsel_deliverer.healing import MOST, Healer, key
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.names import SystemResolver
from kapsel_store import configuration, healings
from kapsel_store.rows import Configuration, GapHealing, Idempotency, RelayRow, Verification

PERIOD = timedelta(minutes=10)


@pytest.fixture
async def github() -> AsyncIterator[FakeGitHub]:
    fake = FakeGitHub()
    runner = web.ServerRunner(web.Server(fake.handle))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    fake.url = f"http://127.0.0.1:{port}"
    yield fake
    await runner.cleanup()


class Looking:
    """A healer on the real database, for one endpoint."""

    def __init__(self, database, shop, github: FakeGitHub, kit) -> None:
        self._database = database
        self.shop = shop
        self._github = github
        self._kit = kit
        self.registry = CollectorRegistry()
        self.metrics = DelivererMetrics(self.registry)

    async def start(self, *, token: bytes = TOKEN, relay: RelayRow | None = None, suspend: bool = False) -> None:
        healing = GapHealing(hook=HOOK, api_url=self._github.url, period=PERIOD)
        self.row = replace(
            self.shop.endpoint,
            verification=Verification(
                scheme="github", key_name="literal/github", token_key_name="bearer/token", gap_healing=healing
            ),
            idempotency=Idempotency(source="Provider", window=timedelta(hours=72)),
            suspend=suspend,
        )
        self.shop.endpoint = self.row
        self.shop.keys.append(self._kit.hmac_key("bearer/token", secret=token))
        await self.shop.apply()
        self.pool = await self._database.pool("deliverer", size=2)
        self.healer = self.another()
        desired = Configuration(relay=relay or self.shop.relay, endpoints=(self.row,), keys=tuple(self.shop.keys))
        self.healer.configure(desired)
        self._desired = desired

    def another(self) -> Healer:
        healer = Healer(self.pool, SystemResolver(self.metrics), ssl.create_default_context(), self.metrics, pace=0)
        if hasattr(self, "_desired"):
            healer.configure(self._desired)
        return healer

    async def look(self) -> healings.Healing | None:
        await self.healer.turn(asyncio.Event())
        return await self.last()

    async def last(self) -> healings.Healing | None:
        async with self.shop.pool.acquire() as connection:
            return (await healings.all_of(connection)).get(self.row.id)

    async def pass_time(self) -> None:
        """Let the period be over."""
        async with self.shop.pool.acquire() as connection:
            await connection.execute("UPDATE gap_healings SET next_at = now()")

    async def next_in(self) -> timedelta:
        async with self.shop.pool.acquire() as connection:
            found = await connection.fetchval("SELECT next_at - now() FROM gap_healings")
        assert isinstance(found, timedelta)
        return found


@pytest.fixture
async def looking(database, shop, github: FakeGitHub, kit) -> Looking:
    return Looking(database, shop, github, kit)


def sent(guid: str = "a") -> dict[str, object]:
    return {"id": 1, "guid": guid, "delivered_at": datetime.now(UTC).isoformat(), "status_code": 500}


HOUR = timedelta(hours=1)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


async def test_what_failed_and_is_not_here_is_asked_for_again_over_all_pages(looking: Looking, github) -> None:
    await looking.start()
    wanted = [github.deliver(f"missing-{number}", 503, HOUR * (number + 1)) for number in range(5)]
    github.deliver("fine", 202, HOUR)
    github.deliver("healed-before", 500, HOUR * 3)
    github.deliver("healed-before", 202, HOUR * 2)
    last = await looking.look()
    assert last is not None
    assert sorted(github.redelivered) == sorted(wanted)
    assert github.redelivered[0] == wanted[-1]  # the oldest first
    assert (last.reason, last.missing, last.requested) == ("Healing", 5, 5)
    assert sum(one.startswith("GET") for one in github.asked) == 4
    assert f"GET {HOOK}/deliveries?per_page=100" in github.asked
    assert looking.registry.get_sample_value("github_gap_redeliveries_total", {"endpoint": "shop/orders"}) == 5
    assert looking.registry.get_sample_value("github_gap_missing_events", {"endpoint": "shop/orders"}) == 5
    looks = {"endpoint": "shop/orders", "result": "Healing"}
    assert looking.registry.get_sample_value("github_gap_looks_total", looks) == 1


async def test_a_page_that_arrives_in_pieces_is_read_to_its_end(looking: Looking, github) -> None:
    await looking.start()
    github.pieces = 4
    wanted = [github.deliver(f"missing-{number}", 503, HOUR * (number + 1)) for number in range(3)]
    last = await looking.look()
    assert last is not None
    assert (last.reason, sorted(github.redelivered)) == ("Healing", sorted(wanted))


async def test_an_event_that_is_here_is_not_asked_for_though_github_thinks_it_failed(looking: Looking, github) -> None:
    await looking.start()
    github.deliver("stored", 504, HOUR)
    await looking.shop.put(idempotency_key=key("stored"), idempotency_window=timedelta(hours=72))
    last = await looking.look()
    assert last is not None
    assert (last.reason, last.missing, github.redelivered) == ("Healed", 0, [])


async def test_what_is_older_than_three_days_is_left_and_not_listed_further(looking: Looking, github) -> None:
    await looking.start()
    github.deliver("recent", 503, HOUR)
    for number in range(7):
        github.deliver(f"old-{number}", 503, timedelta(days=4))
    await looking.look()
    assert len(github.redelivered) == 1
    assert sum(one.startswith("GET") for one in github.asked) == 1


async def test_once_in_a_period_and_by_one_deliverer(looking: Looking, github) -> None:
    await looking.start()
    github.deliver("a", 503, HOUR)
    others = [looking.another() for _ in range(3)]
    await asyncio.gather(looking.look(), *(other.turn(asyncio.Event()) for other in others))
    assert len(github.redelivered) == 1
    await looking.look()
    assert sum(one.startswith("GET") for one in github.asked) == 1
    await looking.pass_time()
    await looking.look()
    assert sum(one.startswith("GET") for one in github.asked) == 2


async def test_a_look_asks_for_so_many_and_not_more(looking: Looking, github) -> None:
    await looking.start()
    github.page = 100
    for number in range(MOST + 5):
        github.deliver(f"missing-{number}", 503, HOUR)
    last = await looking.look()
    assert last is not None
    assert (len(github.redelivered), last.missing) == (MOST, MOST + 5)


async def test_one_that_github_does_not_send_again_keeps_back_no_other(looking: Looking, github) -> None:
    await looking.start()
    github.refuses.add(github.deliver("a", 503, HOUR * 2))
    other = github.deliver("b", 503, HOUR)
    last = await looking.look()
    assert last is not None
    assert github.redelivered == [other]
    assert (last.reason, last.missing, last.requested) == ("Healing", 2, 1)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda: web.json_response({"message": "Bad credentials"}, status=401), "TokenRefused"),
        (lambda: web.json_response({"message": "Resource not accessible"}, status=403), "TokenRefused"),
        (lambda: web.json_response({"message": "Not Found"}, status=404), "HookNotFound"),
        (lambda: web.json_response({"message": "x"}, status=502), "GitHubUnavailable"),
        (lambda: web.Response(status=302, headers={"Location": "http://127.0.0.1:1/"}), "GitHubUnavailable"),
        (lambda: web.Response(text="<html>"), "GitHubUnavailable"),
        (lambda: web.json_response([{"id": "x"}]), "GitHubUnavailable"),
        (lambda: web.json_response({"id": 1}), "GitHubUnavailable"),
        (lambda: web.json_response([sent()] * (PAGE + 1)), "GitHubUnavailable"),
        (lambda: web.json_response([sent(guid="g" * (LONGEST_GUID + 1))]), "GitHubUnavailable"),
    ],
)
async def test_what_github_refuses_is_told_and_looked_at_again_later(looking: Looking, github, answer, reason) -> None:
    await looking.start()
    github.deliver("a", 503, HOUR)
    github.answers.append(answer())
    last = await looking.look()
    assert last is not None
    assert (last.reason, github.redelivered) == (reason, [])
    await looking.pass_time()
    last = await looking.look()
    assert last is not None
    assert (last.reason, len(github.redelivered)) == ("Healing", 1)


@pytest.mark.parametrize(
    "answer",
    [
        lambda: web.json_response(
            [{"id": 1, "guid": "\ud800", "delivered_at": "2026-01-01T00:00:00Z", "status_code": 500}]
        ),
        lambda: web.Response(text="[" * 200_000),
        lambda: web.json_response([], headers={"X-RateLimit-Remaining": "1" * 5000}),
    ],
    ids=["lone-surrogate", "deep", "huge-limit"],
)
async def test_what_nobody_foresaw_of_one_hook_is_told_and_keeps_back_no_other(
    looking: Looking, github, database, answer
) -> None:
    await looking.start()
    other = replace(looking.row, id=uuid4(), name="others", suspend=False)
    desired = Configuration(relay=looking.shop.relay, endpoints=(looking.row, other), keys=tuple(looking.shop.keys))
    async with looking.shop.pool.acquire() as connection:
        await configuration.apply(connection, database.sealing, desired, actor="test")
    resolver = SystemResolver(looking.metrics)
    looking.healer = Healer(
        looking.pool, resolver, ssl.create_default_context(), looking.metrics, now=lambda: NOON, pace=0
    )
    looking.healer.configure(desired)
    github.answers.append(answer())
    first = await looking.look()
    assert first is not None
    assert first.reason == "GitHubUnavailable"
    assert first.message.startswith("the look failed: ")
    assert looking.registry.get_sample_value("deliverer_errors_total", {"where": "healing"}) == 1
    async with looking.shop.pool.acquire() as connection:
        assert (await healings.all_of(connection))[other.id].reason == "Healed"


@pytest.fixture
async def hanging() -> AsyncIterator[str]:
    """A server that takes every request and answers none."""
    never = asyncio.Event()

    async def wait(_: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    runner = web.ServerRunner(web.Server(wait), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_server_that_hangs_keeps_the_hooks_of_its_own_namespace_back_and_no_others(
    looking: Looking, github, database, kit, hanging: str
) -> None:
    await looking.start()
    hung = replace(looking.row.verification, gap_healing=GapHealing(hook=HOOK, api_url=hanging, period=PERIOD))
    theirs = [
        replace(looking.row, id=uuid4(), namespace="a-stranger", name=f"hook-{number}", verification=hung)
        for number in range(3)
    ]
    token = replace(looking.shop.keys[-1], id=uuid4(), namespace="a-stranger")
    desired = Configuration(
        relay=looking.shop.relay, endpoints=(*theirs, looking.row), keys=(*looking.shop.keys, token)
    )
    async with looking.shop.pool.acquire() as connection:
        await configuration.apply(connection, database.sealing, desired, actor="test")
    github.deliver("missing", 503, HOUR)
    looking.healer.configure(desired)
    stopping = asyncio.Event()
    turn = asyncio.create_task(looking.healer.turn(stopping))
    try:
        await kit.eventually(looking.last, "a look at the hook of the other namespace")
        assert not turn.done()
        assert len(github.redelivered) == 1
    finally:
        turn.cancel()
        await asyncio.wait([turn])


async def test_a_look_has_its_time_and_so_have_all_of_a_namespace(looking: Looking, database, hanging: str) -> None:
    await looking.start()
    hung = replace(looking.row.verification, gap_healing=GapHealing(hook=HOOK, api_url=hanging, period=PERIOD))
    rows = tuple(replace(looking.row, id=uuid4(), name=f"hook-{number}", verification=hung) for number in range(3))
    desired = Configuration(relay=looking.shop.relay, endpoints=rows, keys=tuple(looking.shop.keys))
    async with looking.shop.pool.acquire() as connection:
        await configuration.apply(connection, database.sealing, desired, actor="test")
    resolver, context = SystemResolver(looking.metrics), ssl.create_default_context()
    healer = Healer(looking.pool, resolver, context, looking.metrics, look=0.2)
    healer.configure(desired)
    await healer.turn(asyncio.Event())
    async with looking.shop.pool.acquire() as connection:
        [last] = (await healings.all_of(connection)).values()
    assert (last.reason, last.message) == ("GitHubUnavailable", "the look took too long, and was broken off")


async def test_a_limit_is_waited_for_as_long_as_github_says(looking: Looking, github) -> None:
    await looking.start()
    headers = {"Retry-After": "7200"}
    github.answers.append(web.json_response({"message": "slow down"}, status=429, headers=headers))
    last = await looking.look()
    assert last is not None
    assert last.reason == "RateLimited"
    assert await looking.next_in() > timedelta(hours=1)


async def test_the_last_requests_of_a_token_are_left_to_others(looking: Looking, github) -> None:
    await looking.start()
    for number in range(3):
        github.deliver(f"missing-{number}", 503, HOUR)
    github.remaining = 51
    last = await looking.look()
    assert last is not None
    assert (last.reason, github.redelivered) == ("RateLimited", [])
    assert await looking.next_in() > PERIOD


async def test_without_a_token_or_against_the_egress_policy_nothing_is_sent(looking: Looking, github) -> None:
    await looking.start(token=b"not a\ntoken")
    last = await looking.look()
    assert last is not None
    assert (last.reason, github.asked) == ("NoToken", [])


async def test_the_egress_policy_holds_for_github_too(looking: Looking, github) -> None:
    await looking.start(relay=RelayRow(allow_http=True))
    last = await looking.look()
    assert last is not None
    assert (last.reason, github.asked) == ("EgressDenied", [])


async def test_a_suspended_endpoint_is_not_healed(looking: Looking, github) -> None:
    await looking.start(suspend=True)
    github.deliver("a", 503, HOUR)
    assert await looking.look() is None
    assert github.asked == []


async def test_what_is_declared_no_more_has_no_last_look(looking: Looking, github, database) -> None:
    await looking.start()
    await looking.look()
    assert await looking.last() is not None
    async with looking.shop.pool.acquire() as connection:
        await configuration.apply(connection, database.sealing, Configuration(), actor="test")
    assert await looking.last() is None
