"""One of several operators works: the one that holds the Lease. The others stand by.

A holder renews every 2 s, and gives up 10 s after it asked for the last renewal that succeeded; others may take the
Lease when it has not changed for 15 s. So two never work at once, as long as no clock runs half as fast again as
another; times of other machines are not compared. Whoever has lost the Lease ends its process: nothing of it can go on
then.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from kapsel_operator.apis import LEASE
from kapsel_operator.cluster import Cluster
from kapsel_operator.errors import ApiError, LeaseLostError
from kapsel_runtime.waiting import until

DURATION: Final = 15.0  # seconds
RENEW_DEADLINE: Final = 10.0
RETRY_PERIOD: Final = 2.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A Lease as it was seen, and when, by this process's own clock."""

    version: str
    holder: str
    at: float

    def next(self, found: dict[str, Any], now: float) -> "Observed":
        """Return what is known after another look: the time counts from when it last changed."""
        version = found["metadata"]["resourceVersion"]
        if version == self.version:
            return self
        return Observed(version=version, holder=found["spec"].get("holderIdentity") or "", at=now)

    def is_free(self, identity: str, now: float) -> bool:
        """Return whether an operator may take the Lease."""
        return self.holder in ("", identity) or now - self.at > DURATION


_UNSEEN: Final = Observed(version="", holder="", at=0.0)


class Lease:
    """The Lease as one operator sees it."""

    def __init__(self, cluster: Cluster, *, namespace: str, name: str, identity: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._observed = _UNSEEN
        self._renewed = 0.0  # when the last write that succeeded was asked for: its answer may have been late
        self._written: dict[str, Any] | None = None  # as this operator wrote it last, as long as nobody else did
        self.held = False

    @property
    def holder(self) -> str:
        """Who held it when this operator last looked."""
        return self._observed.holder

    async def acquire(self, stopping: asyncio.Event) -> bool:
        """Wait until this operator holds the Lease; False if it is to stop before."""
        while not stopping.is_set():
            try:
                if await self._take():
                    self.held = True
                    return True
            except ApiError as error:
                logger.warning("the Lease could not be asked for: %s", error)
            await until(stopping, timeout=RETRY_PERIOD)
        return False

    async def hold(self, stopping: asyncio.Event) -> None:
        """Renew the Lease until `stopping`; raise LeaseLostError when that did not succeed in time."""
        while not stopping.is_set():
            await until(stopping, timeout=RETRY_PERIOD)
            try:
                async with asyncio.timeout_at(self._renewed + RENEW_DEADLINE):
                    taken = await self._take()
                if not taken and self.holder != self._identity:
                    self.held = False
                    raise LeaseLostError(f"the Lease is held by {self.holder}")
            except (ApiError, TimeoutError) as error:
                logger.warning("the Lease could not be renewed: %s", str(error) or "no answer in time")
                if self._now() - self._renewed >= RENEW_DEADLINE:
                    self.held = False
                    raise LeaseLostError(f"the Lease was not renewed for {RENEW_DEADLINE:g} s") from error

    async def release(self) -> None:
        """Let the next operator take the Lease at once."""
        if not self.held:
            return
        self.held = False
        try:
            found = await self._cluster.get(LEASE, self._namespace, self._name)
            if found is not None and found["spec"].get("holderIdentity") == self._identity:
                await self._write(found, holder="", duration=1)
        except ApiError as error:
            logger.info("the Lease was not given back, and runs out by itself: %s", error)

    async def _take(self) -> bool:
        """Take or renew the Lease; False if somebody else holds it."""
        # Who holds it knows it as it was written last: one request renews it, unless somebody else has touched it.
        found = self._written or await self._cluster.get(LEASE, self._namespace, self._name)
        if found is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            found = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": {}}
            await self._create(found)
            return True
        self._observed = self._observed.next(found, self._now())
        if not self._observed.is_free(self._identity, self._now()):
            return False
        try:
            await self._write(found, holder=self._identity, duration=int(DURATION))
        except ApiError as error:
            self._written = None
            if error.status == 409:  # somebody was faster; who it was shows at the next look
                return False
            raise
        return True

    async def _create(self, lease: dict[str, Any]) -> None:
        now = _micro_time()
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": int(DURATION),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": 0,
        }
        asked = self._now()
        created = await self._cluster.create(LEASE, self._namespace, {**lease, "spec": spec})
        self._renewed = asked
        self._observed, self._written = _UNSEEN.next(created, self._now()), created

    async def _write(self, found: dict[str, Any], *, holder: str, duration: int) -> None:
        spec = found["spec"]
        changes = spec.get("holderIdentity") != holder
        now = _micro_time()
        new = {
            "holderIdentity": holder,
            "leaseDurationSeconds": duration,
            "acquireTime": now if changes else spec.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(spec.get("leaseTransitions") or 0) + (1 if changes and holder else 0),
        }
        asked = self._now()
        written = await self._cluster.replace(LEASE, self._namespace, self._name, {**found, "spec": new})
        self._renewed = asked
        self._observed, self._written = self._observed.next(written, self._now()), written

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _micro_time() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
