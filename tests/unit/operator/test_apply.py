"""What is compared before anything is written."""

from typing import Any

import pytest

from kapsel_operator.apply import APPLIED, includes, with_digest

MANIFEST: dict[str, Any] = {
    "kind": "Deployment",
    "metadata": {"name": "main", "labels": {"a": "b"}},
    "spec": {"replicas": 2, "containers": [{"name": "one", "env": []}]},
}


def test_what_a_server_adds_makes_no_difference() -> None:
    current = {
        **MANIFEST,
        "metadata": {**MANIFEST["metadata"], "uid": "u", "labels": {"a": "b", "c": "d"}},
        "spec": {**MANIFEST["spec"], "paused": False, "containers": [{"name": "one", "env": [], "image": "x"}]},
        "status": {"replicas": 2},
    }
    assert includes(current, MANIFEST)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": {**MANIFEST["spec"], "replicas": 3}},
        {"spec": {"replicas": 2}},
        {"spec": {**MANIFEST["spec"], "containers": []}},
        {"spec": {**MANIFEST["spec"], "containers": [{"name": "one", "env": [{"name": "X"}]}]}},
        {"spec": {**MANIFEST["spec"], "containers": None}},
        {"metadata": {"name": "main", "labels": {"a": "other"}}},
    ],
)
def test_what_somebody_changed_or_took_away_is_seen(change: dict[str, Any]) -> None:
    assert not includes({**MANIFEST, **change}, MANIFEST)


def test_a_field_that_was_taken_out_of_the_manifest_shows_in_its_digest() -> None:
    without = {**MANIFEST, "spec": {"containers": MANIFEST["spec"]["containers"]}}
    assert includes(MANIFEST, without)
    assert not includes(with_digest(MANIFEST), with_digest(without))


def test_the_digest_is_that_of_the_content_alone() -> None:
    again = with_digest({**dict(reversed(MANIFEST.items()))})
    assert again["metadata"]["annotations"][APPLIED] == with_digest(MANIFEST)["metadata"]["annotations"][APPLIED]
    assert APPLIED not in MANIFEST["metadata"].get("annotations", {})
