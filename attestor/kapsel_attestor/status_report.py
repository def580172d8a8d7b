"""What `kubectl get attestationlogs` says of a log: its newest head, whether it holds together, whether it is fresh.

The attestor that leads the log tells; a task of its own writes, so that a slow API server delays no leaf. Conditions
are written when they change, a head alone at most every 30 s, and what already stands there is not written again. It
goes by server-side apply and never names the fence, which therefore cannot be touched from here.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from kapsel_attestor.api_server import APPLY, ApiServer, Document
from kapsel_attestor.errors import FenceAwayError, RefusedError
from kapsel_attestor.kubernetes_fence import API_VERSION, MANAGER, status_path
from kapsel_resources.reasons import AttestorCondition
from kapsel_runtime.backoff import patient
from kapsel_runtime.waiting import until
from kapsel_store.log_keys import LogKey
from kapsel_store.tlog import HeadRow
from kapsel_verifier.note import VerifierKey

HEAD_INTERVAL: Final = timedelta(seconds=30)  # between two writes that only a head is the reason of
LOOK: Final = 5.0  # seconds between looks at whether the head is still fresh
MOST_KEYS: Final = 32  # that a status has: the newest
GRACE: Final = timedelta(minutes=1)  # that a head may be late before it is called stale

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the attestor that leads the log knows of it."""

    head: HeadRow | None  # the newest that was published
    due: timedelta  # how old a head may become before the next
    frozen: str | None = None  # why the log must not be signed any more
    trouble: str | None = None  # why nothing is signed until a person acts
    late: str | None = None  # why the newest try to publish a head failed


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition as this attestor sees it."""

    type: AttestorCondition
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def conditions(standing: Standing, now: datetime) -> tuple[Condition, Condition]:
    """Return LogConsistent and CheckpointFresh."""
    return _consistent(standing), _fresh(standing, now)


def _consistent(standing: Standing) -> Condition:
    if standing.frozen is not None:
        return Condition(type="LogConsistent", status="False", reason="Frozen", message=standing.frozen)
    if standing.trouble is not None:
        return Condition(type="LogConsistent", status="Unknown", reason="NotSigned", message=standing.trouble)
    return Condition(type="LogConsistent", status="True", reason="Consistent", message="it continues what was signed")


def _fresh(standing: Standing, now: datetime) -> Condition:
    trouble = standing.frozen or standing.trouble
    if trouble is not None:
        return Condition(type="CheckpointFresh", status="False", reason="NotSigned", message=trouble)
    if standing.head is None:
        message = "no head was published yet" + (f": {standing.late}" if standing.late else "")
        return Condition(type="CheckpointFresh", status="False", reason="NoHead", message=message)
    if now - _time(standing.head) > standing.due + GRACE:
        message = f"the last head is of {_text(_time(standing.head))}" + (f": {standing.late}" if standing.late else "")
        return Condition(type="CheckpointFresh", status="False", reason="Stale", message=message)
    return Condition(type="CheckpointFresh", status="True", reason="Fresh", message="heads are published in time")


def status(
    found: Document, wanted: Sequence[Condition], head: HeadRow | None, now: datetime, keys: Sequence[Document] = ()
) -> dict[str, Any]:
    """Return this attestor's part of the status of an object; a condition keeps its time until it turns."""
    generation = found["metadata"].get("generation", 0)
    before = {one["type"]: one for one in (found.get("status") or {}).get("conditions", [])}
    told = []
    for one in wanted:
        known = before.get(one.type, {})
        turned = _text(now) if known.get("status") != one.status else known["lastTransitionTime"]
        told.append(
            {
                "type": one.type,
                "status": one.status,
                "observedGeneration": generation,
                "lastTransitionTime": turned,
                "reason": one.reason,
                "message": one.message[:1024],
            }
        )
    part: dict[str, Any] = {"conditions": told}
    if head is not None:
        part["head"] = {
            "treeSize": head.tree_size,
            "rootHash": head.root.hex(),
            "timestamp": _text(_time(head)),
            "checkpoint": head.checkpoint,
        }
    if keys:
        part["keys"] = list(keys[-MOST_KEYS:])
    return part


def key_documents(origin: str, history: Sequence[LogKey]) -> list[Document]:
    """Return the keys of a log as its status has them."""
    told: list[Document] = []
    for one in history:
        key = VerifierKey(origin, one.public_key)
        document = {
            "id": key.key_id.hex(),
            "publicKey": key.encode(),
            "notBefore": _text(_moment(one.not_before_ms)),
        }
        if one.not_after_ms is not None:
            document["notAfter"] = _text(_moment(one.not_after_ms))
        told.append(document)
    return told


