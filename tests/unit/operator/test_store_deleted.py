"""What is being deleted is gone for kapsel, and says nothing of another one of its name."""

from typing import Any

from kapsel_operator.store import Store
from kapsel_resources.kinds.model import Identity

ORDERS = Identity("RetryPolicy", "shop", "orders")


def body(uid: str, version: int, **metadata: str) -> dict[str, Any]:
    named = {"name": ORDERS.name, "namespace": ORDERS.namespace, "uid": uid, "resourceVersion": str(version)}
    return {"apiVersion": "kapsel.dev/v1alpha1", "kind": ORDERS.kind, "metadata": {**named, **metadata}, "spec": {}}


def test_what_somebody_elses_finalizer_holds_is_gone() -> None:
    store = Store()
    store.put(body("a", 1))
    assert store.put(body("a", 2, deletionTimestamp="2026-01-01T00:00:00Z")).declared
    assert store.find(ORDERS) is None


def test_a_late_word_of_what_was_deleted_is_not_taken_for_one_of_its_successor() -> None:
    store = Store()
    store.put(body("a", 1))
    store.put(body("b", 3))
    assert not store.put(body("a", 2, deletionTimestamp="2026-01-01T00:00:00Z")).declared
    found = store.find(ORDERS)
    assert found is not None
    assert found.uid == "b"
