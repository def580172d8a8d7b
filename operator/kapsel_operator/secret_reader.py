"""Secrets, read one by one by name: the operator has no right to list or watch them.

What was read is used again until it is `interval` old. With very many Secrets they are read less often, so that reading
them never becomes the operator's main work.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from kapsel_operator.apis import SECRET
from kapsel_operator.cluster import Cluster
from kapsel_operator.errors import ApiError
from kapsel_resources import manifests
from kapsel_resources.kinds.core import Secret

AT_ONCE: Final = 8
SECONDS_EACH: Final = 0.02  # each Secret is read at most so often that all together are 50 a second
FORGOTTEN_AFTER: Final = 3600.0

Name = tuple[str, str]  # namespace and name


class Absent(Enum):
    """Why there is nothing to read."""

    MISSING = "missing"
    UNREADABLE = "unreadable"  # the operator may not read it, or it is no Secret as Kubernetes makes them


Found = Secret | Absent


@dataclass(slots=True)
class _Read:
    found: Found
    at: float
    asked: float


class SecretReader:
    """Reads Secrets and remembers them for a while."""

    def __init__(self, cluster: Cluster, interval: float) -> None:
        self._cluster = cluster
        self._interval = interval
        self._read: dict[Name, _Read] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def read(self, names: Iterable[Name]) -> Mapping[Name, Found]:
        """Return what there is under each name; raise ApiError if that cannot be known."""
        wanted = sorted(set(names))
        found = await asyncio.gather(*(self._one(name) for name in wanted))
        return dict(zip(wanted, found, strict=True))

    async def fresh(self, name: Name) -> Found:
        """Return what there is under a name just now."""
        async with self._slots:
            found = await self._get(name)
        self._read[name] = _Read(found, self._now(), self._now())
        return found

    def put(self, name: Name, found: Found) -> None:
        """Remember what the operator itself has just written."""
        self._read[name] = _Read(found, self._now(), self._now())

    def sweep(self) -> None:
        """Forget what nobody has asked for in a long time."""
        now = self._now()
        self._read = {name: one for name, one in self._read.items() if now - one.asked < FORGOTTEN_AFTER}

    async def _one(self, name: Name) -> Found:
        known = self._read.get(name)
        now = self._now()
        # What is missing may come at any moment, and somebody waits for it.
        if known is not None and not isinstance(known.found, Absent):
            known.asked = now
            if now - known.at < max(self._interval, SECONDS_EACH * len(self._read)):
                return known.found
        try:
            return await self.fresh(name)
        except ApiError:
            if known is None:
                raise
            return known.found  # as good as it was; the next reconcile asks again

    async def _get(self, name: Name) -> Found:
        try:
            body = await self._cluster.get(SECRET, *name)
        except ApiError as error:
            if error.status == 403:
                return Absent.UNREADABLE
            raise
        if body is None:
            return Absent.MISSING
        parsed = manifests.parse(body)
        return parsed if isinstance(parsed, Secret) else Absent.UNREADABLE

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
