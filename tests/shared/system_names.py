"""A system's resolver for tests, that answers, hangs and fails as it is told."""

import socket
import threading
from collections import Counter

from kapsel_deliverer.names import Address


class System:
    """A system's resolver: names that begin with `hangs` keep their threads until they are released."""

    def __init__(self) -> None:
        self.addresses = ["192.0.2.1"]
        self.failure: OSError | None = None
        self.hangs = False  # all names do
        self.released = threading.Event()
        self.asked: Counter[str] = Counter()

    def __call__(self, host: str, family: socket.AddressFamily) -> list[Address]:
        assert family == socket.AF_UNSPEC
        self.asked[host] += 1
        if self.hangs or host.startswith("hangs"):
            self.released.wait()
        if self.failure is not None:
            raise self.failure
        return [Address(address, socket.AF_INET, 0) for address in self.addresses]