def stands(found: Document, part: Document) -> bool:
    """Whether an object already says this."""
    current = found.get("status") or {}
    before = {one["type"]: one for one in current.get("conditions", [])}
    same = all(current.get(name) == part.get(name) for name in ("head", "keys"))
    return same and all(before.get(one["type"]) == one for one in part["conditions"])


class Reporter:
    """Writes what it was told last."""

    def __init__(self, api: ApiServer, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._standing: Standing | None = None
        self._said: dict[str, Condition] = {}
        self._keys: Sequence[Document] = ()
        self._changed = asyncio.Event()
        self._conditions: Sequence[Condition] = ()  # as written last
        self._head: HeadRow | None = None
        self._complained = ""

    def tell(self, standing: Standing | None) -> None:
        """Have this written; None: another attestor leads the log, and tells of it."""
        if standing is None:
            self._conditions, self._head = (), None
            self._said.clear()
        self._standing = standing
        self._changed.set()

    def show_keys(self, keys: Sequence[Document]) -> None:
        """Have the keys of the log written with the next head."""
        self._keys = keys

    def say(self, condition: Condition) -> None:
        """Have a condition of what runs beside the log written, too, for as long as this attestor leads it."""
        self._said[condition.type] = condition
        self._changed.set()

    async def run(self, ended: asyncio.Event) -> None:
        """Write until `ended`, and then once more what is new."""
        loop = asyncio.get_running_loop()
        waits, may_write, head_due = patient(), 0.0, 0.0
        while not ended.is_set():
            self._changed.clear()
            if loop.time() >= may_write and self._is_due(loop.time() >= head_due):
                if await self._write():
                    waits, head_due = patient(), loop.time() + HEAD_INTERVAL.total_seconds()
                else:
                    may_write = loop.time() + next(waits)
            await until(self._changed, ended, timeout=LOOK)
        if self._is_due(True):
            await self._write()

    def _is_due(self, with_head: bool) -> bool:
        standing = self._standing
        if standing is None:
            return False
        turned = [(one.type, one.status, one.message) for one in self._wanted(standing)]
        if turned != [(one.type, one.status, one.message) for one in self._conditions]:
            return True
        return with_head and standing.head != self._head

    def _wanted(self, standing: Standing) -> tuple[Condition, ...]:
        return *conditions(standing, datetime.now(UTC)), *self._said.values()

    async def _write(self) -> bool:
        standing = self._standing
        if standing is None:
            return True
        wanted = self._wanted(standing)
        try:
            await asyncio.to_thread(self._apply, wanted, standing.head)
        except (FenceAwayError, RefusedError) as error:
            if str(error) != self._complained:
                logger.warning("the status of the log cannot be written: %s", error)
            self._complained = str(error)
            return False
        self._complained = ""
        self._conditions, self._head = wanted, standing.head
        return True

    def _apply(self, wanted: Sequence[Condition], head: HeadRow | None) -> None:
        path = status_path(self._namespace, self._name)
        found = self._api.request("GET", path)
        if found.status != 200:
            raise RefusedError(found.message)
        part = status(found.body, wanted, head, datetime.now(UTC), self._keys)
        if stands(found.body, part):
            return
        patch = {
            "apiVersion": API_VERSION,
            "kind": "AttestationLog",
            "metadata": {"namespace": self._namespace, "name": self._name},
            "status": part,
        }
        answer = self._api.request("PATCH", f"{path}?fieldManager={MANAGER}&force=true", patch, form=APPLY)
        if answer.status != 200:
            raise RefusedError(answer.message)
        if newly_frozen(found.body, wanted):
            self._raise_alarm(found.body, wanted[0].message)

    def _raise_alarm(self, found: Document, message: str) -> None:
        """Post an Event, if the account may: the condition says the same."""
        event = alarm(found, message, datetime.now(UTC))
        try:
            self._api.request("POST", f"/apis/events.k8s.io/v1/namespaces/{self._namespace}/events", event)
        except RefusedError:
            logger.debug("no Event was posted", exc_info=True)


def newly_frozen(found: Document, wanted: Sequence[Condition]) -> bool:
    """Whether an object did not say yet that its log is frozen."""
    before = {one["type"]: one["status"] for one in (found.get("status") or {}).get("conditions", [])}
    return any(one.reason == "Frozen" and before.get(one.type) != one.status for one in wanted)


def alarm(found: Document, message: str, now: datetime) -> dict[str, Any]:
    """Return the Event that says that a log is frozen."""
    metadata = found["metadata"]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"namespace": metadata["namespace"], "generateName": f"{metadata['name'][:200]}-frozen-"},
        "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": "kapsel.dev/attestor",
        "reportingInstance": MANAGER,
        "action": "LogConsistent",
        "reason": "Frozen",
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": "AttestationLog",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
        "note": message[:1024],
        "type": "Warning",
    }


def _time(head: HeadRow) -> datetime:
    return _moment(head.timestamp_ms)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
