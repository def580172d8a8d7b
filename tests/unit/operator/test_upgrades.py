"""Pods get the operator's version one Relay after the other, and a Relay's own version at once."""

from typing import Any

from kapsel_operator.store import Declared, declared
from kapsel_operator.upgrades import Turn, turn
from kapsel_resources.kinds.model import Identity

NEW = "0.2.0"


def relay(name: str, version: str | None, *, own: str | None = None, **more: Any) -> Declared:
    metadata = {"name": name, "namespace": "shop", "uid": name, "resourceVersion": "1", "annotations": {}}
    status: dict[str, Any] = {} if version is None else {"version": version}
    if more.get("stalled"):
        condition = {"type": "Stalled", "status": "True", "reason": "DatabaseMissing", "lastTransitionTime": ""}
        status["conditions"] = [condition]
    if more.get("away"):
        condition = {"type": "DatabaseReachable", "status": "False", "reason": "X", "lastTransitionTime": ""}
        status["conditions"] = [condition]
    if more.get("paused"):
        metadata["annotations"] = {"kapsel.dev/reconcile": "disabled"}
    spec = {} if own is None else {"version": own}
    document = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "spec": spec}
    return declared({**document, "metadata": metadata, "status": status})


def after(name: str) -> Identity:
    return Identity("Relay", "shop", name)


def test_relays_that_follow_the_operator_take_turns() -> None:
    a, b, c = (relay(name, "0.1.0") for name in "abc")
    assert [turn(one, [c, b, a], NEW) for one in (a, b, c)] == [
        Turn(NEW),
        Turn("0.1.0", after("a")),
        Turn("0.1.0", after("a")),
    ]


def test_when_one_is_done_it_is_the_turn_of_the_next() -> None:
    a, b, c = relay("a", NEW), relay("b", "0.1.0"), relay("c", "0.1.0")
    assert [turn(one, [a, b, c], NEW) for one in (a, b, c)] == [Turn(NEW), Turn(NEW), Turn("0.1.0", after("b"))]


def test_a_relay_with_a_version_of_its_own_gets_it_at_once_and_keeps_nobody_waiting() -> None:
    a, b = relay("a", "0.1.0", own="0.1.5"), relay("b", "0.1.0")
    assert [turn(one, [a, b], NEW) for one in (a, b)] == [Turn("0.1.5"), Turn(NEW)]


def test_a_new_relay_starts_with_the_newest_version() -> None:
    a, b = relay("a", "0.1.0"), relay("b", None)
    assert turn(b, [a, b], NEW) == Turn(NEW)


def test_a_relay_that_is_stuck_or_paused_or_without_its_database_keeps_nobody_waiting() -> None:
    stuck, paused, c = relay("a", "0.1.0", stalled=True), relay("b", "0.1.0", paused=True), relay("c", "0.1.0")
    away = relay("aa", "0.1.0", away=True)
    assert turn(c, [stuck, paused, away, c], NEW) == Turn(NEW)
