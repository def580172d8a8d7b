"""A forward proxy, by TLS or not, that makes the tunnels it is asked for."""

import asyncio
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

from wires import pump


class Forward:
    """A forward proxy that makes tunnels and keeps what it was asked for."""

    def __init__(
        self, context: ssl.SSLContext | None = None, *, elsewhere: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        """With a context the way to it is TLS; `elsewhere` says which port of this machine stands for another one."""
        self._context = context
        self._elsewhere = elsewhere
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer = "200 Connection established"
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            self.asked.append((head[0], headers))
            writer.write(f"HTTP/1.1 {self.answer}\r\n\r\n".encode())
            await writer.drain()
            if self.answer.startswith("200"):
                host, port = head[0].split()[1].rsplit(":", 1)
                there, back = await asyncio.open_connection(host.strip("[]"), self._elsewhere.get(int(port), int(port)))
                try:
                    await asyncio.gather(pump(reader, back), pump(there, writer))
                finally:
                    back.close()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()
