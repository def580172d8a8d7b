"""What all pods of a Relay have in common: restricted, without a token, spread out, secrets in files."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from kapsel_operator.manifests import names
from kapsel_operator.manifests.containers import (
    CONSOLE_TOKEN,
    DATABASE_DIRECT_URL,
    DATABASE_URL,
    SEALING_KEY,
    SECRETS_VOLUME,
)
from kapsel_operator.manifests.facts import Capability, Database, Facts, Manifest
from kapsel_operator.manifests.generated_secrets import CONSOLE_TOKEN_ENTRY, SEALING_KEY_ENTRY
from kapsel_resources.kinds.relay import Relay

USER: Final = 65532  # in the image; outside of ranges that machines give to people and services
API_VOLUME: Final = "kapsel-kubernetes-api"
API_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_LIFE: Final = timedelta(hours=1)  # the kubelet renews it when four fifths are over
# Pods read these once, at their start; what changes in them must replace the pods.
DATABASE_DIGEST: Final = "kapsel.dev/database-digest"
SEALING_KEY_DIGEST: Final = "kapsel.dev/sealing-key-digest"


def template(
    relay: Relay,
    facts: Facts,
    component: str,
    *,
    containers: Sequence[Manifest],
    init_containers: Sequence[Manifest] = (),
    volumes: Sequence[Manifest],
    annotations: dict[str, str],
    grace: timedelta,
) -> Manifest:
    """Return a pod template."""
    spec: Manifest = {
        "serviceAccountName": names.object_name(relay.metadata.name, component),
        "automountServiceAccountToken": False,
        # Otherwise a Service named kapsel-receiver would set KAPSEL_RECEIVER_PORT, which is a setting.
        "enableServiceLinks": False,
        "securityContext": security(facts),
        "terminationGracePeriodSeconds": int(grace.total_seconds()),
        "containers": list(containers),
        "volumes": list(volumes),
    }
    if init_containers:
        spec["initContainers"] = list(init_containers)
    if facts.image.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in facts.image.pull_secrets]
    annotations = {"kubectl.kubernetes.io/default-container": containers[0]["name"], **annotations}
    labels = names.labels(relay, component, facts.image.version)
    return {"metadata": {"labels": labels, "annotations": annotations}, "spec": spec}


def security(facts: Facts) -> Manifest:
    """Return what holds for all containers of a pod; OpenShift picks the user itself and refuses another."""
    common: Manifest = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if Capability.OPENSHIFT in facts.capabilities:
        return common
    return {**common, "runAsUser": USER, "runAsGroup": USER}


def spread(relay: Relay, component: str) -> list[Manifest]:
    """Return that pods go to different zones and hosts as far as there are any; only those of one version count."""
    return [
        {
            "maxSkew": 1,
            "topologyKey": key,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": names.selector(relay, component)},
            "matchLabelKeys": ["pod-template-hash"],
        }
        for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname")
    ]


def secrets_volume(relay: Relay, database: Database, *, sealing_key: bool = True, console: bool = False) -> Manifest:
    """Return the volume with the secrets of a pod: whole directories, so that new content arrives without a restart."""
    sources = [_file(database.secret, database.key, DATABASE_URL)]
    if database.direct is not None:
        sources.append(_file(database.direct.secret, database.direct.key, DATABASE_DIRECT_URL))
    if sealing_key:
        name = names.object_name(relay.metadata.name, "sealing-key")
        sources.append(_file(name, SEALING_KEY_ENTRY, SEALING_KEY))
    if console:
        name = names.object_name(relay.metadata.name, "console-token")
        sources.append(_file(name, CONSOLE_TOKEN_ENTRY, CONSOLE_TOKEN))
    return {"name": SECRETS_VOLUME, "projected": {"defaultMode": 0o444, "sources": sources}}


def digests(facts: Facts) -> dict[str, str]:
    """Return the annotations that replace the pods when what they read at their start has changed."""
    found = {}
    if facts.database is not None:
        found[DATABASE_DIGEST] = facts.database.digest
    if facts.sealing_key_digest is not None:
        found[SEALING_KEY_DIGEST] = facts.sealing_key_digest
    return found


def api_volume() -> Manifest:
    """Return what a client of the Kubernetes API needs: a token that is renewed, the authority, the namespace."""
    namespace = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    return {
        "name": API_VOLUME,
        "projected": {
            "defaultMode": 0o444,
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": int(TOKEN_LIFE.total_seconds())}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [namespace]}},
            ],
        },
    }


def api_mount() -> Manifest:
    """Return the mount of that volume, where every client looks for it."""
    return {"name": API_VOLUME, "mountPath": API_MOUNT, "readOnly": True}


def _file(secret: str, key: str, path: str) -> Manifest:
    return {"secret": {"name": secret, "items": [{"key": key, "path": path}]}}
