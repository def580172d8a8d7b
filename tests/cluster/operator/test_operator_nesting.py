"""An object that the API server takes, and that readers of JSON take for an attack."""

import json
from typing import Any

from onenode.control_plane import Cluster

LEVELS = 9_000  # the API server takes 10,000


def test_a_relay_nested_without_end_is_stalled_and_stops_nobody_else(
    operator: Any, control_plane: Cluster, crds: None, namespace: str
) -> None:
    relay = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay"}
    spec = f'{{"receiver":{{"podTemplate":{{"spec":{{"x":{"[" * LEVELS}{"]" * LEVELS}}}}}}}}}'
    deep = json.dumps(relay | {"metadata": {"name": "deep"}, "spec": "SPEC"}).replace('"SPEC"', spec)
    plain = json.dumps(relay | {"metadata": {"name": "plain"}})
    for text in (deep, plain):
        control_plane.kubectl("create", "-n", namespace, "-f", "-", input=text)
    operator.start()

    for name, reason in (("deep", "InvalidManifest"), ("plain", "DatabaseMissing")):
        control_plane.kubectl("wait", "-n", namespace, f"relay/{name}", "--for=condition=Stalled", "--timeout=240s")
        where = 'jsonpath={.status.conditions[?(@.type=="Stalled")].reason}'
        assert control_plane.kubectl("get", "relay", name, "-n", namespace, "-o", where) == reason
