"""The TCP ports of one `kapsel up`: reserved before anything is started, so that a taken one is named with its flag.

They stay bound as long as it runs, so that nobody else takes one while a process that listens there is started again;
the processes share them by SO_REUSEPORT.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from kapsel_cli.errors import CliError, PortTakenError

FIRST_HEALTH_OFFSET: Final = 10
LOCAL: Final = "127.0.0.1"
ORDER: Final = ("receiver", "deliverer", "attestor", "console")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Which port serves what; with `--port 8080`: ingest 8080, console 8081, health and metrics from 8090 on.

    Only ingest is ever on the address that the person names: whoever reaches the console may read every event.
    """

    ingest: int
    console: int
    health: tuple[int, ...]


def count(kind: str, workers: int) -> int:
    """Return how many processes of a kind there are."""
    return workers if kind in ("receiver", "deliverer") else 1


@contextmanager
def reserved(host: str, port: int, workers: int) -> Iterator[Ports]:
    """Hold the ports that follow from `port`, or free ones if it is 0; raise PortTakenError for a taken one."""
    health_count = sum(count(kind, workers) for kind in ORDER)
    offsets = (0, 1, *(FIRST_HEALTH_OFFSET + n for n in range(health_count)))
    if port + offsets[-1] > 65535:
        raise CliError(f"--port {port} leaves no room for the ports after it", "Choose one below 65000")
    with ExitStack() as stack:
        ingest, console, *health = (
            stack.enter_context(_held(host if offset == 0 else LOCAL, port and port + offset, port)).getsockname()[1]
            for offset in offsets
        )
        yield Ports(ingest=ingest, console=console, health=tuple(health))


def _held(host: str, wanted: int, base: int) -> socket.socket:
    """Return a socket that is bound to a port, if nobody else is, and lets others listen there that mean to share."""
    try:
        if wanted:
            _bound(host, wanted, socket.SO_REUSEADDR).close()  # as servers do: connections that just ended do not count
        return _bound(host, wanted, socket.SO_REUSEPORT)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"port {wanted} on {host} is taken" + ("" if wanted == base else f" (it follows from --port {base})"),
                "Choose another base with --port, or --port 0 for free ones",
            ) from error
        raise CliError(
            f"cannot listen on {host} port {wanted}: {error.strerror}",
            "Choose an address of this machine with --host and a port with --port",
        ) from error


def _bound(host: str, port: int, option: int) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
