"""The manifests of whole Relays, as a person has read them: what differs is what an upgrade does to clusters."""

import yaml


def test_a_relay_becomes_the_objects_that_a_person_has_looked_at(now_and_then: tuple[str, str]) -> None:
    """If the new ones are meant: `python tests/unit/operator/manifests/conftest.py`, and read the difference."""
    now, then = now_and_then
    assert list(yaml.safe_load_all(now)) == list(yaml.safe_load_all(then))
