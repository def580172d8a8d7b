"""A wire to Postgres that breaks at a chosen statement: before the server has seen its end, or before its answer is."""

import asyncio
import shutil
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, Self

FRONT: Final = frozenset({b"S", b"Q", b"c"})  # what ends a statement: Sync, a simple query, the end of a COPY
BACK: Final = frozenset({b"Z", b"G"})  # what answers one: ready for the next, or for the data of a COPY

Side = Literal["before", "after"]
At = Callable[[int, list[str]], bool]  # of a statement: its number among all, and the SQL so far on its connection


class CuttingWire:
    """Stands between a client and the Unix socket of a server, and counts the statements of all its connections."""

    def __init__(self, url: str, at: At, side: Side, on_cut: Callable[[], None] = lambda: None) -> None:
        """Break at the first statement that `at` says yes to, and call `on_cut` at that moment."""
        parts = urllib.parse.urlsplit(url)
        self._query = dict(urllib.parse.parse_qsl(parts.query))
        self._upstream = Path(self._query["host"]) / f".s.PGSQL.{self._query['port']}"
        self._directory = tempfile.mkdtemp(prefix="cut")  # short, for the name of a socket is
        self._database = parts.path
        self._at = at
        self._side = side
        self._on_cut = on_cut
        self._tasks: set[asyncio.Task[None]] = set()
        self.seen = 0
        self.cut = False

    @property
    def url(self) -> str:
        """Where the client is to connect."""
        return f"postgresql://{self._database}?" + urllib.parse.urlencode(self._query | {"host": self._directory})

    async def __aenter__(self) -> Self:
        path = f"{self._directory}/.s.PGSQL.{self._query['port']}"
        self._server = await asyncio.start_unix_server(self._serve, path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        shutil.rmtree(self._directory)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if self.cut:
            writer.close()
            return
        up_reader, up_writer = await asyncio.open_unix_connection(str(self._upstream))
        ending = asyncio.Event()  # the server is at the statement after whose end the wire breaks
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._forward(reader, up_writer, ending))
                tasks.create_task(self._back(up_reader, writer, ending))
        except* (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            up_writer.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ending: asyncio.Event) -> None:
        size = await reader.readexactly(4)
        writer.write(size + await reader.readexactly(int.from_bytes(size) - 4))
        texts = list[str]()
        while True:
            kind, body = await _message(reader)
            if kind in b"PQ":
                texts.append(body[5:].split(b"\0")[kind == b"P"].decode())
            if kind in FRONT:
                self.seen += 1
                if not self.cut and self._at(self.seen, texts):
                    if self._side == "before":
                        self._break()
                    ending.set()
            writer.write(body)
            await writer.drain()

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ending: asyncio.Event) -> None:
        while True:
            kind, body = await _message(reader)
            if ending.is_set() and kind in BACK:
                self._break()
            writer.write(body)
            await writer.drain()

    def _break(self) -> None:
        self.cut = True
        self._on_cut()
        raise ConnectionResetError


async def _message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(int.from_bytes(head[1:]) - 4)
