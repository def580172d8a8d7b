"""The sender through real TLS, a real token server, a real proxy and real DNS messages, by the rows of a plan."""

import asyncio
import base64
import json
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import aiohttp
import claims
import pytest
import uvloop
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from forward import Forward
from prometheus_client import CollectorRegistry

from kapsel_deliverer import proxy
from kapsel_deliverer.contexts import trusted
from kapsel_deliverer.errands import Runner
from kapsel_deliverer.exchange import BODY_KEPT
from kapsel_deliverer.healing import Healer
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.outcome import Delivered, Refused, TimedOut, Unreachable, Unsent, UnsentReason
from kapsel_deliverer.retry import is_retried
from kapsel_deliverer.sender import Sender, Try
from kapsel_deliverer.targets import Targets
from kapsel_egress.verdicts import Denied
from kapsel_store import errands, healings
from kapsel_store.rows import (
    Configuration,
    DestinationRow,
    EndpointRow,
    GapHealing,
    Idempotency,
    KeyRow,
    OAuth2,
    Policy,
    Proxy,
    RelayRow,
    Tls,
    Verification,
)

ENDPOINT = EndpointRow(id=uuid4(), namespace="shop", name="orders", verification=Verification(scheme="none"))
LOCAL = RelayRow(namespace="shop", allowed_cidrs=("127.0.0.1/32",), allow_http=True)
SECRET = b"correct-horse-battery-staple"


