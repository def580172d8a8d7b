"""Tells the resources that a Relay speaks for how they are: their statuses, and what these come to for the Relay.

`reconcile` calls `Teller.tell` once in each reconcile. With thousands of endpoints nothing is worked out twice: as long
as neither the facts nor what was told before has changed, the last result stands.
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final

from kapsel_operator import statuses
from kapsel_operator.apply import Writer
from kapsel_operator.gather import Running
from kapsel_operator.memory import Memory, Shown, Told
from kapsel_operator.replay_status import replay
from kapsel_operator.scopes import Scope
from kapsel_operator.statuses import View
from kapsel_operator.store import Declared, Store
from kapsel_resources.kinds.attestation_log import AttestationLog
from kapsel_resources.kinds.replay import Replay
from kapsel_resources.kinds.retry_policy import RetryPolicy
from kapsel_resources.kinds.signing_key import SigningKey
from kapsel_resources.kinds.webhook_endpoint import WebhookEndpoint

_FAILING: Final = frozenset({"CircuitOpen", "DisableWarning", "Disabled", "Failing"})
_DONE: Final = {"status": "True"}


class Teller:
    """Writes the statuses of everything but the Relays."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer

    async def tell(self, scope: Scope, view: View, running: Running, memory: Memory) -> Told:
        """Write the statuses of everything that the Relay speaks for."""
        basis = (view.planned, view.plane, view.doing, view.url, view.nameless, view.refusals, running.replays, scope)
        shown = memory.shown
        if shown is not None and shown.revision == self._store.told and _same(shown.basis, basis):
            return shown.told
        counts = _Counts()
        wanted = counts.over(self._statuses(scope, view, running))
        if view.planned is None:
            # Nothing is known of them but that the database is away: what was known before stays.
            await self._writer.conditions(wanted)
        else:
            await self._writer.statuses(wanted)
        told = counts.told()
        # Our own writes count as changes too: the next reconcile compares once more, and then nothing has changed.
        memory.shown = Shown(self._store.told, basis, told)
        return told

    def _statuses(self, scope: Scope, view: View, running: Running) -> Iterator[tuple[Declared, dict[str, Any]]]:
        for identity in sorted(scope.speaks_for):
            one = self._store.find(identity)
            if one is None or not scope.is_about(one):
                continue  # gone, or changed meanwhile: what is planned is not what it says now, and it is due again
            match one.resource:
                case WebhookEndpoint():
                    yield one, statuses.endpoint(one, view)
                case RetryPolicy():
                    yield one, statuses.retry_policy(one, one.resource, view)
                case SigningKey():
                    yield one, statuses.signing_key(one, one.resource, view)
                case AttestationLog():
                    yield one, statuses.attestation_log(one, view, superseded=identity in scope.superseded)
                case Replay():
                    told = view.planned.told.get(identity) if view.planned else None
                    if view.plane.away is None:
                        yield one, replay(one, told, running.replays.get(identity), view.now)


class _Counts:
    """Counts statuses as they go by."""

    def __init__(self) -> None:
        self._endpoints = 0
        self._unhealthy = 0
        self._settled = True

    def over(self, wanted: Iterable[tuple[Declared, dict[str, Any]]]) -> Iterator[tuple[Declared, dict[str, Any]]]:
        """Pass statuses on."""
        for one, status in wanted:
            self._count(one, {said["type"]: said for said in status.get("conditions", ())})
            yield one, status

    def told(self) -> Told:
        """Return what they came to."""
        return Told(endpoints=self._endpoints, unhealthy=self._unhealthy, settled=self._settled)

    def _count(self, one: Declared, said: dict[str, Any]) -> None:
        if one.identity.kind == "WebhookEndpoint":
            self._endpoints += 1
            delivering = said.get("Delivering")
            fails = delivering is not None and delivering["reason"] in _FAILING
            self._unhealthy += fails or said["Ready"]["status"] == "False"
        under_way = said["Ready"]["status"] == "Unknown" or said.get("Complete", _DONE)["status"] != "True"
        self._settled = self._settled and not under_way


def _same(old: tuple[Any, ...], new: tuple[Any, ...]) -> bool:
    return all(mine is its or mine == its for mine, its in zip(old, new, strict=True))
