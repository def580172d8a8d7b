"""Who calls kapsel, and whom it calls: senders that send until they hear 202, destinations that misbehave by chance."""

import asyncio
import hashlib
import hmac
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID, uuid5

from kapsel_store.rows import DestinationRow, EndpointRow
from simulation.clock import Clock
from simulation.loop import Life
from simulation.network import Network, pair
from simulation.scenario import Arrival, Conduct, Login

PATIENCE = 5.0  # seconds that a sender waits for an answer
TRIES = 60
TOGETHER: ContextVar[Sequence[bool]] = ContextVar("together")  # a request of several: whether each of them is a probe


@dataclass(kw_only=True)
class Sent:
    """One request of a sender and what came back."""

    arrival: int
    request_id: str
    at: float
    life: Life | None = None  # who answered
    status: int | None = None
    event_id: UUID | None = None
    code: str = ""
    ended: float = 0.0


@dataclass(kw_only=True)
class Seen:
    """One try as the network and the destination saw it."""

    destination: UUID
    life: Life
    begin: float
    action: str
    webhook_id: UUID | None = None  # None: it never got so far
    delivery: UUID | None = None  # of those of the event; who judges the run finds it out
    number: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None  # None: it broke off before it was read
    signature: str = ""
    timestamp: int = 0
    status: int | None = None  # as it was sent
    said: str = ""  # why the answer to a request of several does not hold for this one
    end: float | None = None
    request: "Request | None" = field(default=None, repr=False)  # in which it was, where deliveries go together
    probe: bool = False  # known of those alone that go together

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def failed(self) -> bool:
        return (
            self.status is None or not 200 <= self.status < 300 or self.action in ("lie", "garbage") or self.said != ""
        )


@dataclass(kw_only=True, eq=False)
class Request:
    """One request of deliveries that go together."""

    life: Life
    begin: float
    items: list[Seen] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)  # none: it never got so far
    body: bytes | None = None  # None: it broke off before it was read
    wrong: str = ""  # why it cannot be read


@dataclass(kw_only=True)
class Fetch:
    """One question for an access token."""

    life: Life
    begin: float
    end: float | None = None
    token: str | None = None
    stranger: bool = False  # it was not asked as the client is to ask


def _address(url: str) -> tuple[str, int]:
    host, port = re.fullmatch(r"http://([0-9.]+):(\d+)/.*", url).groups()  # type: ignore[union-attr]
    return host, int(port)


