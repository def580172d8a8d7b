"""What pods may reach and be reached by, asked of the policies as a network would read them."""

import ipaddress
from typing import Any

import pytest

from kapsel_egress import ranges
from kapsel_operator.manifests.build import build
from kapsel_operator.manifests.facts import Database, DirectUrl

POD = "10.244.1.7"  # of another pod of the cluster
MOST = {4: 2**32 - 1, 6: 2**128 - 1}


def policies(relay: Any, facts: Any, spec: dict[str, Any] | None = None, **known: Any) -> dict[str, Any]:
    made = build(relay({"database": {"embedded": {}}} if spec is None else spec), facts(**known))
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one for one in made if one["kind"] == "NetworkPolicy"
    }


def may_reach(policy: dict[str, Any], address: str, port: int, labels: dict[str, str] | None = None) -> bool:
    """Whether a pod may open a connection to an address; to a pod of the same namespace if it has labels."""
    return any(
        any(one["port"] == port for one in rule.get("ports", [{"port": port}]))
        and any(_is_meant(peer, address, labels) for peer in rule.get("to", [{}]))
        for rule in policy["spec"].get("egress", ())
    )


def _is_meant(peer: dict[str, Any], address: str, labels: dict[str, str] | None) -> bool:
    if "ipBlock" in peer:
        found = ipaddress.ip_address(address)
        block = peer["ipBlock"]
        return _is_in(found, block["cidr"]) and not any(_is_in(found, one) for one in block.get("except", ()))
    if "podSelector" in peer and "namespaceSelector" not in peer:
        return labels is not None and peer["podSelector"]["matchLabels"].items() <= labels.items()
    return peer == {} or labels is not None


def _is_in(address: Any, block: str) -> bool:
    network = ipaddress.ip_network(block)
    return address.version == network.version and address in network


def test_each_component_has_a_policy_that_refuses_what_it_does_not_name_and_says_why(relay: Any, facts: Any) -> None:
    found = policies(relay, facts)
    assert set(found) == {"receiver", "deliverer", "console", "migrate", "postgres"}
    for policy in found.values():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert "In: " in policy["metadata"]["annotations"]["kapsel.dev/why"]


def test_deliverers_reach_what_is_public_by_the_verdict_of_every_try_and_nothing_else(relay: Any, facts: Any) -> None:
    policy = policies(relay, facts)["deliverer"]
    edges = [
        ipaddress.ip_address(text) for text in ("0.0.0.0", "255.255.255.255", "::", "2000::", "3fff:ffff::", "4000::")
    ]
    for _, blocks in ranges.SPECIAL:
        for block in map(ipaddress.ip_network, blocks):
            edges += [block[0], block[-1]]
            edges += [one + step for one, step in ((block[0], -1), (block[-1], 1)) if 0 < int(one) < MOST[one.version]]
    for edge in edges:
        assert may_reach(policy, str(edge), 8443) == (ranges.special_range(edge) is None), edge


@pytest.mark.parametrize("component", ["receiver", "console", "migrate"])
def test_those_who_only_need_the_database_reach_nothing_else(relay: Any, facts: Any, component: str) -> None:
    policy = policies(relay, facts)[component]
    postgres = {
        "app.kubernetes.io/name": "kapsel",
        "app.kubernetes.io/instance": "main",
        "app.kubernetes.io/component": "postgres",
    }
    assert may_reach(policy, POD, 5432, postgres)
    assert may_reach(policy, POD, 53)
    assert not may_reach(policy, POD, 5432, {"app.kubernetes.io/name": "theirs"})
    assert not may_reach(policy, "93.184.216.34", 443)
    assert not may_reach(policy, "169.254.169.254", 80)


def test_a_database_elsewhere_is_reached_on_its_port(relay: Any, facts: Any) -> None:
    database = Database(secret="database", key="uri", digest="d", port=6432)
    policy = policies(relay, facts, {"database": {"secretRef": {"name": "database"}}}, database=database)["receiver"]
    assert may_reach(policy, "10.1.2.3", 6432)
    assert not may_reach(policy, "10.1.2.3", 5432)