class Names(AbstractResolver):
    """Every name is this machine, except those that a test gives other addresses."""

    def __init__(self, **others: str) -> None:
        self._others = others

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        address = self._others.get(host.replace(".", "_"), "127.0.0.1")
        return [ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing to close."""


def key(name: str, secret: bytes, namespace: str = "shop") -> KeyRow:
    return KeyRow(
        id=uuid4(),
        namespace=namespace,
        name=name,
        version=1,
        algorithm="HMAC-SHA256",
        secret=secret,
        not_before=datetime(2020, 1, 1, tzinfo=UTC),
    )


SIGNING = key("endpoint/orders", b"k" * 32)


@dataclass
class Way:
    """A sender with one destination, as a configuration makes them."""

    sender: Sender
    row: DestinationRow
    keys: list[KeyRow]
    relay: RelayRow = LOCAL
    targets: Targets = field(default_factory=lambda: Targets(DelivererMetrics(CollectorRegistry())))

    def use(self) -> None:
        configuration = Configuration(
            relay=self.relay, endpoints=(ENDPOINT,), destinations=(self.row,), keys=(SIGNING, *self.keys)
        )
        self.targets.use(configuration)
        self.sender.use(
            self.relay,
            self.targets.directories(),
            proxy=proxy.declared(configuration),
            clients=self.targets.clients(),
        )

    async def send(self, total: float = 60, connect: float | None = None) -> Try:
        found = self.targets.get(self.row.id)
        assert found is not None
        # A busy machine is no part of these tests.
        target = replace(found, timeout=aiohttp.ClientTimeout(total=total, connect=connect))
        now = datetime.now(UTC)
        delivery = claims.claimed(endpoint_id=ENDPOINT.id, destination_id=self.row.id, body=b"hello")
        return await self.sender.send(target, delivery, now, None)


@asynccontextmanager
async def way(
    url: str,
    *keys: KeyRow,
    relay: RelayRow = LOCAL,
    resolver: AbstractResolver | None = None,
    context: ssl.SSLContext | None = None,
    **declared: object,
) -> AsyncIterator[Way]:
    row = DestinationRow(
        id=uuid4(), endpoint_id=ENDPOINT.id, name="d", url=url, timeout=timedelta(seconds=60), **declared
    )
    async with Sender(resolver or Names(), context or trusted(None)) as sender:
        made = Way(sender, row, list(keys), relay)
        made.use()
        yield made


@asynccontextmanager
async def serving(kit, *, client_authority: str | None = None, newest: ssl.TLSVersion | None = None):
    """A destination at https://private.example, whose authority nobody knows unless it is declared."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit.TLS / "private-server.pem")
    if client_authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(kit.TLS / client_authority)
    if newest is not None:
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = newest
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    made = kit.Destination()
    runner = await made.start(context)
    made.url = made.url.replace("127.0.0.1", "private.example")
    try:
        yield made
    finally:
        await runner.cleanup()


def pem(kit, name: str) -> bytes:
    return (kit.TLS / name).read_bytes()


# Certificates


async def test_a_private_authority_is_trusted_where_it_is_declared_and_nowhere_else(kit) -> None:
    async with serving(kit) as private:
        async with way(private.url) as plain:
            assert (await plain.send()).outcome == Unreachable(reason="certificate")
        own = key("ca/s/ca.crt", pem(kit, "private-ca.pem"))
        async with way(private.url, own, tls=Tls(ca_name="ca/s/ca.crt")) as declared:
            assert (await declared.send()).outcome == Delivered(status=200)
        other = key("ca/s/ca.crt", pem(kit, "clients-ca.pem"))
        async with way(private.url, other, tls=Tls(ca_name="ca/s/ca.crt")) as declared:
            assert (await declared.send()).outcome == Unreachable(reason="certificate")


async def test_what_is_wrong_with_a_certificate_or_a_handshake_stands_in_the_attempt(kit, destination) -> None:
    own = key("ca/s/ca.crt", pem(kit, "private-ca.pem"))
    async with serving(kit) as private:
        async with way(private.url) as plain:
            assert (await plain.send()).detail == "unable to get local issuer certificate"
        elsewhere = private.url.replace("private.example", "other.example")
        async with way(elsewhere, own, tls=Tls(ca_name="ca/s/ca.crt")) as declared:
            said = (await declared.send()).detail
            assert said == "Hostname mismatch, certificate is not valid for 'other.example'."
    async with way(destination.url.replace("http:", "https:")) as no_tls:
        tried = await no_tls.send()
        assert tried.outcome == Unreachable(reason="tls")
        assert tried.detail in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")  # by the version of OpenSSL


async def test_a_declared_authority_still_must_have_certified_the_name_that_is_called(kit) -> None:
    async with serving(kit) as private:
        url = private.url.replace("private.example", "other.example")
        own = key("ca/s/ca.crt", pem(kit, "private-ca.pem"))
        async with way(url, own, tls=Tls(ca_name="ca/s/ca.crt")) as declared:
            assert (await declared.send()).outcome == Unreachable(reason="certificate")


async def test_a_destination_that_wants_a_client_certificate_gets_the_declared_one(kit) -> None:
    own, mine = key("ca/s/ca.crt", pem(kit, "private-ca.pem")), key("certificate/c", pem(kit, "client.pem"))
    tls = Tls(ca_name="ca/s/ca.crt", certificate_name="certificate/c")
    async with serving(kit, client_authority="clients-ca.pem") as private:
        async with way(private.url, own, mine, tls=tls) as declared:
            assert (await declared.send()).outcome == Delivered(status=200)
        async with way(private.url, own, tls=replace(tls, certificate_name=None)) as without:
            assert isinstance((await without.send()).outcome, Unreachable)
        async with way(private.url, own, key("certificate/c", pem(kit, "stranger.pem")), tls=tls) as stranger:
            assert isinstance((await stranger.send()).outcome, Unreachable)
        assert len(private.received) == 1


async def test_a_certificate_that_changed_in_its_secret_is_used_from_the_next_try_on(kit) -> None:
    own, stranger = key("ca/s/ca.crt", pem(kit, "private-ca.pem")), key("certificate/c", pem(kit, "stranger.pem"))
    tls = Tls(ca_name="ca/s/ca.crt", certificate_name="certificate/c")
    async with (
        serving(kit, client_authority="clients-ca.pem") as private,
        way(private.url, own, stranger, tls=tls) as changing,
    ):
        assert isinstance((await changing.send()).outcome, Unreachable)
        changing.keys[1] = key("certificate/c", pem(kit, "client.pem"))
        changing.use()
        assert (await changing.send()).outcome == Delivered(status=200)
        changing.use()  # nothing changed, and nothing is forgotten
        assert (await changing.send()).outcome == Delivered(status=200)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("newest", "least", "spoken"),
    [
        (ssl.TLSVersion.TLSv1_1, "1.2", False),
        (ssl.TLSVersion.TLSv1_2, "1.2", True),
        (ssl.TLSVersion.TLSv1_2, "1.3", False),
        (ssl.TLSVersion.TLSv1_3, "1.3", True),
    ],
)
async def test_no_older_tls_is_spoken_than_is_wanted(kit, newest: ssl.TLSVersion, least: str, spoken: bool) -> None:
    own = key("ca/s/ca.crt", pem(kit, "private-ca.pem"))
    async with (
        serving(kit, newest=newest) as private,
        way(private.url, own, tls=Tls(ca_name="ca/s/ca.crt", min_version=least)) as declared,
    ):
        outcome = (await declared.send()).outcome
        assert isinstance(outcome, Delivered if spoken else Unreachable)  # some servers break off without a word
        assert len(private.received) == spoken


def test_nobody_who_declares_nothing_speaks_older_tls_than_1_2() -> None:
    assert trusted(None).minimum_version == ssl.TLSVersion.TLSv1_2


# Headers from Secrets


async def test_a_header_from_a_secret_is_sent_and_an_answer_that_repeats_it_is_not_stored_as_it_came(
    destination,
) -> None:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        sent = request.headers["authorization"]
        filling = "x" * (BODY_KEPT - len(sent) - 10)
        return web.Response(text=f"{sent} {filling}{sent}{sent}", headers={"x-echo": sent})

    destination.answer = echo
    name = "secret/api/header"
    async with way(
        destination.url,
        key(name, b"Bearer " + SECRET),
        headers=(("X-Team", "a"),),
        secret_headers=(("Authorization", name),),
    ) as declared:
        tried = await declared.send()
    [received] = destination.received
    assert (received.headers["authorization"], received.headers["x-team"]) == (f"Bearer {SECRET.decode()}", "a")
    assert tried.response is not None
    assert ["x-echo", "[redacted]"] in json.loads(tried.response.headers)
    assert SECRET.decode() not in tried.response.headers
    assert SECRET not in tried.response.body
    assert SECRET[:8] not in tried.response.body  # nor its beginning, where what is kept ends
    assert tried.response.size > BODY_KEPT


