"""Where a Relay is reached: Services, Ingress, HTTPRoute, and the URL that the status shows."""

from typing import Any

import pytest

from kapsel_console.app import ROUTES
from kapsel_console.openness import Openness
from kapsel_operator.manifests.address import inside, url
from kapsel_operator.manifests.build import build
from kapsel_operator.manifests.facts import Capability
from kapsel_operator.manifests.routes import KEYS_PATH

HOST = "hooks.example.com"
INGRESS = {"type": "Ingress", "hostname": HOST}
ROUTE = {"type": "HTTPRoute", "hostname": HOST, "gatewayRef": {"name": "public", "sectionName": "web"}}


def listener(name: str, protocol: str, port: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "protocol": protocol, "port": port, **more}


def balanced(**address: str) -> dict[str, Any]:
    return {"status": {"loadBalancer": {"ingress": [address]}}}


@pytest.mark.parametrize(
    ("exposure", "seen", "expected"),
    [
        ({"type": "ClusterIP"}, {}, "http://main-receiver.shop.svc.cluster.local"),
        ({"type": "LoadBalancer"}, {}, None),
        ({"type": "LoadBalancer"}, {"service": {"status": {"loadBalancer": {}}}}, None),
        ({"type": "LoadBalancer"}, {"service": balanced(ip="192.0.2.7")}, "http://192.0.2.7"),
        ({"type": "LoadBalancer"}, {"service": balanced(ip="2001:db8::7")}, "http://[2001:db8::7]"),
        ({"type": "LoadBalancer"}, {"service": balanced(hostname="lb.example.com")}, "http://lb.example.com"),
        ({"type": "LoadBalancer", "hostname": HOST}, {}, f"http://{HOST}"),
        (INGRESS, {}, f"http://{HOST}"),
        ({**INGRESS, "tlsSecretRef": {"name": "tls"}}, {}, f"https://{HOST}"),
        (ROUTE, {}, f"https://{HOST}"),
        (ROUTE, {"gateway": {"spec": {"listeners": [listener("web", "HTTP", 80)]}}}, f"http://{HOST}"),
        (ROUTE, {"gateway": {"spec": {"listeners": [listener("web", "HTTPS", 8443)]}}}, f"https://{HOST}:8443"),
        (
            {**ROUTE, "gatewayRef": {"name": "public"}},
            {
                "gateway": {
                    "spec": {
                        "listeners": [
                            listener("a", "HTTP", 80),
                            listener("b", "HTTPS", 443, hostname="*.example.com"),
                            listener("c", "HTTPS", 9443, hostname="other.example.net"),
                        ]
                    }
                }
            },
            f"https://{HOST}",
        ),
    ],
)
def test_the_url_is_where_providers_reach_the_receivers(
    relay: Any, facts: Any, exposure: dict[str, Any], seen: dict[str, Any], expected: str | None
) -> None:
    assert url(relay({"exposure": exposure}), facts(), **seen) == expected


def test_the_url_within_the_cluster_knows_the_clusters_domain(relay: Any, facts: Any) -> None:
    assert inside(relay(), facts(cluster_domain="example.org")) == "http://main-receiver.shop.svc.example.org"


def services(relay: Any, facts: Any, exposure: dict[str, Any]) -> dict[str, Any]:
    made = build(relay({"exposure": exposure}), facts())
    return {one["metadata"]["name"]: one for one in made if one["kind"] == "Service"}


def test_a_load_balancer_shows_webhooks_in_and_nothing_else(relay: Any, facts: Any) -> None:
    receiver = services(relay, facts, {"type": "LoadBalancer", "annotations": {"a": "b"}})["main-receiver"]
    assert receiver["spec"]["type"] == "LoadBalancer"
    assert [port["name"] for port in receiver["spec"]["ports"]] == ["http"]
    assert receiver["metadata"]["annotations"] == {"a": "b"}


