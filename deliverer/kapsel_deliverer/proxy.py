"""Deliveries through a forward proxy: a tunnel to an address that was judged here, whatever its name means there.

aiohttp would hand the proxy the name, and plain http without a tunnel: then the proxy decides which address is called,
and the guard is lost. Here names are resolved and judged as without a proxy, CONNECT is asked for the address that
passed, and TLS and Host carry the name. The proxy itself is called wherever it is: the Relay's owner has named it.
"""

import asyncio
import base64
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Literal

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.tracing import Trace
from yarl import URL

from kapsel_deliverer.addresses import GuardedResolver
from kapsel_deliverer.errors import ProxyError
from kapsel_egress import tls
from kapsel_store.rows import Configuration, RelayRow

HEAD_LIMIT: Final = 8192  # bytes of a proxy's answer
ALIVE: Final = 1.0  # seconds in which a proxy that is asked for nothing must answer anything; half of what is shorter

_NOT_THERE: Final = (502, 503, 504)  # what proxies answer that could not reach an address, or not in time
_STATUS: Final = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2})(?: [^\r\n]*)?\r\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """Where the proxy is, and what it wants to hear."""

    host: str
    port: int
    tls: bool = False  # whether it is spoken to in TLS, in which the tunnel to an https destination is TLS once more
    authorization: str | None = field(default=None, repr=False)
    ca: bytes | None = field(default=None, repr=False)  # the authorities that are trusted for it alone, in PEM


def declared(configuration: Configuration) -> Proxy | None:
    """Return the proxy of a configuration.

    Without its credentials it is asked all the same, and will refuse; without its authorities nobody vouches for it.
    """
    row = configuration.relay.proxy
    if row is None:
        return None
    url = URL(row.url)
    secret = _secret(configuration, row.credentials_name)
    return Proxy(
        host=url.raw_host or "",
        port=url.port or (443 if url.scheme == "https" else 80),
        tls=url.scheme == "https",
        authorization=None if secret is None else f"Basic {base64.b64encode(secret).decode()}",
        ca=None if row.ca_name is None else _secret(configuration, row.ca_name) or b"",
    )


def _secret(configuration: Configuration, name: str | None) -> bytes | None:
    """Return the newest version of a key of the Relay's namespace, None if there is none."""
    where = (configuration.relay.namespace, name)
    versions = [key for key in configuration.keys if (key.namespace, key.name) == where]
    return max(versions, key=lambda key: key.version).secret if versions else None


def _trusting(ca: bytes) -> ssl.SSLContext:
    """Return a context that trusts these authorities alone: nobody if there are none."""
    return tls.context(ca=ca) if ca else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def connector(names: AbstractResolver, relay: RelayRow, proxy: Proxy | None, **options: Any) -> aiohttp.TCPConnector:
    """Return what makes the connections that the policy allows, through the proxy if there is one."""
    make = DirectConnector if proxy is None else partial(TunnelConnector, proxy, names)
    # What names mean is remembered in one place, `names`, and judged anew for each connection.
    return make(resolver=GuardedResolver(names, relay), use_dns_cache=False, **options)


@dataclass(slots=True)
class _Way:
    """How far one connection is on its way through the proxy."""

    to: Literal["names", "proxy", "answer", "destination"] = "names"
    since: float = 0.0  # when it turned to the proxy, by the loop's clock
    watched: bool = False  # whether it was looked after the proxy meanwhile


_way: ContextVar[_Way] = ContextVar("kapsel_way_through_the_proxy")


@contextmanager
def _failing(req: ClientRequest) -> Iterator[None]:
    """Name failures to connect as the callers of a connector expect them."""
    try:
        yield
    except ssl.CertificateError as error:
        raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
    except ssl.SSLError as error:
        raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
    except OSError as error:
        raise aiohttp.ClientConnectorError(req.connection_key, error) from error


