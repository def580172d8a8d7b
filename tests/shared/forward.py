"""A forward proxy, by TLS or not, that makes the tunnels it is asked for."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import MappingProxyType

from serving import Serving
from wires import pump


class Forward(Serving):
    """A forward proxy that makes tunnels and keeps what it was asked for."""

    def __init__(
        self, context: ssl.SSLContext | None = None, *, elsewhere: Mapping[int, int] = MappingProxyType({})
    ) -> None:
        """`elsewhere` says which port of this machine stands for another one."""
        super().__init__(context)
        self._elsewhere = elsewhere
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer = "200 Connection established"
        # At a request whose first line is like that, waits for ever, or closes without an answer.
        self.waits: Callable[[str], bool] = lambda _: False
        self.closes: Callable[[str], bool] = lambda _: False

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and pass on what goes through the tunnel that it has asked for."""
        with suppress(OSError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            self.asked.append((head[0], headers))
            if self.waits(head[0]):
                await asyncio.get_running_loop().create_future()
            if self.closes(head[0]):
                return
            writer.write(f"HTTP/1.1 {self.answer}\r\n\r\n".encode())
            await writer.drain()
            if self.answer.startswith("200") and head[0].startswith("CONNECT "):
                host, port = head[0].split()[1].rsplit(":", 1)
                there, back = await asyncio.open_connection(host.strip("[]"), self._elsewhere.get(int(port), int(port)))
                try:
                    await asyncio.gather(pump(reader, back), pump(there, writer))
                finally:
                    back.close()