class TokenServer:
    """One host that gives access tokens, or does not, and knows which are good."""

    def __init__(self, network: Network, clock: Clock, row: DestinationRow, login: Login, seed: str) -> None:
        assert row.oauth2 is not None
        self.login = login
        self.fetches: list[Fetch] = []
        self.given: dict[str, float] = {}  # when
        self._of = row.id
        self._chance = Random(f"{seed} login {row.id}")
        self._clock = clock
        self._network = network
        network.hosts[_address(row.oauth2.token_url)] = self._dial

    def takes(self, token: str) -> bool:
        """Whether a token is good now."""
        given, now, period = self.given.get(token), self._clock.elapsed, self.login.rotates
        if given is None or now > given + self.login.lifetime:
            return False
        return period is None or given // period == now // period

    def _known(self) -> tuple[list[str], bytes]:
        """Return the Authorization headers and the form of CLIENT (RFC 6749, 2.3.1), written out."""
        if self.login.authentication == "Post":
            return [], b"grant_type=client_credentials&client_id=kapsel&client_secret=a+secret"
        return [f"Basic {b64encode(b'kapsel:a+secret').decode()}"], b"grant_type=client_credentials"

    async def _dial(self, life: Life | None) -> Any:
        assert life is not None
        fetch = Fetch(life=life, begin=self._clock.elapsed)
        self.fetches.append(fetch)
        actions, weights = zip(*self.login.weights, strict=True)
        action = str(self._chance.choices(actions, weights)[0])
        action = "ok" if self._clock.elapsed >= self.login.recovers else action
        if action == "refuse":
            fetch.end = self._clock.elapsed
            raise ConnectionRefusedError(111, "nobody listens")
        near, far = pair()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(fetch, action, reader, writer)
            fetch.end = self._clock.elapsed
            writer.close()

        self._network.serve(far, handle)
        return near

    async def _answer(
        self, fetch: Fetch, action: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        form = await reader.readexactly(int(re.search(r"(?i)content-length: (\d+)", head)[1]))  # type: ignore[index]
        fetch.stranger = (re.findall(r"(?i)\nauthorization: (.+)\r", head), form) != self._known()
        if action == "hang":
            await reader.read()
            return
        if action == "slow":
            await asyncio.sleep(self._chance.uniform(1, 8))
        status = {"ok": 200, "slow": 200, "garbage": 200}.get(action) or int(action)
        status = 401 if fetch.stranger else status
        body = '{"access_token": '
        if status == 200 and action != "garbage":
            fetch.token = f"token-{len(self.given)}-of-{self._of}"
            self.given[fetch.token] = self._clock.elapsed
            body += f'"{fetch.token}", "token_type": "Bearer", "expires_in": {self.login.lifetime}}}'
        answer = f"HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        writer.write(answer.encode())
        await writer.drain()


class Destination:
    """One host that takes webhooks, or does not."""

    def __init__(self, network: Network, clock: Clock, row: DestinationRow, conduct: Conduct, seed: str) -> None:
        self.row = row
        self.conduct = conduct
        self.seen: list[Seen] = []
        self.requests: list[Request] = []  # where deliveries go together
        self.under_way = 0
        self.tokens: TokenServer | None = None  # whose tokens it wants
        self._chance = Random(f"{seed} {row.id}")
        self._naming = Random(f"{seed} naming {row.id}")
        self._names = self._naming.random() < 0.5
        self._clock = clock
        self._network = network
        network.hosts[_address(row.url)] = self._dial

    @property
    def _recovered(self) -> bool:
        return self.conduct.recovers is not None and self._clock.elapsed >= self.conduct.recovers

    def _action(self) -> str:
        if self._recovered:
            return "ok"
        actions, weights = zip(*self.conduct.weights, strict=True)
        return str(self._chance.choices(actions, weights)[0])

    async def _dial(self, life: Life | None) -> Any:
        assert life is not None
        action = self._action()
        if action in ("refuse", "unreachable"):
            dialled = self._dialled(life, action)
            try:
                if action == "unreachable":
                    await asyncio.sleep(3600)
                raise ConnectionRefusedError(111, "nobody listens")
            finally:
                for seen in dialled:
                    seen.end = self._clock.elapsed
        near, far = pair()

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                first: str | None = action
                while await self._one(life, reader, writer, first or self._action()):
                    first = None
            writer.close()

        self._network.serve(far, handle)
        return near

    def _dialled(self, life: Life, action: str) -> list[Seen]:
        """Note what somebody tries who will not be heard."""
        probes = (False,) if self.row.batch is None else TOGETHER.get()
        made = [
            Seen(destination=self.row.id, life=life, begin=self._clock.elapsed, action=action, probe=probe)
            for probe in probes
        ]
        if self.row.batch is not None:
            self._together(Request(life=life, begin=self._clock.elapsed, items=made))
        self.seen += made
        return made

    def _together(self, request: Request) -> None:
        self.requests.append(request)
        for seen in request.items:
            seen.request = request

    async def _one(self, life: Life, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, action: str) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {name.lower(): value for name, value in re.findall(r"^([^:\r\n]+): (.*)\r$", head, re.MULTILINE)}
        request, got = Request(life=life, begin=self._clock.elapsed, headers=headers), list[Seen]()
        if self.row.batch is None:
            got.append(self._got(request, action, headers))
            self.seen += got
        else:
            self._together(request)
        self.under_way += 1
        try:
            request.body = await reader.readexactly(int(headers["content-length"]))
            if self.row.batch is None:
                got[0].body = request.body
            else:
                got += self._unpacked(request, action)
            return bool(got) and await self._answer(got, action, reader, writer)
        finally:
            for seen in got:
                seen.end = self._clock.elapsed
            self.under_way -= 1

    def _got(self, request: Request, action: str, headers: dict[str, str], body: bytes | None = None) -> Seen:
        return Seen(
            destination=self.row.id,
            life=request.life,
            begin=request.begin,
            action=action,
            webhook_id=UUID(headers["webhook-id"]),
            number=int(headers["kapsel-attempt"]),
            signature=headers["webhook-signature"],
            timestamp=int(headers["webhook-timestamp"]),
            headers=headers,
            body=body,
        )

    def _unpacked(self, request: Request, action: str) -> list[Seen]:
        """Read what goes together as docs/batches.md says that it is written."""
        assert request.body is not None
        token = {name: value for name, value in request.headers.items() if name == "authorization"}
        try:
            for item in json.loads(request.body):
                (form,) = item.keys() - {"headers"}
                body = {"body": str.encode, "body_base64": b64decode}[form](item[form])
                request.items.append(self._got(request, action, item["headers"] | token, body))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            request.wrong = f"{type(error).__name__}: {error}"
        for seen in request.items:
            seen.request = request
        self.seen += request.items
        return request.items

    async def _answer(
        self, got: Sequence[Seen], action: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if action in ("refuse", "unreachable", "reset"):  # on a connection that there was already
            await asyncio.sleep(self.conduct.latency)
            return False
        if action == "hang":
            await reader.read()  # until they give up
            return False
        if action == "slow":
            gone = asyncio.ensure_future(reader.read(1))
            await asyncio.wait([gone], timeout=self.row.timeout.total_seconds() * self._chance.uniform(0.7, 0.95))
            if gone.done():
                return False
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        else:
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * self.conduct.latency)
        if action == "garbage":
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")
            return False
        status = {"ok": 200, "slow": 200, "lie": 200, "short": 200}.get(action) or int(action)
        if self.tokens is not None and not self.tokens.takes(got[0].token):
            status = 401
        for seen in got:
            seen.status = status if action != "lie" else None
        extra = f"retry-after: {self.conduct.retry_after}\r\n" if status == 429 else ""
        if action == "lie":  # says nothing, and has taken it all the same
            return False
        said = self._named(got) if self.row.batch is not None and status == 200 and action != "short" else "ok"
        length = 1000 if action == "short" or said.endswith('"') else len(said)
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{extra}\r\n{said}".encode())
        await writer.drain()
        return length == len(said)

    def _named(self, got: Sequence[Seen]) -> str:
        """Return what is said of deliveries that are taken together: half of these destinations name some at times."""
        kind = self._naming.random()
        if not self._names or self._recovered or kind < 0.5:
            return self._naming.choice(("ok", "{}", '{"batchItemFailures": []}', '{"batchItemFailures": null}'))
        named = [str(seen.webhook_id) for seen in got if self._naming.random() < 0.4]
        why = "item_failed"
        if kind > 0.8:  # nobody can tell what that is to say
            why = "batch_answer_invalid"
            named.append(str(uuid5(self.row.id, "a stranger")))
        for seen in got:
            if why != "item_failed" or str(seen.webhook_id) in named:
                seen.said = why
        said = json.dumps({"batchItemFailures": [{"itemIdentifier": each} for each in named]})
        return said[: said.rindex('"') + 1] if kind > 0.9 else said  # and breaks off


@dataclass
class Sender:
    """Sends what is to arrive, over and over until it is accepted."""

    network: Network
    clock: Clock
    endpoints: tuple[EndpointRow, ...]
    secret: bytes
    chance: Random
    sent: list[Sent] = field(default_factory=list)
    under_way: int = 0

    async def send(self, number: int, arrival: Arrival) -> None:
        """Send one webhook until it is accepted, and then perhaps once more."""
        await asyncio.sleep(max(0.0, arrival.at - self.clock.elapsed))
        for _ in range(TRIES):
            sent = await self._once(number, arrival)
            if sent.status == 202:
                break
            await asyncio.sleep(self.chance.uniform(0.5, 3.0))
        for later in arrival.again:
            await asyncio.sleep(later)
            await self._once(number, arrival)

    async def _once(self, number: int, arrival: Arrival) -> Sent:
        sent = Sent(arrival=number, request_id=f"r{len(self.sent)}", at=self.clock.elapsed)
        self.sent.append(sent)
        self.under_way += 1
        try:
            async with asyncio.timeout(PATIENCE):
                await self._exchange(sent, arrival)
        except (TimeoutError, ConnectionError, asyncio.IncompleteReadError):
            sent.status = None
        finally:
            self.under_way -= 1
            sent.ended = self.clock.elapsed
        return sent

    async def _exchange(self, sent: Sent, arrival: Arrival) -> None:
        listening = sorted(self.network.receivers)
        if not listening:
            raise ConnectionRefusedError
        address = self.chance.choice(listening)
        life = self.network.receivers[address]
        sock = await self.network.dial(address)
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            endpoint = self.endpoints[arrival.endpoint]
            signature = "sha256=" + hmac.new(self.secret, arrival.body, hashlib.sha256).hexdigest()
            headers = {
                "Host": "chaos",
                "Content-Type": "application/json",
                "Content-Length": str(len(arrival.body)),
                "X-Delivery": arrival.key,
                "X-Request-Id": sent.request_id,
                "X-Signature": signature,
            }
            lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
            writer.write(f"POST /ingest/{endpoint.id} HTTP/1.1\r\n{lines}\r\n".encode() + arrival.body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(re.search(r"(?i)content-length: (\d+)", head)[1])  # type: ignore[index]
            body = (await reader.readexactly(length)).decode()
            sent.status, sent.life = int(head.split()[1]), life
            if sent.status == 202:
                sent.event_id = UUID(re.search(r'"id": "([^"]+)"', body)[1])  # type: ignore[index]
            elif found := re.search(r'"code": ?"([^"]+)"', body):
                sent.code = found[1]
        finally:
            writer.close()
