"""Connections that are kept for the next request, and those that must not be, over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_reqrep import ClientRequest
from yarl import URL

from kapsel_deliverer.contexts import trusted
from kapsel_deliverer.errors import DisconnectedError, NoAnswerError
from kapsel_deliverer.exchange import Response
from kapsel_deliverer.pool import Pool
from kapsel_deliverer.proxy import connector
from kapsel_store.rows import RelayRow

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENT = 60.0


@dataclass
class Server:
    """Answers as a test says, and knows its connections."""

    answer: Callable[["Server", asyncio.StreamWriter], Awaitable[None]]
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    requests: int = 0
    ended: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))  # connections, by the other side

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                self.requests += 1
                await self.answer(self, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended.release()
        finally:
            writer.close()

    async def ends(self, count: int = 1) -> None:
        """Wait until the other side has closed so many connections."""
        async with asyncio.timeout(PATIENT):
            for _ in range(count):
                await self.ended.acquire()


@dataclass
class Caller:
    """A pool, and a server to ask by it."""

    pool: Pool
    server: Server
    url: URL

    async def ask(self, path: str = "/", total: float = PATIENT) -> Response:
        request = ClientRequest("GET", self.url.with_path(path), loop=asyncio.get_running_loop())
        head = b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode()
        return await self.pool.request(request, head, b"", aiohttp.ClientTimeout(total=total))


@asynccontextmanager
async def calling(
    answer: Callable[[Server, asyncio.StreamWriter], Awaitable[None]], idle_timeout: float = PATIENT
) -> AsyncIterator[Caller]:
    server = Server(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    pool = Pool(aiohttp.TCPConnector(), idle_timeout)
    try:
        yield Caller(pool, server, URL(f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"))
    finally:
        await pool.close()
        listening.close()
        if server.connections:
            await server.ends()


async def kind(_: Server, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


async def mute(_: Server, writer: asyncio.StreamWriter) -> None:
    del writer


async def test_requests_in_turn_share_a_connection_whatever_their_path() -> None:
    async with calling(kind) as caller:
        for path in ("/", "/a", "/b"):
            assert (await caller.ask(path)).body == b"ok"
        assert len(caller.server.connections) == 1
        assert caller.server.requests == 3


async def test_requests_at_once_have_a_connection_each_and_all_are_kept() -> None:
    together = asyncio.Barrier(3)

    async def answer(_: Server, writer: asyncio.StreamWriter) -> None:
        await together.wait()
        writer.write(OK)

    async with calling(answer) as caller:
        for _ in range(2):
            await asyncio.gather(*(caller.ask() for _ in range(3)))
        assert len(caller.server.connections) == 3
        await caller.pool.close()
        await caller.server.ends(2)


async def test_a_connection_that_the_server_closes_while_it_is_idle_is_not_used_again() -> None:
    async with calling(kind) as caller:
        await caller.ask()
        [first] = caller.server.connections
        first.close()
        await caller.server.ends()
        assert (await caller.ask()).body == b"ok"
        assert len(caller.server.connections) == 2


async def test_a_connection_that_ends_under_a_request_is_no_answer_and_nothing_is_sent_twice() -> None:
    async def once(server: Server, writer: asyncio.StreamWriter) -> None:
        if server.requests > 1:
            writer.transport.abort()
        writer.write(OK)

    async with calling(once) as caller:
        await caller.ask()
        with pytest.raises(DisconnectedError):
            await caller.ask()
        assert caller.server.requests == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK + OK,
        OK + b"H",
    ],
)
async def test_what_leaves_a_connection_in_doubt_closes_it(answer: bytes) -> None:
    async def doubtful(_: Server, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)

    async with calling(doubtful) as caller:
        for _ in range(2):
            assert (await caller.ask()).body == b"ok"
        await caller.server.ends()
        assert len(caller.server.connections) == 2


async def test_bytes_that_nobody_asked_for_are_never_taken_for_the_next_answer() -> None:
    async with calling(kind) as caller:
        await caller.ask()
        caller.server.connections[0].write(b"HTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n")
        await caller.server.ends()
        assert (await caller.ask()).status == 200


async def test_a_connection_is_closed_when_it_was_idle_too_long() -> None:
    async with calling(kind, idle_timeout=0.05) as caller:
        await caller.ask()
        await caller.server.ends()
        assert (await caller.ask()).body == b"ok"
        assert len(caller.server.connections) == 2


async def test_each_request_ends_when_its_own_time_is_up() -> None:
    async with calling(mute) as caller:
        long = asyncio.create_task(caller.ask(total=PATIENT))
        for total in (0.1, 0.05, 0.1):
            with pytest.raises(NoAnswerError):
                await caller.ask(total=total)
        assert not long.done()
        long.cancel()
        await caller.server.ends(3)


async def test_a_connection_whose_request_was_given_up_is_closed() -> None:
    async with calling(mute) as caller:
        asking = asyncio.create_task(caller.ask())
        while not caller.server.requests:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await caller.server.ends()
        caller.server.ended.release()


async def test_a_pool_that_is_closed_lets_the_requests_under_way_end_and_keeps_nothing() -> None:
    go = asyncio.Event()

    async def later(server: Server, writer: asyncio.StreamWriter) -> None:
        if server.requests > 1:
            await go.wait()
        writer.write(OK)

    async with calling(later) as caller:
        await caller.ask()
        asking = asyncio.create_task(caller.ask())
        while caller.server.requests < 2:
            await asyncio.sleep(0.001)
        closing = asyncio.create_task(caller.pool.close())
        go.set()
        assert (await asking).body == b"ok"
        await closing
        await caller.server.ends()
        assert len(caller.server.connections) == 1
        caller.server.ended.release()


class Known(AbstractResolver):
    """Every name has these addresses."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing to close."""


