"""The console as a process: `python -m kapsel_console`, as role kapsel_console on the database.

It serves before it is ready, and while the database is away: a 503 with Retry-After says more than a closed port.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from kapsel_console.app import LOOPBACK, build
from kapsel_console.context import Context
from kapsel_console.eraser import Eraser
from kapsel_console.errors import TokensError
from kapsel_console.metrics import Metrics
from kapsel_console.openness import Openness, Visitors
from kapsel_console.settings import ConsoleSettings
from kapsel_console.storage import Storage
from kapsel_console.tokens import Tokens
from kapsel_runtime import process
from kapsel_runtime.errors import SettingsError
from kapsel_runtime.health import Health
from kapsel_store import database
from kapsel_store.configuration import Source
from kapsel_store.processes import Heartbeat
from kapsel_store.rows import Configuration
from kapsel_store.sealing import SealingKeys

COMPONENT: Final = "console"
OWN_CONNECTIONS: Final = 2  # configuration and heartbeat in turn, and the eraser, besides what requests may use
SHUTDOWN_TIMEOUT: Final = 5.0  # seconds for answers under way

logger = logging.getLogger(__name__)


async def serve(settings: ConsoleSettings, stopping: asyncio.Event) -> None:
    """Answer requests until `stopping`, then finish those that are under way."""
    url, role, schema = settings.database_url.get_secret_value(), settings.database_role, settings.database_schema
    sealing = SealingKeys.from_file(settings.sealing_key_file)
    tokens = open_tokens(settings)
    metrics = Metrics(registry := CollectorRegistry())
    size = settings.console_connections + OWN_CONNECTIONS
    async with database.connect(
        url, role=role, schema=schema, size=size, component=COMPONENT, pooled=settings.is_pooled
    ) as pool:
        listener = database.Listener(
            settings.session_url,
            role=role,
            schema=schema,
            component=COMPONENT,
            channels=(database.CONFIGURATION_CHANNEL,),
        )
        source = Source(pool, sealing, listener)
        source.subscribe(lambda found: _loaded(found, metrics))
        metrics.database_up.set_function(lambda: float(source.reachable))
        health = Health(stopping)
        health.add("configuration", lambda: None if source.loaded else "no configuration was loaded yet")
        health.add("database", lambda: None if source.reachable else "the database is away")
        context = Context(
            storage=Storage(pool, settings.console_query_timeout), source=source, now=lambda: datetime.now(UTC)
        )
        async with (
            await health.serve(settings.health_host, settings.health_port, registry) as health_server,
            asyncio.TaskGroup() as tasks,
        ):
            heartbeat = Heartbeat(pool, COMPONENT, settings.instance, health_server.address, source)
            tasks.create_task(listener.run(stopping))
            tasks.create_task(source.follow(stopping))
            tasks.create_task(heartbeat.run(stopping))
            tasks.create_task(Eraser(pool, metrics).run(stopping))
            visitors = Visitors(Openness[settings.console_public_log.upper()], settings.console_public_rate)
            app = build(context, metrics, settings.console_host, tokens, visitors)
            await answer_requests(app, settings, stopping)


def open_tokens(settings: ConsoleSettings) -> Tokens | None:
    """Return the tokens that open this console, None if nobody is asked for one."""
    path = settings.console_token_file
    if path is None:
        if settings.console_host not in LOOPBACK:
            logger.warning(
                "whoever reaches this console reads every event and may retry, cancel, resume and erase: "
                "set KAPSEL_CONSOLE_TOKEN_FILE",
                extra={"host": settings.console_host},
            )
        return None
    tokens = Tokens(path)
    try:
        tokens.load()
    except TokensError as error:
        variable = "KAPSEL_CONSOLE_TOKEN_FILE"
        raise SettingsError(f"{variable} names {str(path)!r}, which gives no token: {error}.", variable) from error
    return tokens


async def answer_requests(app: web.Application, settings: ConsoleSettings, stopping: asyncio.Event) -> None:
    """Listen until `stopping`."""
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_TIMEOUT)
    await runner.setup()
    try:
        # `kapsel up` holds the port for it.
        await web.TCPSite(runner, settings.console_host, settings.console_port, reuse_port=True).start()
        host, port = runner.addresses[0][:2]
        logger.info("answering requests", extra={"host": host, "port": port})
        await stopping.wait()
    finally:
        await runner.cleanup()


def _loaded(found: Configuration, metrics: Metrics) -> None:
    metrics.generation.set(found.generation)
    logger.info("serving generation %d", found.generation)


def main() -> None:
    """Run one console with the settings of the environment."""
    settings = process.load(COMPONENT, ConsoleSettings)
    process.run(COMPONENT, settings, lambda stopping: serve(settings, stopping))


if __name__ == "__main__":
    main()
