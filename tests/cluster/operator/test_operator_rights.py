"""The rights that the operator says it needs are enough for what it does."""

from pathlib import Path
from typing import Any

import yaml

from kapsel_operator.apis import Api
from kapsel_operator.rbac import RULES

ACCOUNT = Api("v1", "ServiceAccount", "serviceaccounts")


async def test_an_operator_that_may_do_no_more_than_it_says_brings_a_relay_up_and_down(
    operator: Any, resources: Any, database: Any, around: Any, client: Any, control_plane: Any, tmp_path: Path
) -> None:
    namespace = resources.namespace
    await client.declare(_object("v1", "ServiceAccount", namespace, namespace))
    for kind, scopes in (("ClusterRole", {"cluster"}), ("Role", {"watched", "own"})):
        where = None if kind == "ClusterRole" else namespace
        rules = [
            {"apiGroups": [rule.group], "resources": list(rule.resources), "verbs": list(rule.verbs)}
            for rule in RULES
            if rule.scope in scopes
        ]
        group = "rbac.authorization.k8s.io"
        await client.create(_api(kind), namespace, {**_object(f"{group}/v1", kind, namespace, where), "rules": rules})
        binding = {
            **_object(f"{group}/v1", f"{kind}Binding", namespace, where),
            "roleRef": {"apiGroup": group, "kind": kind, "name": namespace},
            "subjects": [{"kind": "ServiceAccount", "name": namespace, "namespace": namespace}],
        }
        await client.create(_api(f"{kind}Binding"), namespace, binding)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    answer = await client._request("POST", ACCOUNT.path(namespace, namespace, "token"), body=asked)
    read = yaml.safe_load(control_plane.kubeconfig.read_text())
    read["users"][0]["user"] = {"token": answer["status"]["token"]}
    limited = tmp_path / "limited.kubeconfig"
    limited.write_text(yaml.safe_dump(read))

    await resources.relay(database, deliverer={"autoscaling": {"maxReplicas": 4}})
    await resources.apply("SigningKey", "out", {"algorithm": "Ed25519", "source": "Generate"})
    await resources.endpoint("orders", verification={"bearer": {"secretRef": {"name": "token"}}})
    process = operator.start(kubeconfig=limited)
    await resources.told("WebhookEndpoint", "orders", "Stalled", "True", "SecretNotFound")
    await resources.secret("token", token="a-token-that-is-long-enough")
    await resources.ready("WebhookEndpoint", "orders")
    await resources.ready("SigningKey", "out")
    ingress = {"type": "Ingress", "hostname": "hooks.example.com", "ingressClassName": "absent"}
    await resources.relay(database, exposure=ingress)  # takes the autoscaler away, and asks for classes
    await resources.told("Relay", "main", "Stalled", "True", "IngressClassNotFound")
    refused = [line for line in process.lines() if "forbidden" in str(line).lower()]
    for kind in ("ClusterRole", "ClusterRoleBinding"):  # nothing of these goes with the namespace
        await client.delete(_api(kind), namespace, namespace)
    assert refused == []


def _object(version: str, kind: str, name: str, namespace: str | None) -> dict[str, Any]:
    where = {} if namespace is None else {"namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **where}}


def _api(kind: str) -> Api:
    plural = f"{kind.lower()}s"
    return Api("rbac.authorization.k8s.io/v1", kind, plural, namespaced=not kind.startswith("Cluster"))
