"""Errands: fetched over TLS from where they are asked for, by the egress rules, and never twice if once is enough."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from prometheus_client import CollectorRegistry

from kapsel_deliverer.errands import LARGEST, MOST_TRIES, Runner
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_store import errands
from kapsel_store.errands import Ended
from kapsel_store.rows import Configuration, RelayRow

HOST = "sns.us-west-2.amazonaws.com"
URL = f"https://{HOST}/SimpleNotificationService-1.pem"
HERE = RelayRow(allowed_cidrs=("127.0.0.0/8",))


def contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext, bytes]:
    """Return a server's context for the host of SNS, a client's that trusts it, and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    public = made.public_bytes(serialization.Encoding.PEM)
    return server, ssl.create_default_context(cadata=public.decode()), public


class Elsewhere(AbstractResolver):
    """Resolves every name to one port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host="127.0.0.1", port=self._port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class World:
    """A server under the name of SNS, and a runner that goes there."""

    pem: bytes
    answer: Callable[[], web.Response] | None = None  # instead of the certificate
    pieces: int = 1  # that the certificate is sent in
    asked: list[str] = field(default_factory=list)
    runner: Any = None
    pool: Any = None
    owner: Any = None

    async def send(self, request: web.BaseRequest) -> web.StreamResponse:
        """Send the certificate so that its pieces arrive one by one."""
        answer = web.StreamResponse()
        await answer.prepare(request)
        size = -(-len(self.pem) // self.pieces)
        for start in range(0, len(self.pem), size):
            await answer.write(self.pem[start : start + size])
            await asyncio.sleep(0.05)
        await answer.write_eof()
        return answer

    async def ask(self, url: str = URL, kind: errands.Kind = "certificate") -> None:
        async with self.owner.acquire() as connection:
            await errands.ask(connection, url, kind)

    async def find(self, url: str = URL) -> Ended | None:
        async with self.owner.acquire() as connection:
            return await errands.find(connection, url)

    async def execute(self, sql: str) -> None:
        async with self.owner.acquire() as connection:
            await connection.execute(sql)


@pytest.fixture
async def world(database: Any, tmp_path: Path) -> AsyncIterator[World]:
    server, client, pem = contexts(tmp_path)
    made = World(pem=pem)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        made.asked.append(request.path_qs)
        return made.answer() if made.answer is not None else await made.send(request)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server).start()
    made.pool, made.owner = await database.pool("deliverer", size=2), await database.pool()
    metrics = DelivererMetrics(CollectorRegistry())
    made.runner = Runner(made.pool, Elsewhere(runner.addresses[0][1]), client, metrics)
    made.runner.configure(Configuration(relay=HERE))
    yield made
    await runner.cleanup()


async def test_what_is_asked_for_is_fetched_once_and_kept(world: World) -> None:
    await world.ask()
    await world.ask()
    assert await world.find() is None
    assert await world.runner.turn()
    assert not await world.runner.turn()
    assert await world.find() == Ended(answer=world.pem, failure=None)
    await world.execute("UPDATE errands SET done_at = now() - interval '100 days'")
    await world.ask()
    assert not await world.runner.turn()
    assert world.asked == ["/SimpleNotificationService-1.pem"]


async def test_a_certificate_that_arrives_in_pieces_is_kept_whole(world: World) -> None:
    world.pieces = 3
    await world.ask()
    await world.runner.turn()
    assert await world.find() == Ended(answer=world.pem, failure=None)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (lambda pem: b"<html>", "refused: the answer is no certificate"),
        (lambda pem: b"", "refused: the answer is no certificate"),
        (lambda pem: pem[: len(pem) // 2], "refused: the answer is no certificate"),
        (lambda pem: pem + b" " * LARGEST, "refused: the answer is longer than 65536 bytes"),
    ],
    ids=["page", "nothing", "half", "too-long"],
)
async def test_what_is_no_certificate_is_not_kept_as_one(
    world: World, answer: Callable[[bytes], bytes], failure: str
) -> None:
    world.answer = lambda: web.Response(body=answer(world.pem))
    await world.ask()
    await world.runner.turn()
    assert await world.find() == Ended(answer=None, failure=failure)


async def test_a_confirmation_is_visited_with_its_query_and_forgotten_after_a_day(world: World) -> None:
    url = f"https://{HOST}/?Action=ConfirmSubscription&Token=abc"
    await world.ask(url, "confirmation")
    assert await world.runner.turn()
    assert world.asked == ["/?Action=ConfirmSubscription&Token=abc"]
    await world.execute("UPDATE errands SET done_at = now() - interval '2 days'")
    assert not await world.runner.turn()
    assert await world.find(url) is None


async def test_what_is_not_there_is_told_and_asked_for_anew_a_minute_later(world: World) -> None:
    world.answer = lambda: web.Response(status=404)
    await world.ask()
    await world.runner.turn()
    assert await world.find() == Ended(answer=None, failure="refused with 404")
    await world.execute("UPDATE errands SET done_at = now() - interval '2 minutes'")
    await world.runner.turn()
    assert await world.find() is None
    world.answer = None
    await world.ask()
    await world.runner.turn()
    assert await world.find() == Ended(answer=world.pem, failure=None)


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_fault_of_the_other_side_is_tried_again_so_many_times(world: World, status: int) -> None:
    world.answer = lambda: web.Response(status=status)
    await world.ask()
    for _ in range(MOST_TRIES):
        assert await world.find() is None
        assert await world.runner.turn()
        assert not await world.runner.turn()
        await world.execute("UPDATE errands SET next_at = now() WHERE done_at IS NULL")
    ended = await world.find()
    assert ended is not None
    assert (ended.answer, len(world.asked)) == (None, MOST_TRIES)


async def test_no_redirect_is_followed(world: World) -> None:
    world.answer = lambda: web.Response(status=302, headers={"Location": "https://127.0.0.1/"})
    await world.ask()
    await world.runner.turn()
    assert len(world.asked) == 1
    assert await world.find() is None


async def test_an_address_that_the_egress_rules_deny_is_not_called(world: World) -> None:
    world.runner.configure(Configuration(relay=RelayRow()))
    await world.ask()
    await world.runner.turn()
    assert world.asked == []


async def test_a_server_that_is_not_the_one_it_says_to_be_is_not_believed(world: World) -> None:
    url = "https://sns.eu-west-1.amazonaws.com/SimpleNotificationService-1.pem"
    await world.ask(url)
    await world.runner.turn()
    assert world.asked == []
    assert await world.find(url) is None


async def test_strangers_cannot_ask_for_more_than_so_much(world: World) -> None:
    for number in range(errands.MOST_OPEN + 5):
        await world.ask(f"https://{HOST}/SimpleNotificationService-{number}.pem")
    async with world.owner.acquire() as connection:
        assert await connection.fetchval("SELECT count(*) FROM errands") == errands.MOST_OPEN


async def test_a_confirmation_is_taken_though_strangers_ask_for_all_they_can_and_before_it(world: World) -> None:
    for number in range(errands.MOST_OPEN):
        await world.ask(f"https://{HOST}/SimpleNotificationService-{number}.pem")
    await world.ask(f"https://{HOST}/?Action=ConfirmSubscription&Token=abc", "confirmation")
    assert await world.runner.turn()
    assert world.asked == ["/?Action=ConfirmSubscription&Token=abc"]
