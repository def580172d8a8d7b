"""Storage of the node: a default StorageClass and a handful of volumes, which are directories of this machine.

Called by the node once its API answers. Local volumes rather than hostPath ones: the kubelet gives them to the group of
the pod, so that one that is not root can write. A volume is used once; what was in it stays until the node goes.
"""

from pathlib import Path
from typing import Any, Final

CLASS: Final = "local"
VOLUMES: Final = 12
SIZE: Final = "20Gi"  # on paper: nothing holds a pod to it


def storage(directory: Path) -> list[dict[str, Any]]:
    """Make the directories and return the objects."""
    default = {"storageclass.kubernetes.io/is-default-class": "true"}
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": default},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    volumes = [_volume(f"local-{number}", directory / str(number)) for number in range(VOLUMES)]
    return [storage_class, *volumes]


def _volume(name: str, path: Path) -> dict[str, Any]:
    path.mkdir(parents=True, exist_ok=True)
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node"]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
