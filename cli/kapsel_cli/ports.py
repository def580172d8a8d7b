"""The TCP ports of one `kapsel up`: checked before anything is started, so that a taken one is named with its flag."""

import errno
import socket
from collections.abc import Iterator, Sequence
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


def choose(host: str, port: int, workers: int) -> Ports:
    """Return the ports that follow from `port`, or free ones if it is 0; raise PortTakenError for a taken one."""
    health_count = sum(count(kind, workers) for kind in ORDER)
    if port == 0:
        ingest, console, *health = _free([host, *[LOCAL] * (1 + health_count)])
        return Ports(ingest=ingest, console=console, health=tuple(health))
    chosen = Ports(
        ingest=port, console=port + 1, health=tuple(port + FIRST_HEALTH_OFFSET + n for n in range(health_count))
    )
    if chosen.health[-1] > 65535:
        raise CliError(f"--port {port} leaves no room for the ports after it", "Choose one below 65000")
    _check(host, chosen.ingest, port)
    for wanted in (chosen.console, *chosen.health):
        _check(LOCAL, wanted, port)
    return chosen


def _check(host: str, wanted: int, port: int) -> None:
    try:
        _bound(host, wanted).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTakenError(
                f"port {wanted} on {host} is taken" + ("" if wanted == port else f" (it follows from --port {port})"),
                "Choose another base with --port, or --port 0 for free ones",
            ) from error
        raise CliError(
            f"cannot listen on {host} port {wanted}: {error.strerror}",
            "Choose an address of this machine with --host and a port with --port",
        ) from error


def _free(hosts: Sequence[str]) -> Iterator[int]:
    """Return free ports, all different: each stays bound until the last one is found."""
    held = [_bound(host, 0) for host in hosts]
    ports = [int(taken.getsockname()[1]) for taken in held]
    for taken in held:
        taken.close()
    return iter(ports)


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        if port:  # as servers do: not hindered by connections that have just ended
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound
