"""The three Deployments of a data plane: receivers, deliverers with an attestor beside each, consoles.

Called only when pods could start (Facts.deployable): what they mount is there, and the schema is theirs.
"""

from datetime import timedelta
from typing import Final, NamedTuple

from kapsel_operator.manifests import names, overlay, pods
from kapsel_operator.manifests.containers import (
    CONSOLE_TOKEN,
    ENDPOINT_REMOVAL,
    HTTP,
    PORTS,
    SECRETS,
    container,
    ports,
    probes,
    process_env,
    secrets_mount,
    sidecar_probes,
    variable,
)
from kapsel_operator.manifests.facts import Capability, Component, Database, Facts, Log, Manifest
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.kinds.workload import Workload

REPLICAS: Final = 2
DRAIN: Final = timedelta(seconds=25)
# The attestor stops after the deliverer: it signs a last head over what that one has recorded.
ATTESTOR_DRAIN: Final = timedelta(seconds=10)
# Between the end of the drain and the kill: for last words, and for what the kubelet takes.
MARGIN: Final = timedelta(seconds=5)


class _Parts(NamedTuple):
    """What differs between the pods of the components."""

    main: Manifest
    volumes: tuple[Manifest, ...]
    sidecars: tuple[Manifest, ...] = ()


def deployment(relay: Relay, facts: Facts, component: Component, database: Database) -> Manifest:
    """Return the Deployment of a component."""
    added = workload_of(relay, component).pod_template or {}
    count = replicas(relay, facts, component)
    spec: Manifest = {} if count is None else {"replicas": count}
    spec |= {
        "selector": {"matchLabels": names.selector(relay, component)},
        # A pod more while it lasts, and never one less: webhooks come in during upgrades too.
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
        "revisionHistoryLimit": 5,
        "template": overlay.merge(template(relay, facts, component, database), added).template,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(relay, facts, component),
        "spec": spec,
    }


def template(relay: Relay, facts: Facts, component: Component, database: Database) -> Manifest:
    """Return the pod template of a component, before its podTemplate adds to it."""
    parts = _PARTS[component](relay, facts, database)
    found = pods.template(
        relay,
        facts,
        component,
        containers=[parts.main],
        init_containers=parts.sidecars,
        volumes=parts.volumes,
        annotations=pods.digests(facts),
        grace=grace(workload_of(relay, component), component),
    )
    found["spec"]["topologySpreadConstraints"] = pods.spread(relay, component)
    return found


def _receiver(relay: Relay, facts: Facts, database: Database) -> _Parts:
    settings = [
        variable("KAPSEL_RECEIVER_HOST", facts.listen_host),
        variable("KAPSEL_RECEIVER_PORT", PORTS["receiver"][HTTP]),
    ]
    main = _main(relay, facts, "receiver", settings) | {"lifecycle": _leave_service()}
    return _Parts(main, (pods.secrets_volume(relay, database),))


def _console(relay: Relay, facts: Facts, database: Database) -> _Parts:
    settings = [
        variable("KAPSEL_CONSOLE_HOST", facts.listen_host),
        variable("KAPSEL_CONSOLE_PORT", PORTS["console"][HTTP]),
        variable("KAPSEL_CONSOLE_TOKEN_FILE", f"{SECRETS}/{CONSOLE_TOKEN}"),
    ]
    if relay.spec.public_log != "None":
        settings.append(variable("KAPSEL_CONSOLE_PUBLIC_LOG", relay.spec.public_log.lower()))
    main = _main(relay, facts, "console", settings) | {"lifecycle": _leave_service()}
    return _Parts(main, (pods.secrets_volume(relay, database, console=True),))


def _deliverer(relay: Relay, facts: Facts, database: Database) -> _Parts:
    """Without a log there is no attestor to run."""
    main, secrets = _main(relay, facts, "deliverer", []), pods.secrets_volume(relay, database)
    if facts.log is None:
        return _Parts(main, (secrets,))
    return _Parts(main, (secrets, pods.api_volume()), (_attestor(relay, facts, facts.log),))


_PARTS: Final = {"receiver": _receiver, "deliverer": _deliverer, "console": _console}


def _main(relay: Relay, facts: Facts, component: Component, settings: list[Manifest]) -> Manifest:
    workload = workload_of(relay, component)
    env = [*process_env(component, facts, _drain(workload, component)), *settings]
    made = container(component, facts, env=env, mounts=[secrets_mount()], resources=workload.resources)
    return made | {"ports": ports(component)} | probes()


def _attestor(relay: Relay, facts: Facts, log: Log) -> Manifest:
    fence = variable("KAPSEL_ATTESTOR_FENCE_LOG", f"{log.namespace}/{log.name}")
    made = container(
        "attestor",
        facts,
        env=[*process_env("attestor", facts, ATTESTOR_DRAIN), fence],
        mounts=[secrets_mount(), pods.api_mount()],
        resources=relay.spec.attestor.resources,
    )
    return made | {"restartPolicy": "Always", "ports": ports("attestor")} | sidecar_probes()


def workload_of(relay: Relay, component: Component) -> Workload:
    """Return what the Relay says of a component."""
    spec = relay.spec
    return {"receiver": spec.receiver, "deliverer": spec.deliverer, "console": spec.console}[component]


def replicas(relay: Relay, facts: Facts, component: Component) -> int | None:
    """Return how many pods to ask for; None leaves the number to an autoscaler.

    A field that an apply leaves out is reset if it was ours before: on the way from a fixed number to an autoscaler the
    number is sent until the autoscaler has changed it, and with that made it its own.
    """
    workload = workload_of(relay, component)
    scaling = workload.autoscaling
    if scaling is None:
        return REPLICAS if workload.replicas is None else workload.replicas
    if scaling.type == "KEDA" and Capability.KEDA not in facts.capabilities:
        return scaling.min_replicas
    return facts.replicas.get(component)


def at_least(relay: Relay, component: Component) -> int:
    """Return how many pods there are at the least."""
    workload = workload_of(relay, component)
    if workload.autoscaling is not None:
        return workload.autoscaling.min_replicas
    return REPLICAS if workload.replicas is None else workload.replicas


def grace(workload: Workload, component: Component) -> timedelta:
    """Return how long a pod has for its end: what podTemplate says if that is enough, or what the drain needs."""
    asked = overlay.grace(workload.pod_template or {})
    needed = _around_drain(component) + DRAIN
    return needed if asked is None or asked < least_grace(component) else asked


def least_grace(component: Component) -> timedelta:
    """Return the shortest time in which a pod of a component can end without cutting off work."""
    return _around_drain(component) + MARGIN


def _drain(workload: Workload, component: Component) -> timedelta:
    return min(grace(workload, component) - _around_drain(component), timedelta(hours=1))


def _around_drain(component: Component) -> timedelta:
    return MARGIN + (ATTESTOR_DRAIN if component == "deliverer" else ENDPOINT_REMOVAL)


def _leave_service() -> Manifest:
    """Return the wait before SIGTERM in which the pod leaves its Service, still answering whoever has not noticed."""
    return {"preStop": {"sleep": {"seconds": int(ENDPOINT_REMOVAL.total_seconds())}}}
