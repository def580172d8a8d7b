"""The deliverer as a process: `python -m kapsel_deliverer`, as many as are needed; they share the work by leases."""

import asyncio

from prometheus_client import CollectorRegistry

from kapsel_deliverer.arrears import Arrears
from kapsel_deliverer.checkpoints import Checkpoints
from kapsel_deliverer.contexts import trusted
from kapsel_deliverer.errands import Runner
from kapsel_deliverer.healing import Healer
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.names import LookUp, SystemResolver, system
from kapsel_deliverer.recorder import WRITERS
from kapsel_deliverer.replayer import Replayer
from kapsel_deliverer.rescuer import Rescuer
from kapsel_deliverer.sender import Sender
from kapsel_deliverer.settings import DelivererSettings
from kapsel_deliverer.worker import Worker
from kapsel_runtime import process
from kapsel_runtime.health import Health
from kapsel_store import configuration, database, processes
from kapsel_store.sealing import SealingKeys


async def serve(settings: DelivererSettings, stopping: asyncio.Event, look_up: LookUp = system) -> None:
    """Deliver until `stopping`, then finish what is under way; names mean what `look_up` says."""
    url, role, schema = settings.database_url.get_secret_value(), settings.database_role, settings.database_schema
    pooled = settings.is_pooled
    sealing = SealingKeys.from_file(settings.sealing_key_file)
    registry = CollectorRegistry()
    metrics = DelivererMetrics(registry)
    listener = database.Listener(
        settings.session_url,
        role=role,
        schema=schema,
        component="deliverer",
        channels=(database.CONFIGURATION_CHANNEL, database.DELIVERIES_CHANNEL),
    )
    hint = listener.event(database.DELIVERIES_CHANNEL)
    resolver, context = SystemResolver(metrics, look_up), trusted(settings.deliverer_ca_file)
    async with (
        # A claim, a circuit or a heartbeat that a crash undoes is made again; only results must be durable.
        database.connect(
            url, role=role, schema=schema, size=4, component="deliverer", synchronous_commit=False, pooled=pooled
        ) as pool,
        database.connect(
            url, role=role, schema=schema, size=WRITERS, component="deliverer", nested_loops=False, pooled=pooled
        ) as durable,
        Sender(resolver, context) as sender,
    ):
        source = configuration.Source(pool, sealing, listener)
        checkpoints = Checkpoints(pool)
        rescuer = Rescuer(pool, metrics, settings.deliverer_rescue_interval.total_seconds(), hint)
        worker = Worker(
            settings, pool=pool, durable=durable, sender=sender, checkpoints=checkpoints, metrics=metrics, hint=hint
        )
        listener.tell(database.DELIVERIES_CHANNEL, worker.hinted)
        healer = Healer(pool, resolver, context, metrics)
        source.subscribe(worker.configure)
        source.subscribe(healer.configure)
        runner = Runner(pool, resolver, context, metrics)
        source.subscribe(runner.configure)
        health = Health(stopping)
        health.add("database", lambda: None if source.reachable else "the database is away")
        health.add("configuration", lambda: None if source.loaded else "no configuration was loaded yet")
        async with (
            await health.serve(settings.health_host, settings.health_port, registry) as server,
            asyncio.TaskGroup() as tasks,
        ):
            heartbeat = processes.Heartbeat(
                pool, "deliverer", settings.instance, server.address, source, worker.waiting
            )
            following = tasks.create_task(source.follow(stopping))
            for work in (
                listener.run(stopping),
                heartbeat.run(stopping),
                checkpoints.run(stopping),
                rescuer.run(stopping),
                Arrears(pool, metrics).run(stopping),
                Replayer(pool, metrics).run(stopping),
                healer.run(stopping),
                runner.run(stopping),
            ):
                tasks.create_task(work)
            await worker.run(stopping)
            following.cancel()  # it may be in the middle of its wait


def main() -> None:
    """Run one deliverer with the settings of the environment."""
    settings = process.load("deliverer", DelivererSettings)
    process.run("deliverer", settings, lambda stopping: serve(settings, stopping))


if __name__ == "__main__":
    main()
