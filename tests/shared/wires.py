"""A TCP port that passes everything on to somewhere else, and that can be cut and mended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Self
from urllib.parse import parse_qs, urlencode, urlsplit

Opened = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes until nothing comes any more."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


class Withheld(asyncio.StreamReader):
    """What another reader brings, while `passing` is set."""

    def __init__(self, of: asyncio.StreamReader, passing: asyncio.Event) -> None:
        super().__init__()
        self._of = of
        self._passing = passing

    async def read(self, n: int = -1) -> bytes:
        data = await self._of.read(n)
        await self._passing.wait()
        return data


class Wire:
    """One port; `open_there` connects to where it leads."""

    def __init__(self, open_there: Callable[[], Awaitable[Opened]], url: Callable[[int], str]) -> None:
        """`url` says how the port is called as a URL."""
        self.open_there = open_there
        self.named = url
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_cut = False
        self.connections = 0  # so far, those that were refused too
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.url = self.named(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self.cut()

    async def cut(self) -> None:
        """Break all connections and refuse new ones."""
        self._is_cut = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def mend(self) -> None:
        """Take connections again."""
        self._is_cut = False

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if not self._is_cut:
                there, back = await self.open_there()
                try:
                    await asyncio.gather(pump(reader, back), pump(there, writer))
                finally:
                    back.close()
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


def to_postgres(url: str) -> Wire:
    """Return a wire to a Postgres that listens on a Unix socket."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    socket = f"{query['host']}/.s.PGSQL.{query.get('port', 5432)}"
    return Wire(
        lambda: asyncio.open_unix_connection(socket),
        lambda port: parts._replace(query=urlencode({**query, "host": "127.0.0.1", "port": port})).geturl(),
    )
