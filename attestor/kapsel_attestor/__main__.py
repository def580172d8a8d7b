"""The attestor process: `python -m kapsel_attestor`, settings from KAPSEL_* variables."""

import asyncio
from typing import Final

from prometheus_client import CollectorRegistry

from kapsel_attestor import metrics
from kapsel_attestor.anchors import Anchors
from kapsel_attestor.attestor import Attestor
from kapsel_attestor.places import place
from kapsel_attestor.settings import AttestorSettings
from kapsel_attestor.signers.backends import Identity
from kapsel_attestor.signers.keyring import Keyring
from kapsel_attestor.witnesses import Witnesses
from kapsel_runtime import process
from kapsel_runtime.health import Health
from kapsel_store import database
from kapsel_store.configuration import Source
from kapsel_store.processes import Heartbeat
from kapsel_store.sealing import SealingKeys

COMPONENT: Final = "attestor"
CONNECTIONS: Final = 6  # leaves, heads, configuration, heartbeat and gauges, reading a log back, what runs beside


async def main(settings: AttestorSettings, stopping: asyncio.Event) -> None:
    """Run one attestor until `stopping`, then until it has drained."""
    # It leads its log by a lock of its session, and is one of few: no pooler, also where there is one.
    url, role, schema = settings.session_url, settings.database_role, settings.database_schema
    listener = database.Listener(
        url, role=role, schema=schema, component=COMPONENT, channels=[database.CONFIGURATION_CHANNEL]
    )
    measured = metrics.Metrics(registry := CollectorRegistry())
    async with (
        database.connect(url, role=role, schema=schema, size=CONNECTIONS, component=COMPONENT) as pool,
        Witnesses(measured) as witnesses,
    ):
        source = Source(pool, SealingKeys.from_file(settings.sealing_key_file), listener)
        fences = place(settings)
        identity = Identity(
            service_account=settings.attestor_service_account,
            aws_token_file=settings.attestor_aws_token_file,
            google_metadata=settings.attestor_google_metadata,
            hosts=settings.identity_hosts,
        )
        attestor = Attestor(
            pool,
            source,
            fences.open,
            measured,
            reporter=fences.reporter,
            keyring=Keyring(identity),
            cosigner=witnesses,
            beside=[Anchors(measured), witnesses],
        )
        health = Health(stopping)
        health.add("configuration", lambda: None if source.loaded else "the configuration has not been loaded yet")
        health.add("database", lambda: None if source.reachable else "the database is away")
        health.add("log", attestor.problem)
        async with (
            await health.serve(settings.health_host, settings.health_port, registry) as server,
            asyncio.TaskGroup() as tasks,
        ):
            heartbeat = Heartbeat(pool, COMPONENT, settings.instance, server.address, source)
            tasks.create_task(listener.run(stopping))
            tasks.create_task(source.follow(stopping))
            tasks.create_task(heartbeat.run(stopping))
            tasks.create_task(metrics.follow(measured, pool, source, stopping))
            tasks.create_task(attestor.run(stopping))


if __name__ == "__main__":
    loaded = process.load(COMPONENT, AttestorSettings)
    process.run(COMPONENT, loaded, lambda stopping: main(loaded, stopping))
