"""The operator as a process: `python -m kapsel_operator`. One of several works, the others stand by.

Exit codes as in kapsel_runtime.process; a lost Lease ends the process with 1, and whatever started it starts it anew.
"""

import asyncio
import logging
import sys
from typing import Final

from prometheus_client import CollectorRegistry

from kapsel_operator.apply import Writer
from kapsel_operator.cluster import Cluster, connect
from kapsel_operator.controller import Controller
from kapsel_operator.databases import Databases
from kapsel_operator.events import Recorder
from kapsel_operator.gather import Gatherer
from kapsel_operator.handlers import Watches, quieten
from kapsel_operator.lease import Lease
from kapsel_operator.metrics import Metrics
from kapsel_operator.reconcile import Reconciler
from kapsel_operator.secret_reader import SecretReader
from kapsel_operator.settings import OperatorSettings
from kapsel_operator.store import Store
from kapsel_operator.workqueue import WorkQueue
from kapsel_runtime import process
from kapsel_runtime.health import Health

DEEPEST: Final = 50_000

logger = logging.getLogger(__name__)


async def serve(settings: OperatorSettings, stopping: asyncio.Event) -> None:
    """Stand by until the Lease is held, then work until `stopping`."""
    metrics = Metrics(CollectorRegistry())
    cluster = await connect(metrics)
    lease = Lease(
        cluster,
        namespace=settings.operator_namespace,
        name=settings.operator_lease,
        identity=settings.instance,
    )
    health = Health(stopping)
    health.add("lease", lambda: None if lease.held or lease.holder else "nobody is known to hold the Lease yet")
    try:
        async with await health.serve(settings.health_host, settings.health_port, metrics.registry):
            if not await lease.acquire(stopping):
                return
            logger.info("the Lease is held")
            metrics.leader.set(1)
            ended = asyncio.Event()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(lease.hold(ended))
                await _work(settings, cluster, metrics, health, stopping)
                ended.set()
            await lease.release()
    finally:
        await cluster.close()


async def _work(
    settings: OperatorSettings, cluster: Cluster, metrics: Metrics, health: Health, stopping: asyncio.Event
) -> None:
    quieten()
    store, queue, databases = Store(), WorkQueue(metrics), Databases()
    secrets = SecretReader(cluster, settings.operator_secrets_interval.total_seconds())
    reconciler = Reconciler(
        settings,
        metrics,
        cluster=cluster,
        store=store,
        databases=databases,
        gatherer=Gatherer(cluster, databases, secrets),
        writer=Writer(cluster, store, Recorder(cluster, settings.instance)),
    )
    controller = Controller(store, queue, cluster, settings.watch_namespaces)
    watches = Watches(cluster, controller, metrics, settings.watch_namespaces)
    metrics.show(controller.standings)
    health.add("watches", lambda: None if watches.running else "the watches do not run")
    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(watches.run(stopping))
            tasks.create_task(controller.sync(lambda: watches.running, stopping))
            tasks.create_task(controller.audit(settings.operator_audit_interval.total_seconds(), stopping))
            resync = settings.operator_resync_interval.total_seconds()
            tasks.create_task(controller.resync(resync, secrets, stopping))
            await queue.run(settings.operator_workers, reconciler.work, stopping)
            await watching
    finally:
        await databases.close()


def main() -> None:
    """Run one operator with the settings of the environment."""
    # The API server takes objects nested 10,000 levels deep. One must be a problem of its author, not of all others.
    sys.setrecursionlimit(DEEPEST)
    settings = process.load("operator", OperatorSettings)
    process.run("operator", settings, lambda stopping: serve(settings, stopping))


if __name__ == "__main__":
    main()
