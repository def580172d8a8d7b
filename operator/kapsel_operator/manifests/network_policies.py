"""NetworkPolicies: each component may talk to what it needs, and to nothing else; an annotation says why.

They select by pod, so the strictest rule of a cluster still adds up with them, and people may add policies of their own
for containers of theirs. The kubelet's probes are always let through.
"""

import ipaddress
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from kapsel_egress.ranges import not_public
from kapsel_operator.manifests import names
from kapsel_operator.manifests.containers import ATTESTOR_HEALTH, HEALTH, HTTP
from kapsel_operator.manifests.embedded_postgres import PORT_NAME
from kapsel_operator.manifests.facts import Facts, Manifest
from kapsel_operator.manifests.generated_secrets import POSTGRES_PORT, postgres_name
from kapsel_operator.manifests.metadata import metadata
from kapsel_resources.kinds.relay import Relay

WHY: Final = "kapsel.dev/why"
# Where the API server of a cluster usually is, if its address is not public; never the metadata service.
_PRIVATE: Final = ("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")


def leads_to_database(relay: Relay, facts: Facts) -> bool:
    """Return whether it is known where the database is: a policy without the way to it would cut off pods that work."""
    return bool(_database(relay, facts))


def receiver_policy(relay: Relay, facts: Facts) -> Manifest:
    """Return the policy of the receivers."""
    why = "In: webhooks from anywhere, metrics from pods of the cluster. Out: the database, and DNS to find it."
    rules = [_in(HTTP), _in(HEALTH, peers=_cluster())]
    return _policy(relay, facts, "receiver", why, rules, [_dns(), *_database(relay, facts)])


def console_policy(relay: Relay, facts: Facts) -> Manifest:
    """Return the policy of the consoles."""
    why = (
        "In: requests from anywhere, since those that come through the API server come from addresses nobody can name, "
        "and each needs the token but for public keys and what publicLog opens; metrics from pods of the cluster. Out: "
        "the database, and DNS to find it."
    )
    rules = [_in(HTTP), _in(HEALTH, peers=_cluster())]
    return _policy(relay, facts, "console", why, rules, [_dns(), *_database(relay, facts)])


def deliverer_policy(relay: Relay, facts: Facts) -> Manifest:
    """Return the policy of the deliverers and their attestors."""
    why = (
        "In: metrics from pods of the cluster. Out: destinations on the internet, and in the ranges that "
        "spec.egress.allowedCIDRs opens (these may be Services, whose pods have other addresses, so pods of the "
        "cluster are open with them); the database; DNS; the Kubernetes API for the attestor's fence. Which "
        "destination may be reached, the deliverer decides address by address."
    )
    out = [_dns(), *_database(relay, facts), *_destinations(relay)]
    if facts.log is not None:
        out.append(_out(443, 6443, peers=_blocks(_PRIVATE)))
    rules = [_in(HEALTH, peers=_cluster()), _in(ATTESTOR_HEALTH, peers=_cluster())]
    return _policy(relay, facts, "deliverer", why, rules, out)


def migrate_policy(relay: Relay, facts: Facts) -> Manifest:
    """Return the policy of the migration Job."""
    why = "In: nothing. Out: the database, and DNS to find it."
    return _policy(relay, facts, "migrate", why, [], [_dns(), *_database(relay, facts)])


def postgres_policy(relay: Relay, facts: Facts) -> Manifest:
    """Return the policy of the embedded Postgres."""
    why = "In: the pods of this Relay, and the operator, which writes the configuration. Out: nothing."
    operator = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": facts.operator_namespace}},
        "podSelector": {"matchLabels": {"app.kubernetes.io/name": "kapsel", "app.kubernetes.io/component": "operator"}},
    }
    mine = {key: value for key, value in names.selector(relay, "").items() if value}
    rules = [_in(PORT_NAME, peers=[{"podSelector": {"matchLabels": mine}}, operator])]
    policy = _policy(relay, facts, "postgres", why, rules, [])
    policy["metadata"]["name"] = postgres_name(relay)
    return policy


def _policy(
    relay: Relay, facts: Facts, component: str, why: str, ingress: Sequence[Manifest], egress: Sequence[Manifest]
) -> Manifest:
    """Return a policy that refuses what no rule allows; empty lists stay out, for the server drops them."""
    spec: Manifest = {
        "podSelector": {"matchLabels": names.selector(relay, component)},
        "policyTypes": ["Ingress", "Egress"],
    }
    if ingress:
        spec["ingress"] = list(ingress)
    if egress:
        spec["egress"] = list(egress)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(relay, facts, component, annotations={WHY: why}),
        "spec": spec,
    }


def _in(port: str, *, peers: Sequence[Manifest] = ()) -> Manifest:
    rule: Manifest = {"ports": [{"port": port, "protocol": "TCP"}]}
    return {**rule, "from": list(peers)} if peers else rule


def _out(*ports: int, peers: Sequence[Manifest] = ()) -> Manifest:
    rule: Manifest = {"ports": [{"port": port, "protocol": "TCP"} for port in ports]}
    return {**rule, "to": list(peers)} if peers else rule


def _dns() -> Manifest:
    return {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}


def _database(relay: Relay, facts: Facts) -> list[Manifest]:
    """Return the way to the database: to its pods if they are known, or to its port wherever it is."""
    database = relay.spec.database
    if database is not None and database.embedded is not None:
        return [_out(POSTGRES_PORT, peers=[{"podSelector": {"matchLabels": names.selector(relay, "postgres")}}])]
    if database is not None and database.cnpg_cluster_ref is not None:
        labels = {"cnpg.io/cluster": database.cnpg_cluster_ref.name}
        return [_out(POSTGRES_PORT, peers=[{"podSelector": {"matchLabels": labels}}])]
    known = facts.database
    if known is None:
        return []
    return [_out(*dict.fromkeys([known.port, *([known.direct.port] if known.direct is not None else [])]))]


def _destinations(relay: Relay) -> list[Manifest]:
    internet = [
        {"ipBlock": {"cidr": "0.0.0.0/0", "except": list(not_public(4))}},
        {"ipBlock": {"cidr": "::/0", "except": list(not_public(6))}},
    ]
    # What a pod says to itself never leaves it.
    opened = [one for one in relay.spec.egress.allowed_cidrs if not ipaddress.ip_network(one).is_loopback]
    return [{"to": internet}, *([{"to": [*_blocks(opened), *_cluster()]}] if opened else []), *_proxy(relay)]


def _proxy(relay: Relay) -> list[Manifest]:
    """Return the way to the proxy: where its address is not known here, its port is, wherever it is."""
    proxy = relay.spec.egress.proxy
    if proxy is None:
        return []
    where = urlsplit(proxy.url)
    return [_out(where.port or (443 if where.scheme == "https" else 80), peers=_blocks(_single(where.hostname or "")))]


def _cluster() -> list[Manifest]:
    return [{"namespaceSelector": {}}]


def _single(host: str) -> list[str]:
    try:
        return [str(ipaddress.ip_network(host))]
    except ValueError:
        return []


def _blocks(ranges: Sequence[str]) -> list[Manifest]:
    return [{"ipBlock": {"cidr": one}} for one in ranges]
