"""The embedded Postgres: one pod with one volume, to try kapsel out. It has no standby and no backup."""

from datetime import timedelta
from typing import Final

from kapsel_operator.manifests import names, pods, quantities
from kapsel_operator.manifests.containers import SECRETS, SECRETS_VOLUME, container, secrets_mount, variable
from kapsel_operator.manifests.facts import Capability, Database, Facts, Manifest
from kapsel_operator.manifests.generated_secrets import PASSWORD_ENTRY, POSTGRES_PORT, postgres_name
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.relay import EmbeddedDatabase, Relay

NOT_FOR_PRODUCTION: Final = {
    "kapsel.dev/not-for-production": "One pod, one volume, no standby and no backup: a database for trying kapsel out."
}
PORT_NAME: Final = "postgres"
DATA_VOLUME: Final = "data"
DATA: Final = "/var/lib/kapsel"


def postgres_service(relay: Relay, facts: Facts) -> Manifest:
    """Return the name under which the one pod is found."""
    port = {"name": PORT_NAME, "port": POSTGRES_PORT, "protocol": "TCP", "targetPort": PORT_NAME}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(relay, facts, "postgres", name=postgres_name(relay), annotations=NOT_FOR_PRODUCTION),
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "None",
            "ports": [port],
            "selector": names.selector(relay, "postgres"),
        },
    }


def postgres_stateful_set(relay: Relay, facts: Facts, database: Database, embedded: EmbeddedDatabase) -> Manifest:
    """Return the StatefulSet."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(relay, facts, "postgres", name=postgres_name(relay), annotations=NOT_FOR_PRODUCTION),
        "spec": {
            "replicas": 1,
            "serviceName": postgres_name(relay),
            "selector": {"matchLabels": names.selector(relay, "postgres")},
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": relay.spec.deletion_policy,
                "whenScaled": "Retain",
            },
            "template": _template(relay, facts, database),
            "volumeClaimTemplates": [_claim(relay, embedded)],
        },
    }


def _template(relay: Relay, facts: Facts, database: Database) -> Manifest:
    main = container(
        "postgres",
        facts,
        env=[
            variable("KAPSEL_POSTGRES_DATA_DIR", DATA),
            variable("KAPSEL_POSTGRES_HOST", facts.listen_host),
            variable("KAPSEL_POSTGRES_PORT", POSTGRES_PORT),
            variable("KAPSEL_POSTGRES_PASSWORD_FILE", f"{SECRETS}/{PASSWORD_ENTRY}"),
        ],
        mounts=[
            secrets_mount(),
            {"name": DATA_VOLUME, "mountPath": DATA},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - of the pod alone
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - of the pod alone
        ],
        resources=None,
    )
    main |= {
        "ports": [{"name": PORT_NAME, "containerPort": POSTGRES_PORT, "protocol": "TCP"}],
        # After a crash it replays its log first, which takes as long as it takes.
        "startupProbe": _probe(initialDelaySeconds=2, periodSeconds=1, failureThreshold=600),
        "livenessProbe": _probe(periodSeconds=20, failureThreshold=6),
        "readinessProbe": _probe(periodSeconds=5, failureThreshold=2),
    }
    entry = {"key": PASSWORD_ENTRY, "path": PASSWORD_ENTRY}
    password = {"secret": {"name": postgres_name(relay), "items": [entry]}}
    template = pods.template(
        relay,
        facts,
        "postgres",
        containers=[main],
        volumes=[
            {"name": SECRETS_VOLUME, "projected": {"defaultMode": 0o444, "sources": [password]}},
            # Queries that use several processes share memory there; 64 MiB, as containers get, is not enough.
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "128Mi"}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},
        ],
        annotations={**NOT_FOR_PRODUCTION, pods.DATABASE_DIGEST: database.digest},
        grace=timedelta(seconds=60),
    )
    if Capability.OPENSHIFT not in facts.capabilities:
        # The volume belongs to root until the kubelet gives it to this group, which it does once.
        template["spec"]["securityContext"] |= {"fsGroup": pods.USER, "fsGroupChangePolicy": "OnRootMismatch"}
    return template


def _claim(relay: Relay, embedded: EmbeddedDatabase) -> Manifest:
    """Return the claim of its volume. It cannot be changed later, so its labels hold no version."""
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": quantities.canonical(embedded.size)}},
    }
    if embedded.storage_class_name is not None:
        spec["storageClassName"] = embedded.storage_class_name
    labels = names.selector(relay, "postgres")
    return {"metadata": {"name": DATA_VOLUME, "labels": labels, "annotations": NOT_FOR_PRODUCTION}, "spec": spec}


def _probe(**settings: int) -> Manifest:
    return {"tcpSocket": {"port": PORT_NAME}, "timeoutSeconds": 5, "successThreshold": 1, **settings}
