"""Who calls kapsel, and whom it calls: senders that send until they hear 202, destinations that misbehave by chance."""

import asyncio
import hashlib
import hmac
import re
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from kapsel_store.rows import DestinationRow, EndpointRow
from simulation.clock import Clock
from simulation.loop import Life
from simulation.network import Network, pair
from simulation.scenario import Arrival, Conduct, Login

PATIENCE = 5.0  # seconds that a sender waits for an answer
TRIES = 60


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
    end: float | None = None

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")

    @property
    def failed(self) -> bool:
        return self.status is None or not 200 <= self.status < 300 or self.action in ("lie", "garbage")


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
        self.under_way = 0
        self.tokens: TokenServer | None = None  # whose tokens it wants
        self._chance = Random(f"{seed} {row.id}")
        self._clock = clock
        self._network = network
        network.hosts[_address(row.url)] = self._dial

    def _action(self) -> str:
        recovered = self.conduct.recovers is not None and self._clock.elapsed >= self.conduct.recovers
        if recovered:
            return "ok"
        actions, weights = zip(*self.conduct.weights, strict=True)
        return str(self._chance.choices(actions, weights)[0])

    async def _dial(self, life: Life | None) -> Any:
        assert life is not None
        action = self._action()
        if action in ("refuse", "unreachable"):
            seen = Seen(destination=self.row.id, life=life, begin=self._clock.elapsed, action=action)
            self.seen.append(seen)
            try:
                if action == "unreachable":
                    await asyncio.sleep(3600)
                raise ConnectionRefusedError(111, "nobody listens")
            finally:
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

    async def _one(self, life: Life, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, action: str) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = {name.lower(): value for name, value in re.findall(r"^([^:\r\n]+): (.*)\r$", head, re.MULTILINE)}
        seen = Seen(
            destination=self.row.id,
            life=life,
            begin=self._clock.elapsed,
            action=action,
            webhook_id=UUID(headers["webhook-id"]),
            number=int(headers["kapsel-attempt"]),
            signature=headers["webhook-signature"],
            timestamp=int(headers["webhook-timestamp"]),
            headers=headers,
        )
        self.seen.append(seen)
        self.under_way += 1
        try:
            seen.body = await reader.readexactly(int(headers["content-length"]))
            return await self._answer(seen, reader, writer)
        finally:
            seen.end = self._clock.elapsed
            self.under_way -= 1

    async def _answer(self, seen: Seen, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        action = seen.action
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
        if self.tokens is not None and not self.tokens.takes(seen.token):
            status = 401
        seen.status = status
        extra = f"retry-after: {self.conduct.retry_after}\r\n" if status == 429 else ""
        if action == "lie":  # says nothing, and has taken it all the same
            seen.status = None
            return False
        length = 1000 if action == "short" else 2
        writer.write(f"HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n{extra}\r\nok".encode())
        await writer.drain()
        return action != "short"


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
