"""What a podTemplate may do to the pods on a real API server, and what the server says of one that cannot be."""

from typing import Any

import pytest

from kapsel_operator.errors import ApiError
from kapsel_operator.manifests.build import build, problems

DATABASE = {"secretRef": {"name": "main-database"}}


async def make(make_shop: Any, template: dict[str, Any]) -> Any:
    return await make_shop({"database": DATABASE, "receiver": {"podTemplate": {"spec": template}}})


async def test_null_takes_a_field_away_also_after_the_api_server_has_stored_it(make_shop: Any) -> None:
    """Clusters that pick the user of a pod themselves refuse pods that name one."""
    shop = await make(make_shop, {"securityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": 7}})
    await shop.apply()
    pod = (await shop.get("Deployment", "main-receiver"))["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"fsGroup": 7, "runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


async def test_everything_a_pod_template_may_say_reaches_the_pods(make_shop: Any) -> None:
    added = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "priorityClassName": "system-cluster-critical",
        "volumes": [{"name": "authorities", "configMap": {"name": "authorities"}}],
        "containers": [
            {
                "name": "receiver",
                "env": [{"name": "KAPSEL_LOG_LEVEL", "value": "debug"}],
                "volumeMounts": [{"name": "authorities", "mountPath": "/etc/authorities"}],
                "readinessProbe": {"periodSeconds": 9},
            },
            {"name": "watcher", "image": "docker.io/library/busybox:1.37", "resources": {"limits": {"cpu": "10m"}}},
        ],
        "initContainers": [{"name": "first", "args": ["--version"]}],
    }
    shop = await make(make_shop, added)
    assert problems(shop.relay, shop.facts) == ()
    await shop.apply()
    pod = (await shop.get("Deployment", "main-receiver"))["spec"]["template"]["spec"]
    ours, watcher = pod["containers"]
    assert {one["name"]: one.get("value") for one in ours["env"]}["KAPSEL_LOG_LEVEL"] == "debug"
    assert [one["mountPath"] for one in ours["volumeMounts"]] == ["/etc/kapsel", "/etc/authorities"]
    assert ours["readinessProbe"]["periodSeconds"] == 9
    assert watcher["image"] == "docker.io/library/busybox:1.37"
    assert pod["initContainers"][0]["image"] == "localhost/kapsel:0.1.0"
    assert pod["nodeSelector"] == {"disk": "ssd"}


@pytest.mark.parametrize(
    ("added", "status", "says"),
    [
        ({"tolerations": "all"}, 500, "failed to create typed patch object"),
        ({"affinity": {"nodeAfinity": {}}}, 500, "field not declared in schema"),
        ({"containers": [{"name": "UPPER"}]}, 422, "spec.template.spec.containers[1].name"),
        ({"volumes": [{"name": "nothing", "emptyDir": {}, "hostPath": {"path": "/"}}]}, 422, "volumes[1]"),
    ],
)
async def test_what_a_pod_template_gets_wrong_is_told_by_the_api_server(
    make_shop: Any, added: dict[str, Any], status: int, says: str
) -> None:
    """A manifest that fits no type is answered with 500, as if the server were in trouble: the words tell the truth."""
    shop = await make(make_shop, added)
    deployment = next(one for one in build(shop.relay, shop.facts) if one["kind"] == "Deployment")
    with pytest.raises(ApiError) as refused:
        await shop.cluster.apply(deployment)
    assert refused.value.status == status
    assert says in str(refused.value)
    assert not refused.value.is_transient