def test_a_pooler_and_the_database_behind_it_are_both_reached(relay: Any, facts: Any) -> None:
    direct = DirectUrl(secret="pg-app", key="uri", port=5433)
    database = Database(secret="pooler", key="uri", digest="d", port=6432, direct=direct)
    spec = {"database": {"secretRef": {"name": "pooler", "directRef": {"name": "pg-app"}}}}
    for component in ("receiver", "deliverer", "console"):
        policy = policies(relay, facts, spec, database=database)[component]
        assert [may_reach(policy, "10.1.2.3", port) for port in (6432, 5433, 5432)] == [True, True, False]


@pytest.mark.parametrize(
    ("address", "port", "reached"),
    [
        ("93.184.216.34", 443, True),
        ("93.184.216.34", 8080, True),
        ("2606:2800:220:1::1", 443, True),
        ("10.0.0.1", 6443, True),  # the API server, for the fence
        ("10.0.0.1", 6379, False),
        ("192.168.1.1", 80, False),
        ("100.64.0.9", 8443, False),
        ("169.254.169.254", 80, False),
        ("169.254.169.254", 443, False),
        ("fd00::1", 8080, False),
        ("fe80::1", 443, False),
    ],
)
def test_deliverers_reach_the_internet_and_the_kubernetes_api(
    relay: Any, facts: Any, address: str, port: int, reached: bool
) -> None:
    assert may_reach(policies(relay, facts)["deliverer"], address, port) is reached


def test_without_an_attestor_deliverers_do_not_reach_the_kubernetes_api(relay: Any, facts: Any) -> None:
    assert not may_reach(policies(relay, facts, log=None)["deliverer"], "10.0.0.1", 6443)


def test_ranges_that_the_relay_opens_are_open_and_with_them_the_pods_behind_services(relay: Any, facts: Any) -> None:
    """A policy is asked after a Service's address has become that of a pod."""
    spec = {"egress": {"allowedCIDRs": ["10.96.0.0/16"]}}
    opened = policies(relay, facts, spec)["deliverer"]
    assert may_reach(opened, "10.96.3.4", 8080)
    assert may_reach(opened, POD, 8080, labels={"app": "theirs"})
    closed = policies(relay, facts, {"egress": {"allowedCIDRs": ["127.0.0.1/32"]}})["deliverer"]
    assert not may_reach(closed, POD, 8080, labels={"app": "theirs"})


@pytest.mark.parametrize(
    ("url", "reached"), [("http://10.1.2.3:3128", ["10.1.2.3"]), ("http://proxy.example.com:3128", ["10.1.2.3", POD])]
)
def test_deliverers_reach_the_proxy_of_their_relay(relay: Any, facts: Any, url: str, reached: list[str]) -> None:
    policy = policies(relay, facts, {"egress": {"proxy": {"url": url}}})["deliverer"]
    assert [one for one in ("10.1.2.3", POD) if may_reach(policy, one, 3128)] == reached
    assert not may_reach(policy, "10.1.2.3", 3129)


@pytest.mark.parametrize(("url", "port"), [("http://10.1.2.3", 80), ("https://10.1.2.3", 443)])
def test_a_proxy_without_a_port_is_reached_on_that_of_its_scheme(relay: Any, facts: Any, url: str, port: int) -> None:
    policy = policies(relay, facts, {"egress": {"proxy": {"url": url}}}, log=None)["deliverer"]
    assert [one for one in (80, 443) if may_reach(policy, "10.1.2.3", one)] == [port]


def test_the_embedded_database_is_reached_by_its_relay_and_the_operator_and_reaches_nothing(
    relay: Any, facts: Any
) -> None:
    policy = policies(relay, facts, operator_namespace="operators")["postgres"]
    assert "egress" not in policy["spec"]
    (rule,) = policy["spec"]["ingress"]
    mine, operator = rule["from"]
    assert mine == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kapsel", "app.kubernetes.io/instance": "main"}}
    }
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "operators"}
