"""One container of kapsel's: its security, probes, and the settings that every process needs.

The image has one entry point, `kapsel`; `run COMPONENT` turns it into the process. Settings are environment variables
(docs/settings.md); secrets are files that the pod mounts, never variables.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from kapsel_operator.manifests import quantities
from kapsel_operator.manifests.facts import Database, Facts, Manifest
from kapsel_resources.kinds.workload import ResourceRequirements

HTTP: Final = "http"
HEALTH: Final = "health"
ATTESTOR_HEALTH: Final = "attestor-health"
PORTS: Final = {
    "receiver": {HTTP: 8080, HEALTH: 9090},
    "deliverer": {HEALTH: 9090},
    "attestor": {ATTESTOR_HEALTH: 9091},
    "console": {HTTP: 8081, HEALTH: 9090},
}

SECRETS_VOLUME: Final = "kapsel-secrets"
SECRETS: Final = "/etc/kapsel"  # where that volume is mounted
DATABASE_URL: Final = "database-url"
DATABASE_DIRECT_URL: Final = "database-direct-url"
SEALING_KEY: Final = "sealing.key"
CONSOLE_TOKEN: Final = "console-token"  # noqa: S105 - the name of a file

# Until endpoints that left the Service are left alone by everybody who still knows them.
ENDPOINT_REMOVAL: Final = timedelta(seconds=5)

# An idle process takes 60 MiB, and the rest is for load. No CPU limit: throttling costs latency and saves nothing.
RESOURCES: Final[Mapping[str, ResourceRequirements]] = {
    "receiver": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    "deliverer": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}},
    "attestor": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "384Mi"}},
    "console": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "384Mi"}},
    "migrate": {"requests": {"cpu": "50m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
    "postgres": {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
}


def container(
    name: str, facts: Facts, *, env: list[Manifest], mounts: list[Manifest], resources: ResourceRequirements | None
) -> Manifest:
    """Return a container of kapsel's, without ports and probes."""
    return {
        "name": name,
        "image": image(facts),
        "imagePullPolicy": facts.image.pull_policy,
        "args": ["run", name],
        "env": env,
        "resources": quantities.resources(RESOURCES[name] if resources is None else resources),
        "securityContext": security(),
        # What a process says as it ends in haste is in its log; Kubernetes puts that into the pod's status.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def image(facts: Facts) -> str:
    """Return the image of all containers of kapsel's."""
    return f"{facts.image.repository}:{facts.image.version}"


def security() -> Manifest:
    """Return what the restricted level of Pod Security asks of a container, and a root directory nobody can change."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def process_env(component: str, facts: Facts, drain: timedelta) -> list[Manifest]:
    """Return the settings that every process of the data plane needs."""
    port = PORTS[component].get(HEALTH) or PORTS[component][ATTESTOR_HEALTH]
    env = [
        {"name": "KAPSEL_INSTANCE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        *database_env(facts.database),
        variable("KAPSEL_SEALING_KEY_FILE", f"{SECRETS}/{SEALING_KEY}"),
        variable("KAPSEL_HEALTH_HOST", facts.listen_host),
        variable("KAPSEL_HEALTH_PORT", port),
        variable("KAPSEL_DRAIN_TIMEOUT", f"{drain.total_seconds():g}"),
    ]
    if facts.database is not None and facts.database.roles:
        env.append(variable("KAPSEL_DATABASE_ROLE", f"kapsel_{component}"))
    return env


def database_env(database: Database | None) -> list[Manifest]:
    """Return the settings that say where the database is."""
    env = [variable("KAPSEL_DATABASE_URL_FILE", f"{SECRETS}/{DATABASE_URL}")]
    if database is not None and database.direct is not None:
        env.append(variable("KAPSEL_DATABASE_DIRECT_URL_FILE", f"{SECRETS}/{DATABASE_DIRECT_URL}"))
    return env


def variable(name: str, value: object) -> Manifest:
    """Return one environment variable."""
    return {"name": name, "value": str(value)}


def ports(component: str) -> list[Manifest]:
    """Return the ports that a component listens on."""
    return [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in PORTS[component].items()]


def secrets_mount() -> Manifest:
    """Return the mount of the volume that holds the secrets of the pod."""
    return {"name": SECRETS_VOLUME, "mountPath": SECRETS, "readOnly": True}


def probes() -> Manifest:
    """Return the probes of a process of the data plane.

    Live means that its loop turns; a process gets a minute to get there. Ready turns false while it drains, and while
    it has no database or no configuration, so it is asked often.
    """
    return {
        "startupProbe": _probe(
            "/health/live", initialDelaySeconds=1, periodSeconds=1, timeoutSeconds=2, failureThreshold=60
        ),
        "livenessProbe": _probe("/health/live", periodSeconds=10, timeoutSeconds=5, failureThreshold=3),
        "readinessProbe": _probe("/health/ready", periodSeconds=2, timeoutSeconds=2, failureThreshold=2),
    }


def sidecar_probes() -> Manifest:
    """Return the probe of the attestor: alive or not, and nothing else.

    A startup probe would keep the deliverer from starting, and a readiness probe would make its pod unready: nothing
    about the log may stop a delivery. What is wrong with a log, its own conditions say.
    """
    settings = {"initialDelaySeconds": 30, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 6}
    return {"livenessProbe": _probe("/health/live", port=ATTESTOR_HEALTH, **settings)}


def _probe(path: str, *, port: str = HEALTH, **settings: Any) -> Manifest:
    return {"httpGet": {"path": path, "port": port, "scheme": "HTTP"}, **settings, "successThreshold": 1}
