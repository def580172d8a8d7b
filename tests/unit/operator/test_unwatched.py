"""What lies in namespaces that nobody watches is not known to be gone."""

from datetime import UTC, datetime
from uuid import UUID

from kapsel_operator.configure import unwatched
from kapsel_operator.scopes import Scope
from kapsel_resources.kinds.model import Identity
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.manifests import parse
from kapsel_store.rows import Configuration, EndpointRow, KeyRow, Verification

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def key(namespace: str, name: str) -> KeyRow:
    return KeyRow(
        id=UUID(int=2),
        namespace=namespace,
        name=name,
        version=1,
        algorithm="HMAC-SHA256",
        secret=b"",
        public=None,
        not_before=NOW,
    )


def platform(allowed: str) -> Scope:
    spec = {"allowedNamespaces": {"from": allowed}}
    metadata = {"name": "main", "namespace": "platform"}
    relay = parse({"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "metadata": metadata, "spec": spec})
    assert isinstance(relay, Relay)
    none: frozenset[Identity] = frozenset()
    return Scope(resources=(relay,), broken=none, speaks_for=none, superseded=none, needs_log=False)


def test_what_has_rows_in_a_namespace_that_is_not_watched_may_exist_as_long_as_it_is_allowed() -> None:
    main = Identity("Relay", "platform", "main")
    orders = EndpointRow(id=UUID(int=1), namespace="shop", name="orders", verification=Verification(scheme="none"))
    keys = (key("shop", "generated/out"), key("shop", "endpoint/orders"), key("platform", "generated/in"))
    existing = Configuration(endpoints=(orders,), keys=keys)
    found = {Identity("WebhookEndpoint", "shop", "orders"), Identity("SigningKey", "shop", "out")}
    assert unwatched(existing, main, platform("All"), ("platform",)) == found
    assert unwatched(existing, main, platform("Same"), ("platform",)) == frozenset()
    assert unwatched(existing, main, platform("All"), ("platform", "shop")) == frozenset()
    assert unwatched(existing, main, platform("All"), ()) == frozenset()