async def test_without_its_secret_nothing_is_sent(destination) -> None:
    async with way(destination.url, secret_headers=(("Authorization", "secret/api/header"),)) as declared:
        tried = await declared.send()
    assert tried.outcome == Unsent(reason="no_credential")
    assert destination.received == []


# Access tokens


class Login:
    """A token server: who may have a token, and which."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], dict[str, list[str]]]] = []
        self.lifetime: object = 3600
        self.answer: Callable[[], web.Response] = self.token

    def token(self) -> web.Response:
        return web.json_response(
            {"access_token": f"token-number-{len(self.asked)}", "token_type": "Bearer", "expires_in": self.lifetime}
        )

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((headers, parse_qs((await request.read()).decode())))
        return self.answer()


@pytest.fixture
async def login() -> AsyncIterator[Login]:
    made = Login()
    runner = web.ServerRunner(web.Server(made.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://login.example:{runner.addresses[0][1]}/token"
    yield made
    await runner.cleanup()


CLIENT = (key("secret/client/id", b"kapsel:1"), key("secret/client/secret", SECRET))


def oauth2(login: Login, **changes: object) -> OAuth2:
    return OAuth2(
        token_url=login.url, client_id_name="secret/client/id", client_secret_name="secret/client/secret", **changes
    )


async def test_a_token_is_asked_for_once_and_sent_with_every_webhook(destination, login: Login) -> None:
    declared = oauth2(login, scopes=("a.write", "b"), audience="https://billing.example")
    async with way(destination.url, *CLIENT, oauth2=declared) as called:
        tries = await asyncio.gather(*(called.send() for _ in range(5)))
    assert {tried.outcome for tried in tries} == {Delivered(status=200)}
    assert {one.headers["authorization"] for one in destination.received} == {"Bearer token-number-1"}
    [(headers, form)] = login.asked
    expected = base64.b64encode(b"kapsel%3A1:" + SECRET).decode()
    assert headers["authorization"] == f"Basic {expected}"
    assert form == {
        "grant_type": ["client_credentials"],
        "scope": ["a.write b"],
        "audience": ["https://billing.example"],
    }


async def test_the_client_may_prove_itself_in_the_form(destination, login: Login) -> None:
    async with way(destination.url, *CLIENT, oauth2=oauth2(login, authentication="Post")) as called:
        assert (await called.send()).outcome == Delivered(status=200)
    [(headers, form)] = login.asked
    assert "authorization" not in headers
    assert (form["client_id"], form["client_secret"]) == (["kapsel:1"], [SECRET.decode()])


async def test_a_refused_token_is_replaced_once_at_the_next_try(destination, login: Login) -> None:
    refused = {"Bearer token-number-1"}

    async def guarded(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=401 if request.headers["authorization"] in refused else 200)

    destination.answer = guarded
    async with way(destination.url, *CLIENT, oauth2=oauth2(login)) as called:
        first = await called.send()
        assert first.outcome == Refused(status=401, token_replaced=True)
        assert is_retried(Policy(), first.outcome)
        assert (await called.send()).outcome == Delivered(status=200)
        assert len(login.asked) == 2
        refused.update({"Bearer token-number-2", "Bearer token-number-3"})
        assert (await called.send()).outcome == Refused(status=401, token_replaced=True)
        last = await called.send()
        assert last.outcome == Refused(status=401)
        assert not is_retried(Policy(), last.outcome)
        assert await called.send() is not None
    assert len(login.asked) == 3


@pytest.mark.parametrize(
    ("status", "text", "reason"),
    [
        (401, "no", "token_refused"),
        (400, '{"error": "invalid_scope"}', "token_refused"),
        (302, "", "token_unavailable"),
        (503, "busy", "token_unavailable"),
        (200, "not json", "token_unavailable"),
        (200, "[]", "token_unavailable"),
        (200, '{"access_token": "a\\r\\nx: y", "token_type": "Bearer"}', "token_unavailable"),
        (200, '{"access_token": "a", "token_type": "mac"}', "token_unavailable"),
        (200, '{"access_token": "a", "token_type": "Bearer", "expires_in": -1}', "token_unavailable"),
        (200, '{"access_token": "' + "a" * 20000 + '", "token_type": "Bearer"}', "token_unavailable"),
    ],
)
async def test_without_a_token_nothing_is_sent_and_the_reason_says_why(
    destination, login: Login, caplog: pytest.LogCaptureFixture, status: int, text: str, reason: str
) -> None:
    caplog.set_level(logging.DEBUG)
    location = "http://169.254.169.254/"
    login.answer = lambda: web.Response(status=status, text=text or SECRET.decode(), headers={"Location": location})
    async with way(destination.url, *CLIENT, oauth2=oauth2(login)) as called:
        assert (await called.send()).outcome == Unsent(reason=reason)
        assert (await called.send()).outcome == Unsent(reason=reason)
    assert len(login.asked) == 1  # after a failure it is left alone for a moment
    assert destination.received == []
    assert SECRET.decode() not in caplog.text


async def test_a_token_may_claim_any_lifetime_and_is_used_for_a_day_at_most(destination, login: Login) -> None:
    endless = '{"access_token": "a", "token_type": "Bearer", "expires_in": ' + "9" * 400 + "}"
    login.answer = lambda: web.Response(text=endless)
    async with way(destination.url, *CLIENT, oauth2=oauth2(login)) as called:
        assert isinstance((await called.send()).outcome, Delivered)
        assert isinstance((await called.send()).outcome, Delivered)
    assert len(login.asked) == 1


async def test_where_tokens_come_from_is_judged_as_a_destination_is(destination, login: Login) -> None:
    literal = oauth2(login)
    denied = replace(literal, token_url="http://127.0.0.2:9/token")
    async with way(destination.url, *CLIENT, oauth2=denied) as called:
        assert (await called.send()).outcome == Unsent(reason="token_denied")
    resolver = Names(login_example="127.0.0.2")
    async with way(destination.url, *CLIENT, oauth2=literal, resolver=resolver) as called:
        assert (await called.send()).outcome == Unsent(reason="token_denied")
    assert (destination.received, login.asked) == ([], [])


async def test_a_new_client_secret_is_asked_with_at_the_next_try(destination, login: Login) -> None:
    async with way(destination.url, *CLIENT, oauth2=oauth2(login)) as called:
        await called.send()
        called.keys[1] = key("secret/client/secret", b"another-secret")
        called.use()
        await called.send()
    assert len({headers["authorization"] for headers, _ in login.asked}) == 2


async def test_a_token_that_a_certificate_has_brought_is_not_sent_for_those_who_do_not_have_it(
    kit, destination
) -> None:
    """Of a client that proves itself by its certificate, its id and what stands for its secret may be known to all."""
    own, mine = key("ca/s/ca.crt", pem(kit, "private-ca.pem")), key("certificate/c", pem(kit, "client.pem"))
    tls = Tls(ca_name="ca/s/ca.crt", certificate_name="certificate/c")
    token = json.dumps({"access_token": "of-the-certificate", "token_type": "Bearer", "expires_in": 3600})
    async with serving(kit, client_authority="clients-ca.pem") as private:
        private.answer = lambda _: asyncio.sleep(0, web.Response(text=token))
        declared = OAuth2(
            token_url=private.url, client_id_name="secret/client/id", client_secret_name="secret/client/secret", tls=tls
        )
        async with way(destination.url, *CLIENT, own, mine, oauth2=declared) as called:
            for row in (called.row, replace(called.row, id=uuid4())):
                called.row = row
                called.use()
                assert (await called.send()).outcome == Delivered(status=200)
            assert len(private.received) == 1
            without = replace(declared, tls=replace(tls, certificate_name=None))
            called.row = replace(called.row, id=uuid4(), oauth2=without)
            called.use()
            assert (await called.send()).outcome == Unsent(reason="token_unavailable")
    assert [one.headers["authorization"] for one in destination.received] == ["Bearer of-the-certificate"] * 2


# Proxies


@pytest.fixture
async def forward() -> AsyncIterator[Forward]:
    async with Forward() as made:
        yield made


def through(forward: Forward, **changes: object) -> RelayRow:
    return replace(LOCAL, proxy=Proxy(url=f"http://proxy.example:{forward.port}", **changes))


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_is_asked_for_the_address_that_was_judged_and_never_for_a_name(
    kit, destination, forward: Forward, scheme: str
) -> None:
    async with serving(kit) as private:
        called = private if scheme == "https" else destination
        url = called.url.replace("127.0.0.1", "private.example")
        own = key("ca/s/ca.crt", pem(kit, "private-ca.pem"))
        async with way(url, own, relay=through(forward), tls=Tls(ca_name="ca/s/ca.crt")) as tunnelled:
            assert (await tunnelled.send()).outcome == Delivered(status=200)
            assert (await tunnelled.send()).outcome == Delivered(status=200)
        port = urlsplit(url).port
        assert forward.asked == [(f"CONNECT 127.0.0.1:{port} HTTP/1.1", {"host": f"127.0.0.1:{port}"})]
        assert {one.headers["host"] for one in called.received} == {f"private.example:{port}"}


def as_localhost(kit) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(kit.TLS / "localhost.pem")
    return context


@pytest.fixture
async def secretive(kit) -> AsyncIterator[Forward]:
    """A proxy that speaks TLS, as localhost, by the authority that the deliverer of the tests trusts."""
    async with Forward(as_localhost(kit)) as made:
        yield made


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_way_to_a_proxy_may_be_tls_and_that_within_it_tls_once_more(
    kit, destination, secretive: Forward, scheme: str
) -> None:
    relay = replace(LOCAL, proxy=Proxy(url=f"https://localhost:{secretive.port}", credentials_name="basic/egress"))
    own, login = key("ca/s/ca.crt", pem(kit, "private-ca.pem")), key("basic/egress", b"me:" + SECRET)
    async with serving(kit) as private:
        called = private if scheme == "https" else destination
        url = called.url.replace("127.0.0.1", "private.example")
        trusts = trusted(kit.TLS / "ca.pem")
        async with way(url, own, login, relay=relay, tls=Tls(ca_name="ca/s/ca.crt"), context=trusts) as tunnelled:
            assert (await tunnelled.send()).outcome == Delivered(status=200)
            assert (await tunnelled.send()).outcome == Delivered(status=200)
        port = urlsplit(url).port
        assert [asked for asked, _ in secretive.asked] == [f"CONNECT 127.0.0.1:{port} HTTP/1.1"]
        assert secretive.asked[0][1]["proxy-authorization"].startswith("basic ")
        assert {one.headers["host"] for one in called.received} == {f"private.example:{port}"}
        assert not any("proxy-authorization" in one.headers for one in called.received)


async def test_a_proxy_that_is_not_who_its_url_says_is_told_nothing(kit, destination, secretive: Forward) -> None:
    trusts = trusted(kit.TLS / "ca.pem")
    for host, context in (("proxy.example", trusts), ("localhost", trusted(None))):
        relay = replace(LOCAL, proxy=Proxy(url=f"https://{host}:{secretive.port}"))
        async with way(destination.url, relay=relay, context=context) as called:
            assert (await called.send()).outcome == Unsent(reason="proxy_unreachable")
    assert secretive.asked == []
    assert destination.received == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_of_a_private_authority_is_trusted_where_that_is_declared(
    kit, destination, secretive: Forward, scheme: str
) -> None:
    url = f"https://localhost:{secretive.port}"
    relay = replace(LOCAL, proxy=Proxy(url=url, ca_name="ca/proxy/ca.crt"))
    vouches, another = (key("ca/proxy/ca.crt", pem(kit, name)) for name in ("ca.pem", "clients-ca.pem"))
    own = key("ca/s/ca.crt", pem(kit, "private-ca.pem"))
    async with serving(kit) as private:
        called = private if scheme == "https" else destination
        where = called.url.replace("127.0.0.1", "private.example")
        async with way(where, own, vouches, relay=relay, tls=Tls(ca_name="ca/s/ca.crt")) as tunnelled:
            assert (await tunnelled.send()).outcome == Delivered(status=200)
            # Another authority in the Secret holds at once, and so does none.
            for keys in ([own, another], [own]):
                tunnelled.keys = keys
                tunnelled.use()
                assert (await tunnelled.send()).outcome == Unsent(reason="proxy_unreachable")
            tunnelled.keys = [own, vouches]
            tunnelled.use()
            assert (await tunnelled.send()).outcome == Delivered(status=200)
        assert len(secretive.asked) == len(called.received) == 2


def test_the_authorities_of_a_proxy_and_of_what_is_behind_it_are_kept_apart(kit) -> None:
    """On the loop that deliverers run on, as the next one."""

    async def called() -> None:
        async with Forward(as_localhost(kit)) as secretive, serving(kit) as private:
            proxied = Proxy(url=f"https://localhost:{secretive.port}", ca_name="ca/proxy/ca.crt")
            relay, vouches = replace(LOCAL, proxy=proxied), key("ca/proxy/ca.crt", pem(kit, "ca.pem"))
            # Those of the proxy vouch for no destination, although it is by the same authority.
            behind = kit.Destination()
            runner = await behind.start(as_localhost(kit))
            url = behind.url.replace("127.0.0.1", "localhost")
            async with way(url, vouches, relay=relay) as stranger:
                assert (await stranger.send()).outcome == Unreachable(reason="certificate")
            assert (len(secretive.asked), behind.received) == (1, [])
            # Nor do those that all destinations may have vouch for a proxy that names its own.
            other = replace(vouches, secret=pem(kit, "private-ca.pem"))
            async with way(private.url, other, relay=relay, context=trusted(kit.TLS / "ca.pem")) as unknown:
                assert (await unknown.send()).outcome == Unsent(reason="proxy_unreachable")
            await runner.cleanup()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(called())


def test_a_destination_behind_a_proxy_in_tls_must_be_who_its_url_says_and_answer_in_time(kit) -> None:
    """On the loop that deliverers run on: that of Python 3.11 stumbles over a handshake that fails within TLS."""

    async def called() -> None:
        trusts, own = trusted(kit.TLS / "ca.pem"), key("ca/s/ca.crt", pem(kit, "private-ca.pem"))
        async with Forward(as_localhost(kit)) as secretive, serving(kit) as private:
            relay = replace(LOCAL, proxy=Proxy(url=f"https://localhost:{secretive.port}"))
            async with way(private.url, relay=relay, context=trusts) as stranger:
                assert (await stranger.send()).outcome == Unreachable(reason="certificate")
            assert private.received == []
            async with way(private.url, own, relay=relay, tls=Tls(ca_name="ca/s/ca.crt"), context=trusts) as known:
                assert (await known.send()).outcome == Delivered(status=200)
                private.answer = hangs
                assert isinstance((await known.send(total=0.5)).outcome, TimedOut)

    async def hangs(_: web.BaseRequest) -> web.StreamResponse:
        return await asyncio.get_running_loop().create_future()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(called())


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("407 Proxy Authentication Required", Unsent(reason="proxy_refused")),
        ("502 Bad Gateway", Unreachable(reason="connect_failed")),
        ("200 OK\r\n\r\nHTTP/1.1 200 OK", Unsent(reason="proxy_unreachable")),
        ("nonsense", Unsent(reason="proxy_unreachable")),
    ],
)
async def test_what_a_proxy_in_tls_does_is_not_taken_for_the_destinations_answer(
    kit, destination, secretive: Forward, answer: str, outcome: object
) -> None:
    secretive.answer = answer
    relay = replace(LOCAL, proxy=Proxy(url=f"https://localhost:{secretive.port}"))
    async with way(destination.url, relay=relay, context=trusted(kit.TLS / "ca.pem")) as called:
        assert (await called.send()).outcome == outcome
    assert destination.received == []


async def test_behind_a_proxy_names_and_addresses_are_judged_as_without_one(destination, forward: Forward) -> None:
    url = destination.url.replace("127.0.0.1", "inside.example")
    resolver = Names(inside_example="127.0.0.2")
    async with way(url, relay=through(forward), resolver=resolver) as called:
        assert isinstance((await called.send()).outcome, Denied)
    for host in ("127.0.0.2", "0x7f.2", "169.254.169.254", "[::ffff:7f00:1]"):
        async with way(f"http://{host}/", relay=through(forward)) as called:
            assert isinstance((await called.send()).outcome, Denied)
    assert forward.asked == []


async def test_an_errand_goes_through_the_proxy(kit, database, forward: Forward) -> None:
    async with serving(kit) as private:
        pool = await database.pool("deliverer", size=2)
        context = ssl.create_default_context(cafile=kit.TLS / "private-ca.pem")
        runner = Runner(pool, Names(), context, DelivererMetrics(CollectorRegistry()))
        runner.configure(Configuration(relay=through(forward)))
        async with (await database.pool()).acquire() as connection:
            await errands.ask(connection, private.url, "confirmation")
            assert await runner.turn()
            ended = await errands.find(connection, private.url)
        assert ended is not None
        assert ended.failure is None
        assert [asked for asked, _ in forward.asked] == [f"CONNECT 127.0.0.1:{urlsplit(private.url).port} HTTP/1.1"]
        assert len(private.received) == 1


async def test_gap_healing_goes_through_the_proxy(kit, database, shop, destination, forward: Forward) -> None:
    async def nothing(_: web.BaseRequest) -> web.StreamResponse:
        return web.json_response([])

    destination.answer = nothing
    url = urlsplit(destination.url)
    healing = GapHealing(hook="/repos/octocat/hello/hooks/7", api_url=f"http://{url.netloc}", period=timedelta(hours=1))
    checked = Verification(
        scheme="github", key_name="literal/github", token_key_name="bearer/token", gap_healing=healing
    )
    shop.endpoint = replace(
        shop.endpoint, verification=checked, idempotency=Idempotency(source="Provider", window=timedelta(hours=72))
    )
    shop.keys.append(kit.hmac_key("bearer/token", secret=b"github_pat_of_a_test"))
    await shop.apply()
    pool = await database.pool("deliverer", size=2)
    healer = Healer(pool, Names(), trusted(None), DelivererMetrics(CollectorRegistry()))
    healer.configure(Configuration(relay=through(forward), endpoints=(shop.endpoint,), keys=tuple(shop.keys)))
    await healer.turn(asyncio.Event())
    async with shop.pool.acquire() as connection:
        assert (await healings.all_of(connection))[shop.endpoint.id].reason == "Healed"
    assert [asked for asked, _ in forward.asked] == [f"CONNECT 127.0.0.1:{url.port} HTTP/1.1"]


async def test_a_proxy_gets_its_credentials_and_a_destination_does_not(destination, forward: Forward) -> None:
    relay = through(forward, credentials_name="basic/egress")
    async with way(destination.url, key("basic/egress", b"me:" + SECRET), relay=relay) as called:
        assert (await called.send()).outcome == Delivered(status=200)
    [(_, headers)] = forward.asked
    assert headers["proxy-authorization"] == f"basic {base64.b64encode(b'me:' + SECRET).decode().lower()}"
    assert "proxy-authorization" not in destination.received[0].headers


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("407 Proxy Authentication Required", Unsent(reason="proxy_refused")),
        ("403 Forbidden", Unsent(reason="proxy_refused")),
        ("302 Found\r\nLocation: http://169.254.169.254/", Unsent(reason="proxy_refused")),
        ("502 Bad Gateway", Unreachable(reason="connect_failed")),
        ("503 Service Unavailable", Unreachable(reason="connect_failed")),
        ("504 Gateway Timeout", Unreachable(reason="connect_failed")),
        ("500 Internal Server Error", Unsent(reason="proxy_failed")),
        ("501 Not Implemented", Unsent(reason="proxy_failed")),
        ("200 OK\r\n\r\nHTTP/1.1 200 OK", Unsent(reason="proxy_unreachable")),
        ("nonsense", Unsent(reason="proxy_unreachable")),
    ],
)
async def test_what_a_proxy_does_is_not_taken_for_the_destinations_answer(
    destination, forward: Forward, answer: str, outcome: object
) -> None:
    forward.answer = answer
    async with way(destination.url, relay=through(forward)) as called:
        assert (await called.send()).outcome == outcome
    assert destination.received == []


async def test_without_its_proxy_nothing_goes_out_directly(destination) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        relay = replace(LOCAL, proxy=Proxy(url=f"http://proxy.example:{taken.getsockname()[1]}"))
        async with way(destination.url, relay=relay) as called:
            assert (await called.send()).outcome == Unsent(reason="proxy_unreachable")
    assert destination.received == []


def connections(server: socket.socket) -> int:
    """How many there were to a server that accepts none by itself."""
    server.setblocking(False)
    count = 0
    with suppress(BlockingIOError):
        while True:
            server.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize(("scheme", "reason"), [("http", "proxy_failed"), ("https", "proxy_unreachable")])
@pytest.mark.parametrize(("total", "connect"), [(60, 2), (2, 2), (0.2, 0.2)])
async def test_a_proxy_that_hangs_is_not_taken_for_a_destination_that_does_whatever_the_timeout(
    destination, scheme: str, reason: UnsentReason, total: float, connect: float
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hung:  # connected by the system, and nobody reads
        relay = replace(LOCAL, proxy=Proxy(url=f"{scheme}://proxy.example:{hung.getsockname()[1]}"))
        async with way(destination.url, relay=relay) as called:
            tries = await asyncio.gather(*(called.send(total, connect) for _ in range(20)))
        assert {one.outcome for one in tries} == {Unsent(reason=reason)}
        assert connections(hung) == 20 + 1  # it is looked after once, for all of them


async def test_no_try_takes_longer_because_it_is_asked_whether_the_proxy_hangs(
    destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "ALIVE", 30.0)  # a busy machine is no part of this
    with socket.create_server(("127.0.0.1", 0)) as hung:
        relay = replace(LOCAL, proxy=Proxy(url=f"http://proxy.example:{hung.getsockname()[1]}"))
        async with way(destination.url, relay=relay) as called:
            tried = await called.send(connect=0.2)
    assert tried.outcome == Unsent(reason="proxy_failed")
    assert tried.duration < timedelta(seconds=proxy.ALIVE)


class Slow(Names):
    """Takes its time to find a name."""

    def __init__(self, name: str, seconds: float) -> None:
        super().__init__()
        self._name = name
        self._seconds = seconds

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if host == self._name:
            await asyncio.sleep(self._seconds)
        return await super().resolve(host, port, family)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_that_a_slow_name_left_little_time_is_not_taken_for_one_that_hangs(
    destination, scheme: str
) -> None:
    url = destination.url.replace("127.0.0.1", "private.example")
    with socket.create_server(("127.0.0.1", 0)) as hung:
        relay = replace(LOCAL, proxy=Proxy(url=f"{scheme}://proxy.example:{hung.getsockname()[1]}"))
        async with way(url, relay=relay, resolver=Slow("private.example", 0.6)) as called:
            assert (await called.send(connect=1)).outcome == TimedOut(phase="connect")


async def test_a_proxy_that_waits_at_one_tunnel_and_answers_when_it_is_asked_for_nothing_does_not_hang(
    destination, forward: Forward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "ALIVE", 30.0)  # a busy machine is no part of this
    forward.waits = lambda line: line.startswith("CONNECT ")
    async with way(destination.url, relay=through(forward)) as called:
        assert (await called.send(total=4, connect=4)).outcome == TimedOut(phase="connect")
    assert [line.split()[0] for line, _ in forward.asked] == ["CONNECT", "OPTIONS"]


@pytest.mark.parametrize("knows", ["OPTIONS", "CONNECT alone"])
async def test_a_destination_that_hangs_behind_a_proxy_is_not_taken_for_a_proxy_that_does(
    destination, forward: Forward, knows: str
) -> None:
    forward.waits = lambda line: line.startswith("CONNECT ")
    forward.closes = lambda _: knows != "OPTIONS"
    async with way(destination.url, relay=through(forward)) as called:
        tries = await asyncio.gather(*(called.send(connect=2) for _ in range(20)))
    assert {one.outcome for one in tries} == {TimedOut(phase="connect")}
    assert [line for line, _ in forward.asked if not line.startswith("CONNECT ")] == ["OPTIONS * HTTP/1.1"]


async def test_a_proxy_that_answers_others_meanwhile_is_asked_for_nothing_else(destination, forward: Forward) -> None:
    forward.waits = lambda line: not line.startswith("CONNECT ") or len(forward.asked) == 1
    async with way(destination.url, relay=through(forward)) as called, asyncio.TaskGroup() as group:
        hung = group.create_task(called.send(connect=2))
        while not forward.asked:
            await asyncio.sleep(0)
        assert (await called.send()).outcome == Delivered(status=200)
    assert hung.result().outcome == TimedOut(phase="connect")
    assert len(forward.asked) == 2


# Rebinding


class Dns(asyncio.DatagramProtocol):
    """A name server that answers each question with the next of its addresses, and the last one for ever."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._addresses = list(addresses)
        self.asked = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, peer: tuple[str, int]) -> None:
        address = self._addresses[min(self.asked, len(self._addresses) - 1)]
        self.asked += 1
        answer = b"\xc0\x0c" + bytes((0, 1, 0, 1, 0, 0, 0, 0, 0, 4)) + IPv4Address(address).packed
        self._transport.sendto(data[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + data[12:] + answer, peer)  # type: ignore[attr-defined]


class Asking(AbstractResolver):
    """A resolver that keeps no answer: it asks a name server each time, as a lifetime of 0 demands."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in host.split("."))
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            await loop.sock_connect(asking, self._server)
            await loop.sock_sendall(asking, b"\0\7\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1")
            answer = await loop.sock_recv(asking, 512)
        return [
            ResolveResult(
                hostname=host, host=str(IPv4Address(answer[-4:])), port=port, family=socket.AF_INET, proto=0, flags=0
            )
        ]

    async def close(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def answering(*addresses: str) -> AsyncIterator[tuple[Dns, Asking]]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Dns(addresses), local_addr=("127.0.0.1", 0)
    )
    yield server, Asking(transport.get_extra_info("sockname"))
    transport.close()


async def test_the_connection_goes_to_the_address_that_was_judged_whatever_the_name_means_a_moment_later(
    destination,
) -> None:
    url = destination.url.replace("127.0.0.1", "rebinding.example")
    async with answering("127.0.0.1", "127.0.0.2") as (dns, resolver):
        async with way(url, resolver=resolver) as called:
            assert (await called.send()).outcome == Delivered(status=200)
        assert dns.asked == 1  # there is no second question that could be answered otherwise
    async with answering("127.0.0.2", "127.0.0.1") as (dns, resolver):
        async with way(url, resolver=resolver) as called:
            assert isinstance((await called.send()).outcome, Denied)
        assert dns.asked == 1
    assert len(destination.received) == 1


@pytest.mark.parametrize("tunnelled", [False, True])
async def test_a_name_that_changes_between_two_tries_is_judged_anew_where_it_leads_then(
    destination, forward: Forward, tunnelled: bool
) -> None:
    url = destination.url.replace("127.0.0.1", "rebinding.example")

    async def last(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers={"Connection": "close"})

    destination.answer = last
    relay = through(forward) if tunnelled else LOCAL
    async with answering("127.0.0.1", "127.0.0.2") as (_, resolver):
        names = Both(resolver)
        async with way(url, relay=relay, resolver=names) as called:
            assert (await called.send()).outcome == Delivered(status=200)
            called.relay = replace(called.relay, name="other")  # its pool, and so its connections, are others
            called.use()
            assert isinstance((await called.send()).outcome, Denied)
    assert len(destination.received) == 1
    assert [line for line, _ in forward.asked] == (
        [f"CONNECT 127.0.0.1:{urlsplit(url).port} HTTP/1.1"] if tunnelled else []
    )


class Both(Names):
    """The proxy is this machine; all other names are asked for."""

    def __init__(self, asking: Asking) -> None:
        super().__init__()
        self._asking = asking

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        chosen = super().resolve if host == "proxy.example" else self._asking.resolve
        return await chosen(host, port, family)


# Secrets stay secrets


async def dump(shop) -> str:
    """Return every row of every table, bytes in hex."""
    async with shop.pool.acquire() as connection:
        tables = await connection.fetch(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()"
        )
        found = [await connection.fetch(f'SELECT to_json(t)::text FROM "{table[0]}" t') for table in tables]
    return "\n".join(row[0] for rows in found for row in rows)


async def test_no_secret_stands_in_clear_in_the_database_or_in_a_log(
    destination, login: Login, forward: Forward, shop, start, kit, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    async def echo(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=json.dumps(dict(request.headers)), headers={"x-echo": request.headers["x-key"]})

    caplog.set_level(logging.DEBUG)
    destination.answer = echo
    secrets = (b"the-api-key-of-billing", SECRET, b"the-proxy-password")
    shop.relay = replace(through(forward, credentials_name="basic/egress"), allowed_cidrs=kit.LOOPBACK.allowed_cidrs)
    shop.relay = replace(shop.relay, proxy=replace(shop.relay.proxy, url=f"http://127.0.0.1:{forward.port}"))
    shop.keys += [
        key("secret/api/key", secrets[0]),
        key("secret/client/id", b"kapsel:1"),
        key("secret/client/secret", SECRET),
        key("basic/egress", b"me:" + secrets[2]),
        key("certificate/c", pem(kit, "client.pem")),
    ]
    declared = replace(oauth2(login), token_url=login.url.replace("login.example", "127.0.0.1"))
    await shop.send_to(
        destination.url,
        secret_headers=(("X-Key", "secret/api/key"),),
        oauth2=declared,
        tls=Tls(certificate_name="certificate/c"),
    )
    await start()
    [delivery_id] = await shop.put()
    await shop.ends(kit.State.DELIVERED, delivery_id)
    attempt = (await shop.attempts(delivery_id))[-1]
    assert b"[redacted]" in (attempt.attempt.response_body or b"")
    everything = await dump(shop)
    private = next(line for line in pem(kit, "client.pem").splitlines() if len(line) == 64)
    for secret in (*secrets, b"token-number-1", base64.b64encode(b"me:" + secrets[2]), private):
        assert secret.decode() not in everything
        assert secret.hex() not in everything
        assert secret.decode() not in caplog.text
    assert len(forward.asked) >= 2  # the token and the webhook