class DirectConnector(aiohttp.TCPConnector):
    """Connects at once to the one address that most names have.

    Where there are several, aiohttp tries them side by side with sockets of its own; uvloop asks a thread what the
    address of such a socket means, even if it is a number, which takes longer than to connect.
    """

    async def _wrap_create_connection(
        self, *args: Any, addr_infos: list[AddrInfoType], req: ClientRequest, **kwargs: Any
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        (factory,), (host, port) = args, map(str, addr_infos[0][4][:2])
        if len(addr_infos) > 1 or "%" in host:  # the zone of a link-local address has to be looked up
            return await super()._wrap_create_connection(*args, addr_infos=addr_infos, req=req, **kwargs)
        tls, name = kwargs["ssl"], kwargs["server_hostname"]
        with _failing(req):
            return await self._loop.create_connection(factory, host, int(port), ssl=tls, server_hostname=name)


class TunnelConnector(aiohttp.TCPConnector):
    """Connects through tunnels to the addresses that the resolver lets pass."""

    def __init__(self, proxy: Proxy, names: AbstractResolver, *, ssl: ssl.SSLContext, **options: Any) -> None:
        """Find the proxy by `names`, which keeps nothing back; `ssl` trusts it unless it has authorities of its own."""
        super().__init__(ssl=ssl, **options)
        self._proxy = proxy
        self._names = names
        self._context = ssl if proxy.ca is None else _trusting(proxy.ca)
        # By the loop's clock: the last answer to anybody, and when the last look for one began.
        self._answered_at = self._looked_at = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Look no more, and close what is open."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        await super().close(abort_ssl=abort_ssl)

    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:
        """Connect in time, or say whose fault it is that there is no connection.

        A tunnel that is not answered is not told from one whose address does not answer the proxy, but by what the
        proxy says to others, or to us when it is asked for nothing: that is done while there is time to connect, so
        that no try takes longer for it. If names took so long that there was none left, it stays a TimeoutError.
        """
        if timeout.connect is None:
            return await super().connect(req, traces, timeout)
        way = _Way()
        _way.set(way)
        watch = self._loop.call_later(timeout.connect - min(ALIVE, timeout.connect / 2), self._watch, way)
        try:
            return await super().connect(req, traces, timeout)
        except TimeoutError as error:
            if not way.watched:
                raise
            if way.to == "proxy":
                late = ProxyError("proxy_unreachable", "there was no connection to the proxy in time")
            elif self._answered_at < way.since:
                late = ProxyError("proxy_failed", "the proxy answers nobody")
            else:
                raise
            raise aiohttp.ClientConnectorError(req.connection_key, late) from error
        finally:
            watch.cancel()

    def _watch(self, way: _Way) -> None:
        """Look whether the proxy lives if a connection waits for it: once for all that wait."""
        if way.to not in ("proxy", "answer"):
            return
        way.watched = True
        looks = self._looking is not None and not self._looking.done()
        if not looks and max(self._answered_at, self._looked_at) < way.since:
            self._looked_at = self._loop.time()
            self._looking = self._loop.create_task(self._look())

    async def _look(self) -> None:
        """Ask the proxy what it must answer by itself, and at once.

        Some do so by closing, as they know CONNECT alone: they do not hang.
        """
        with suppress(OSError):  # no connection, or no answer in time
            async with asyncio.timeout(ALIVE):
                transport, answer = await self._greet(await self._connect())
                try:
                    transport.write(b"OPTIONS * HTTP/1.1\r\nHost: proxy\r\nMax-Forwards: 0\r\n\r\n")
                    await answer.came
                    self._answered_at = self._loop.time()
                finally:
                    transport.abort()

    async def _wrap_create_connection(
        self,
        *args: Any,
        addr_infos: list[AddrInfoType],
        req: ClientRequest,
        timeout: aiohttp.ClientTimeout,
        client_error: type[Exception] = aiohttp.ClientConnectorError,
        **kwargs: Any,
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        """Connect to the first address; the caller goes on to the next one if that fails."""
        del timeout, client_error  # the caller of the connector has a deadline for all of it
        with _failing(req):
            return await self._tunnel(addr_infos[0][4], *args, **kwargs)

    async def _tunnel(
        self,
        address: Sequence[Any],
        factory: Callable[[], ResponseHandler],
        *,
        ssl: ssl.SSLContext | None,
        server_hostname: str | None,
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        way = _way.get(_Way())
        way.to, way.since, way.watched = "proxy", self._loop.time(), False
        transport, answer = await self._greet(await self._connect())
        try:
            way.to = "answer"
            transport.write(self._request(str(address[0]), int(address[1])))
            head = await answer.came
            if head:
                self._answered_at = self._loop.time()
            _judge(head)
            way.to = "destination"
            if transport.is_closing():
                raise ConnectionResetError
            protocol = factory()
            if ssl is None:
                transport.set_protocol(protocol)
                protocol.connection_made(transport)
                return transport, protocol
            inner = await self._loop.start_tls(transport, protocol, ssl, server_hostname=server_hostname)
            if inner is None:  # it was closed meanwhile
                raise ConnectionResetError
            protocol.connection_made(inner)
        except BaseException:
            transport.abort()
            raise
        return inner, protocol

    async def _greet(self, sock: socket.socket) -> tuple[asyncio.Transport, "_Answer"]:
        """Speak TLS with the proxy if its URL says so: it must be who that says."""
        answer = _Answer(self._loop)
        context, name = (self._context, self._proxy.host) if self._proxy.tls else (None, None)
        try:
            transport, _ = await self._loop.create_connection(
                lambda: answer, sock=sock, ssl=context, server_hostname=name
            )
        except OSError as error:  # those of TLS among them
            sock.close()
            raise ProxyError("proxy_unreachable", f"there is no TLS with the proxy: {error}") from error
        return transport, answer

    async def _connect(self) -> socket.socket:
        wrong: OSError | None = None
        try:
            found = await self._names.resolve(self._proxy.host, self._proxy.port, socket.AF_UNSPEC)
        except OSError as error:
            raise ProxyError("proxy_unreachable", f"the proxy's name does not resolve: {error}") from error
        for one in found:
            sock = socket.socket(one["family"], socket.SOCK_STREAM)
            sock.setblocking(False)
            try:
                await self._loop.sock_connect(sock, (one["host"], self._proxy.port))
            except OSError as error:
                sock.close()
                wrong = error
            except BaseException:
                sock.close()
                raise
            else:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return sock
        raise ProxyError("proxy_unreachable", f"the proxy cannot be reached: {wrong}")

    def _request(self, host: str, port: int) -> bytes:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {where} HTTP/1.1", f"Host: {where}"]
        if self._proxy.authorization is not None:
            lines.append(f"Proxy-Authorization: {self._proxy.authorization}")
        return "\r\n".join([*lines, "", ""]).encode("ascii")


class _Answer(asyncio.Protocol):
    """What a proxy answers to CONNECT, as far as its head goes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.came: asyncio.Future[bytes] = loop.create_future()
        self._head = b""

    def data_received(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head or len(self._head) >= HEAD_LIMIT:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc  # whatever ended it, what came is judged
        self._end()

    def _end(self) -> None:
        if not self.came.done():
            self.came.set_result(self._head)


def _judge(answer: bytes) -> None:
    """Raise OSError unless a proxy has made the tunnel: ProxyError if that is its own affair."""
    said = _STATUS.match(answer)
    head, end, rest = answer.partition(b"\r\n\r\n")
    if said is None or not end:
        raise ProxyError("proxy_unreachable", f"what the proxy answered is no answer to CONNECT: {head[:80]!r}")
    status = int(said[1])
    if 200 <= status < 300:
        if rest:  # nobody speaks in a tunnel before we do
            raise ProxyError("proxy_unreachable", "the proxy sent more than its answer")
        return
    if status in _NOT_THERE:
        raise ConnectionError(f"the proxy could not reach the address: {status}")
    if status >= 500:
        raise ProxyError("proxy_failed", f"the proxy failed: {status}")
    raise ProxyError("proxy_refused", f"the proxy refused the tunnel: {status}")
