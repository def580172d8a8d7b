"""The sender over a real server and a resolver that answers what a test says."""

import hashlib
import socket
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit
from uuid import uuid4

from aiohttp.abc import AbstractResolver, ResolveResult
from prometheus_client import CollectorRegistry

from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.outcome import Delivered, Denied
from kapsel_deliverer.sender import Sender, Try, trusted
from kapsel_deliverer.targets import Targets
from kapsel_store.rows import Claimed, Configuration, DestinationRow, EndpointRow, RelayRow, Verification


class Names(AbstractResolver):
    """Every name is this machine."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing to close."""


def delivery(endpoint: EndpointRow, destination: DestinationRow) -> Claimed:
    now = datetime.now(UTC)
    return Claimed(
        id=uuid4(),
        event_id=uuid4(),
        endpoint_id=endpoint.id,
        destination_id=destination.id,
        number=1,
        created_at=now,
        expires_at=now + timedelta(hours=1),
        received_at=now,
        content_type="text/plain",
        headers="[]",
        body=b"hello",
        body_hash=hashlib.sha256(b"hello").digest(),
        salt=None,
        correlation_id=None,
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
