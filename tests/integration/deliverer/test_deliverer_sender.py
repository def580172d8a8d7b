"""The sender over a real server and a resolver that answers what a test says."""

import asyncio
import base64
import hashlib
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit
from uuid import uuid4

import claims
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_reqrep import ClientRequest
from prometheus_client import CollectorRegistry
from yarl import URL

from kapsel_deliverer.acknowledging import DIRECTORY_PATH, Directory
from kapsel_deliverer.contexts import trusted
from kapsel_deliverer.exchange import request_lines
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.outcome import Delivered
from kapsel_deliverer.sender import Sender, Try
from kapsel_deliverer.targets import Targets
from kapsel_egress.verdicts import Denied
from kapsel_store.rows import (
    Acknowledgement,
    Claimed,
    Configuration,
    DestinationRow,
    EndpointRow,
    RelayRow,
    Verification,
)


class Names(AbstractResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing to close."""


def delivery(endpoint: EndpointRow, destination: DestinationRow) -> Claimed:
    body = b"hello"
    return claims.claimed(
        endpoint_id=endpoint.id, destination_id=destination.id, body=body, body_hash=hashlib.sha256(body).digest()
    )


async def send(sender: Sender, url: str, relay: RelayRow, kit) -> Try:
    endpoint = EndpointRow(id=uuid4(), namespace="shop", name="orders", verification=Verification(scheme="none"))
    destination = DestinationRow(id=uuid4(), endpoint_id=endpoint.id, name="d", url=url)
    targets = Targets(DelivererMetrics(CollectorRegistry()))
    targets.use(
        Configuration(
            relay=relay, endpoints=(endpoint,), destinations=(destination,), keys=(kit.hmac_key("endpoint/orders"),)
        )
    )
    sender.use(relay, targets.directories())
    target = targets.get(destination.id)
    assert target is not None
    return await sender.send(target, delivery(endpoint, destination), datetime.now(UTC), None)


async def test_a_name_is_judged_by_what_it_resolves_to_and_pooled_connections_do_not_outlive_a_policy(
    destination, kit
) -> None:
    url = f"http://public.example:{urlsplit(destination.url).port}/"
    strict = RelayRow(allow_http=True)
    async with Sender(Names(), trusted(None)) as sender:
        denied = await send(sender, url, strict, kit)
        assert isinstance(denied.outcome, Denied)
        assert denied.outcome.reason == "address_denied"
        assert destination.received == []
        assert isinstance((await send(sender, url, kit.LOOPBACK, kit)).outcome, Delivered)
        assert isinstance((await send(sender, url, strict, kit)).outcome, Denied)
    assert len(destination.received) == 1


class Elsewhere(Names):
    """Every name is this machine, and the one of the keys an address that nobody allowed."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        return [{**result, "host": "127.0.0.2"} for result in found] if host == "keys.example" else found


async def test_keys_are_fetched_by_the_rules_of_deliveries(destination, kit) -> None:
    async def signing(_: web.BaseRequest) -> web.StreamResponse:
        covered = '("@status" "content-digest" "webhook-id";req "content-digest";req)'
        digest = base64.b64encode(hashlib.sha256(b"thanks").digest()).decode()
        headers = {
            "Content-Digest": f"sha-256=:{digest}:",
            "Signature-Input": f'a={covered};created={int(time.time())};tag="kapsel-ack"',
            "Signature": f"a=:{base64.b64encode(bytes(64)).decode()}:",
        }
        return web.Response(text="thanks", headers=headers)

    destination.answer = signing
    port = urlsplit(destination.url).port
    endpoint = EndpointRow(id=uuid4(), namespace="shop", name="orders", verification=Verification(scheme="none"))
    row = DestinationRow(
        id=uuid4(),
        endpoint_id=endpoint.id,
        name="d",
        url=f"http://public.example:{port}/",
        acknowledgement=Acknowledgement(),
    )
    relay = RelayRow(allowed_cidrs=("127.0.0.1/32",), allow_http=True)
    targets = Targets(DelivererMetrics(CollectorRegistry()))
    keys = (kit.hmac_key("endpoint/orders"),)
    targets.use(Configuration(relay=relay, endpoints=(endpoint,), destinations=(row,), keys=keys))
    target = targets.get(row.id)
    assert target is not None
    assert target.asked is not None
    assert targets.directories() == {f"http://public.example:{port}{DIRECTORY_PATH}"}
    url = URL(f"http://keys.example:{port}{DIRECTORY_PATH}")
    request = ClientRequest("GET", url, loop=asyncio.get_running_loop())
    inside = Directory(url=str(url), head=request_lines(url, {}, "GET") + b"\r\n", request=request)
    async with Sender(Elsewhere(), trusted(None)) as sender:
        sender.use(relay, [])
        denied = replace(target, asked=replace(target.asked, directory=inside))
        tried = await sender.send(denied, delivery(endpoint, row), datetime.now(UTC), None)
        assert isinstance(tried.outcome, Delivered)
        assert tried.judged is not None
        assert (tried.judged.result, tried.judged.detail) == ("no_key", f"no keys from {url}: address_denied")
        allowed = await sender.send(target, delivery(endpoint, row), datetime.now(UTC), None)
        assert allowed.judged is not None
        assert "not JSON" in allowed.judged.detail
    assert len(destination.received) == 3  # two deliveries, and one look for keys where that is allowed