async def test_a_name_is_reached_whether_it_has_one_address_or_several_of_which_one_answers() -> None:
    async with calling(kind) as caller:
        for addresses in (["127.0.0.1"], ["127.0.0.2", "127.0.0.1"]):
            relay = RelayRow(allowed_cidrs=("127.0.0.0/8",), allow_http=True)
            named = Pool(connector(Known(*addresses), relay, None, ssl=trusted(None)))
            assert (await Caller(named, caller.server, caller.url.with_host("a.example")).ask()).body == b"ok"
            await named.close()
            await caller.server.ends()
        caller.server.ended.release()


@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
async def test_where_nobody_listens_the_connection_is_refused(addresses: list[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        url = URL(f"http://a.example:{taken.getsockname()[1]}/")
        relay = RelayRow(allowed_cidrs=("127.0.0.0/8",), allow_http=True)
        pool = Pool(connector(Known(*addresses), relay, None, ssl=trusted(None)))
        with pytest.raises(aiohttp.ClientConnectorError) as failed:
            await Caller(pool, Server(mute), url).ask()
        assert isinstance(failed.value.os_error, ConnectionRefusedError)
        await pool.close()


@pytest.mark.parametrize(
    "holds",
    [
        test_a_name_is_reached_whether_it_has_one_address_or_several_of_which_one_answers,
        partial(test_where_nobody_listens_the_connection_is_refused, ["127.0.0.1"]),
        test_requests_at_once_have_a_connection_each_and_all_are_kept,
        test_a_connection_that_the_server_closes_while_it_is_idle_is_not_used_again,
        test_a_connection_that_ends_under_a_request_is_no_answer_and_nothing_is_sent_twice,
        test_bytes_that_nobody_asked_for_are_never_taken_for_the_next_answer,
        test_a_connection_is_closed_when_it_was_idle_too_long,
        test_each_request_ends_when_its_own_time_is_up,
        test_a_connection_whose_request_was_given_up_is_closed,
        test_a_pool_that_is_closed_lets_the_requests_under_way_end_and_keeps_nothing,
    ],
)
def test_it_holds_on_the_loop_of_deliverers_too(holds: Callable[[], Coroutine[object, object, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(holds())
