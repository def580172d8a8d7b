"""Ports that nobody else takes, for programs that cannot be told to choose one themselves or to share a held one.

They lie below those that the system hands out, so no connection and no server that asked for any port gets them; among
the processes of the tests a locked file says whose each is.
"""

import fcntl
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

ADDRESS: Final = "127.0.0.1"
FIRST: Final = 20_000
END: Final = 30_000


@contextmanager
def own_ports(count: int) -> Iterator[list[int]]:
    """Give as many free ports in a row, until the end of the block."""
    for first in range(FIRST, END, count):
        with ExitStack() as held:
            ports = list(range(first, first + count))
            if all(_take(held, port) for port in ports) and all(map(_is_free, ports)):
                yield ports
                return
    message = f"no {count} ports in a row from {FIRST} to {END} are free"
    raise RuntimeError(message)


def _take(held: ExitStack, port: int) -> bool:
    file = held.enter_context((Path(tempfile.gettempdir()) / f"kapsel-test-port-{port}").open("wb"))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(port: int) -> bool:
    try:
        socket.create_server((ADDRESS, port)).close()
    except OSError:
        return False
    return True
