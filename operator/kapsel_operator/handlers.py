"""The watches, which are kopf's: this is the only module that imports it, and all that kopf does here is to watch.

Every handler hands what it sees to the main loop and returns; no object gets an annotation, a finalizer or an event of
kopf's. kopf runs in a thread with a loop of its own, since it takes over the signals of the loop that it runs in and
cancels every task there when it ends. When it ends by an error, it is started anew, and lists everything again.
"""

import asyncio
import logging
import random
import threading
from typing import Any, Final, Protocol

import kopf
import uvloop

from kapsel_operator.apis import DECLARED, NAMESPACE, OWNED, Api
from kapsel_operator.cluster import Cluster
from kapsel_operator.errors import ApiError
from kapsel_operator.manifests.names import MANAGED_BY
from kapsel_operator.metrics import Metrics
from kapsel_runtime.backoff import delays
from kapsel_runtime.waiting import until

SELECTOR: Final = f"app.kubernetes.io/managed-by={MANAGED_BY}"
STOP_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)

Object = dict[str, Any]


class Feed(Protocol):
    """Who is told what the watches see, on the main loop."""

    def seen(self, body: Object) -> None:
        """An object is there, new or changed or as it was."""

    def gone(self, body: Object) -> None:
        """An object was deleted."""


class Watches:
    """Watches all kinds until it is told to stop."""

    def __init__(self, cluster: Cluster, feed: Feed, metrics: Metrics, namespaces: tuple[str, ...]) -> None:
        self._cluster = cluster
        self._feed = feed
        self._metrics = metrics
        self._namespaces = namespaces
        self.running = False

    async def run(self, stopping: asyncio.Event) -> None:
        """Keep the watches running until `stopping`."""
        waits = delays(1.0, 30.0, random.Random())  # noqa: S311 - jitter, not a secret
        while not stopping.is_set():
            if not await self._wait_for_kinds(stopping):
                return
            began = asyncio.get_running_loop().time()
            await self._run_once(stopping)
            if stopping.is_set():
                return
            self._metrics.watch_failures.inc()
            if asyncio.get_running_loop().time() - began > 60:
                waits = delays(1.0, 30.0, random.Random())  # noqa: S311 - jitter, not a secret
            await until(stopping, timeout=next(waits))

    async def _wait_for_kinds(self, stopping: asyncio.Event) -> bool:
        """Wait until the API server knows all kinds: kopf looks once, and would never watch what came later."""
        said = False
        while not stopping.is_set():
            try:
                if await self._cluster.knows(DECLARED):
                    return True
                if not said:
                    logger.warning("the custom resources of kapsel are not installed yet; waiting for them")
                    said = True
            except ApiError as error:
                logger.warning("the API server cannot be asked for its kinds: %s", error)
            await until(stopping, timeout=2.0)
        return False

    async def _run_once(self, stopping: asyncio.Event) -> None:
        loop, ended, stop = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
        handing = _Handing(loop, self._feed, self._metrics)

        def run() -> None:
            runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
            try:
                runner.run(_operate(handing, stop, self._namespaces))
            except Exception:
                logger.exception("the watches have failed; they are started anew")
            finally:
                # Before what is left of kopf is cleared away: nobody should have to wait for that.
                loop.call_soon_threadsafe(ended.set)
            runner.close()

        # A daemon: a process that has lost its Lease ends at once, whatever kopf still waits for.
        threading.Thread(target=run, name="kopf", daemon=True).start()
        self.running = True
        try:
            while not await until(stopping, ended, timeout=60.0):
                pass
        finally:
            self.running = False
            stop.set()
        await until(ended, timeout=STOP_SECONDS)
        handing.close()


class _Handing:
    """Hands what kopf's thread sees to the main loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, feed: Feed, metrics: Metrics) -> None:
        self._loop = loop
        self._feed = feed
        self._metrics = metrics
        self._closed = False

    def close(self) -> None:
        """Hand over nothing any more."""
        self._closed = True

    def event(self, kind: str, what: str | None, body: Object) -> None:
        if self._closed:
            return
        self._metrics.events.labels(kind).inc()
        self._loop.call_soon_threadsafe(self._feed.gone if what == "DELETED" else self._feed.seen, body)


async def _operate(handing: _Handing, stop: threading.Event, namespaces: tuple[str, ...]) -> None:
    """Run kopf until it is told to stop or one of its tasks ends; raise what that one raised.

    kopf's own end is not waited for: after a failure its watches can wait for credentials that nobody brings any more.
    """
    tasks = await kopf.spawn_tasks(
        registry=_registry(handing),
        settings=_settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        stop_flag=stop,
    )
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()  # a thread of kopf's waits for it, and this loop for that thread
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    if left:
        await asyncio.wait(left, timeout=STOP_SECONDS)
    for task in done:
        await task


def _registry(handing: _Handing) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def login(**details: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**details) or kopf.login_with_kubeconfig(**details)

    for api in (*DECLARED, NAMESPACE, *OWNED):
        _watch(registry, api, handing)
    return registry


def _watch(registry: kopf.OperatorRegistry, api: Api, handing: _Handing) -> None:
    # No indexes, which kopf would wait for: for that it keeps a lock an object, and looks at all of them for each.
    async def event(event: kopf.RawEvent, **_: Any) -> None:
        handing.event(api.kind, event["type"], dict(event["object"]))

    kopf.on.event(api.group, api.version, api.plural, id=f"event_{api.plural}", registry=registry)(event)


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.connect_timeout = 30
    settings.watching.inactivity_timeout = 70
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = (1, 2, 3, 5, 8)
    settings.queueing.idle_timeout = 1.0
    for api in OWNED:
        settings.watching.label_selectors[api.group, api.version, api.plural] = SELECTOR
    return settings


def quieten() -> None:
    """Keep kopf to warnings: what it does for each object is of interest to who debugs kopf."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)  # it misses the main thread's signals