def test_metrics_of_every_component_are_reached_within_the_cluster(relay: Any, facts: Any) -> None:
    found = services(relay, facts, {"type": "ClusterIP"})
    ports = {name: [port["name"] for port in one["spec"]["ports"]] for name, one in found.items()}
    assert ports == {
        "main-receiver": ["http", "health"],
        "main-deliverer": ["health", "attestor-health"],
        "main-console": ["http", "health"],
    }


def test_annotations_of_the_exposure_go_to_the_object_that_exposes(relay: Any, facts: Any) -> None:
    exposure = {**INGRESS, "annotations": {"a": "b"}}
    made = {one["kind"]: one for one in build(relay({"exposure": exposure}), facts()) if one["kind"] == "Ingress"}
    assert made["Ingress"]["metadata"]["annotations"] == {"a": "b"}
    assert "annotations" not in services(relay, facts, exposure)["main-receiver"]["metadata"]


def test_what_exposes_leads_to_the_receivers_and_with_public_keys_alone_to_the_consoles(relay: Any, facts: Any) -> None:
    ingress = next(one for one in build(relay({"exposure": INGRESS}), facts()) if one["kind"] == "Ingress")
    (rule,) = ingress["spec"]["rules"]
    keys, all_else = rule["http"]["paths"]
    assert (keys["path"], all_else["path"]) == (KEYS_PATH, "/")
    assert keys["backend"] == {"service": {"name": "main-console", "port": {"name": "http"}}}
    assert all_else["backend"] == {"service": {"name": "main-receiver", "port": {"name": "http"}}}
    route = next(one for one in build(relay({"exposure": ROUTE}), facts()) if one["kind"] == "HTTPRoute")
    assert [one["backendRefs"][0]["name"] for one in route["spec"]["rules"]] == ["main-console", "main-receiver"]


def ways_in(relay: Any, facts: Any, exposure: dict[str, Any], public_log: str) -> dict[str, str]:
    """Return which path leads to which Service."""
    made = build(relay({"exposure": exposure, "publicLog": public_log}), facts(capabilities=frozenset(Capability)))
    (route,) = [one for one in made if one["kind"] in ("Ingress", "HTTPRoute")]
    if route["kind"] == "Ingress":
        paths = route["spec"]["rules"][0]["http"]["paths"]
        return {path["path"]: path["backend"]["service"]["name"] for path in paths}
    return {
        match["path"]["value"]: rule["backendRefs"][0]["name"]
        for rule in route["spec"]["rules"]
        for match in rule["matches"]
    }


@pytest.mark.parametrize("exposure", [INGRESS, ROUTE])
def test_outsiders_reach_the_log_if_it_is_opened_to_them_and_nothing_else_of_a_console(
    relay: Any, facts: Any, exposure: dict[str, Any]
) -> None:
    closed = ways_in(relay, facts, exposure, "None")
    assert closed == {KEYS_PATH: "main-console", "/": "main-receiver"}
    assert {route.opens for route in ROUTES if route.path.startswith(KEYS_PATH)} == {Openness.NONE}
    assert [route for route in ROUTES if route.opens is Openness.NONE and not route.path.startswith(KEYS_PATH)] == []
    opened = ways_in(relay, facts, exposure, "Heads")
    assert opened.pop("/") == "main-receiver"
    assert set(opened.values()) == {"main-console"}
    # All that a console can open is reached, and what it never opens is not, but for what the log is called.
    for route in ROUTES:
        reached = any(route.path.startswith(path + "/") or route.path == path for path in opened)
        assert reached == (route.opens is not None or route.path == "/api/v1/attestation/log"), route.path


@pytest.mark.parametrize(("public_log", "setting"), [("None", None), ("Heads", "heads"), ("Leaves", "leaves")])
def test_consoles_open_as_much_of_the_log_as_the_relay_says(
    relay: Any, facts: Any, public_log: str, setting: str | None
) -> None:
    made = build(relay({"publicLog": public_log}), facts())
    (console,) = [one for one in made if one["kind"] == "Deployment" and one["metadata"]["name"] == "main-console"]
    env = {one["name"]: one.get("value") for one in console["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env.get("KAPSEL_CONSOLE_PUBLIC_LOG") == setting
    if setting is not None:
        assert setting.upper() in Openness.__members__
