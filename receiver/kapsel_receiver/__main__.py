"""The receiver as a process: `python -m kapsel_receiver`, as many as there are cores to spare, on one port.

It serves before it is ready: without a configuration or a database every webhook is answered 503 with Retry-After,
which a provider understands better than a port that does not answer.
"""

import asyncio
import logging
import random
from typing import Final

from prometheus_client import CollectorRegistry

from kapsel_receiver.app import App
from kapsel_receiver.certificates import Certificates
from kapsel_receiver.connection import Limits, Server
from kapsel_receiver.endpoints import Index
from kapsel_receiver.hints import Hints
from kapsel_receiver.intake import COMMITTERS, Bounds, Intake
from kapsel_receiver.limits import Limiter
from kapsel_receiver.metrics import Metrics
from kapsel_receiver.settings import ReceiverSettings
from kapsel_runtime import process
from kapsel_runtime.health import Health
from kapsel_store import configuration, database, processes
from kapsel_store.rows import Configuration
from kapsel_store.sealing import SealingKeys

LEAVING: Final = 5.0  # seconds in which answers end their connections before idle ones are closed

logger = logging.getLogger(__name__)


async def serve(settings: ReceiverSettings, stopping: asyncio.Event) -> None:
    """Take webhooks until `stopping`, then finish those that are under way."""
    url, role, schema = settings.database_url.get_secret_value(), settings.database_role, settings.database_schema
    sealing = SealingKeys.from_file(settings.sealing_key_file)
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    # Besides the committers: hints, and one for configuration and heartbeat in turn.
    async with (
        database.connect(
            url, role=role, schema=schema, size=COMMITTERS + 2, component="receiver", pooled=settings.is_pooled
        ) as pool,
        # Tokens that a crash takes back were for requests that it took too.
        database.connect(
            url,
            role=role,
            schema=schema,
            size=1,
            component="receiver",
            synchronous_commit=False,
            pooled=settings.is_pooled,
        ) as loose,
    ):
        listener = database.Listener(
            settings.session_url,
            role=role,
            schema=schema,
            component="receiver",
            channels=(database.CONFIGURATION_CHANNEL,),
        )
        source = configuration.Source(pool, sealing, listener)
        limiter = Limiter(loose, settings.instance)
        index = Index(limiter.ask)
        source.subscribe(index.replace)
        source.subscribe(lambda found: _loaded(found, metrics))
        hints = Hints(pool)
        intake = Intake(pool, metrics, hints, _bounds(settings), random.Random())  # noqa: S311 - jitter, not a secret
        source.subscribe(intake.configure)
        app = App(index, intake, metrics, Certificates(pool))
        health = Health(stopping)
        health.add("database", intake.check)
        health.add("configuration", lambda: None if index.loaded else "no configuration was loaded yet")
        async with (
            await health.serve(settings.health_host, settings.health_port, registry) as health_server,
            asyncio.TaskGroup() as tasks,
        ):
            committing = tasks.create_task(intake.run())
            heartbeat = processes.Heartbeat(pool, "receiver", settings.instance, health_server.address, source)
            beating = tasks.create_task(heartbeat.run(stopping))
            endless = [
                tasks.create_task(work)
                for work in (
                    listener.run(stopping),
                    source.follow(stopping),
                    hints.run(),
                    limiter.run(),
                )
            ]
            await _take_requests(settings, app, metrics, stopping)
            intake.close()
            await committing
            await beating  # it says goodbye, so that the others take over its share of the limits
            for task in endless:
                task.cancel()


async def _take_requests(settings: ReceiverSettings, app: App, metrics: Metrics, stopping: asyncio.Event) -> None:
    """Listen until `stopping`, then wait for the requests under way; their events still find the committers at work."""
    limits = Limits(
        header_timeout=settings.receiver_header_timeout,
        body_timeout=settings.receiver_body_timeout,
        max_connections=settings.receiver_max_connections,
    )
    server = Server(app, limits)
    metrics.connections.set_function(lambda: server.open)
    listening = await asyncio.get_running_loop().create_server(
        server, settings.receiver_host, settings.receiver_port, reuse_port=True, backlog=1024
    )
    host, port = listening.sockets[0].getsockname()[:2]
    logger.info("taking webhooks", extra={"host": host, "port": port})
    sweeping = asyncio.create_task(server.sweep())
    try:
        await stopping.wait()
        # Closed at once, an idle connection could end under a request that is on its way over it.
        listening.close()
        server.leave()
        await server.emptied(min(LEAVING, settings.drain_timeout / 4))
    finally:
        listening.close()
        await server.shutdown(settings.drain_timeout / 2)
        sweeping.cancel()


def _loaded(found: Configuration, metrics: Metrics) -> None:
    metrics.generation.set(found.generation)
    logger.info("serving generation %d", found.generation, extra={"endpoints": len(found.endpoints)})


def _bounds(settings: ReceiverSettings) -> Bounds:
    return Bounds(
        queue_events=settings.receiver_queue_events,
        queue_bytes=settings.receiver_queue_bytes,
        commit_timeout=settings.receiver_commit_timeout,
    )


def main() -> None:
    """Run one receiver with the settings of the environment."""
    settings = process.load("receiver", ReceiverSettings)
    process.run("receiver", settings, lambda stopping: serve(settings, stopping))


if __name__ == "__main__":
    main()
