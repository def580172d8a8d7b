"""Who may take the Lease: decided by one's own clock alone."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from kapsel_operator.cluster import Cluster
from kapsel_operator.errors import LeaseLostError
from kapsel_operator.lease import DURATION, RENEW_DEADLINE, Lease, Observed
from kapsel_operator.metrics import Metrics


def lease(version: str, holder: str) -> dict[str, object]:
    return {"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder}}


UNSEEN = Observed(version="", holder="", at=0.0)


def test_a_lease_of_somebody_else_is_free_when_it_has_not_changed_for_its_duration() -> None:
    seen = UNSEEN.next(lease("1", "other"), 100.0)
    assert not seen.is_free("me", 100.0 + DURATION)
    assert seen.next(lease("1", "other"), 110.0).is_free("me", 100.1 + DURATION)


def test_a_renewal_makes_the_wait_begin_anew() -> None:
    seen = UNSEEN.next(lease("1", "other"), 100.0).next(lease("2", "other"), 110.0)
    assert not seen.is_free("me", 110.0 + DURATION)


def test_ones_own_lease_and_one_that_was_given_back_are_free() -> None:
    assert UNSEEN.next(lease("1", "me"), 100.0).is_free("me", 100.0)
    assert UNSEEN.next(lease("1", ""), 100.0).is_free("me", 100.0)


class SlowApiServer:
    """A transport with an API server behind it that takes a Lease at once, answers late, and then takes no more."""

    status = 200

    def __init__(self, late: float) -> None:
        self.configuration = SimpleNamespace(host="")
        self.rest_client = self
        self._late = late
        self._ahead = 0.0  # of the real clock
        self._real = asyncio.get_running_loop().time
        self._answer = b""
        self.taken_at: float | None = None

    def time(self) -> float:
        return self._real() + self._ahead

    async def update_params_for_auth(self, *_: Any) -> None:
        """Nobody has to say who he is."""

    async def request(self, method: str, url: str, *, body: Any = None, **_: Any) -> Any:
        if method == "GET" and self.taken_at is None:
            return SimpleNamespace(status=404, read=self.read)
        if method != "POST":
            self._ahead += 1.0
            return SimpleNamespace(status=503, read=self.read)
        self.taken_at = self.time()
        self._ahead += self._late
        self._answer = json.dumps({**body, "metadata": {**body["metadata"], "resourceVersion": "1"}}).encode()
        return self

    async def read(self) -> bytes:
        return self._answer


async def test_a_lease_whose_write_was_answered_late_is_given_up_before_anybody_else_may_take_it() -> None:
    server = SlowApiServer(late=RENEW_DEADLINE - 1.0)
    asyncio.get_running_loop().time = server.time  # type: ignore[method-assign]
    cluster = Cluster(server, Metrics(CollectorRegistry()))  # type: ignore[arg-type]
    lease = Lease(cluster, namespace="shop", name="kapsel", identity="me")
    assert await lease.acquire(asyncio.Event())
    with pytest.raises(LeaseLostError):
        await lease.hold(asyncio.Event())
    assert server.taken_at is not None
    assert server.time() - server.taken_at < DURATION
