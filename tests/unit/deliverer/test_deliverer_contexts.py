"""Which destinations share a TLS context, and with it their connections."""

from pathlib import Path

import pytest

from kapsel_deliverer.contexts import Contexts
from kapsel_store.rows import Tls

PEM = Path(__file__).parents[2] / "integration" / "deliverer" / "tls"
SECRETS = {"one": (PEM / "client.pem").read_bytes(), "two": (PEM / "stranger.pem").read_bytes()}


def test_a_context_is_shared_by_those_who_declare_the_same_and_by_nobody_else() -> None:
    contexts = Contexts()
    ways = [Tls(certificate_name="one"), Tls(certificate_name="two"), Tls(), Tls(min_version="1.3")]
    made = [contexts.get(way, SECRETS) for way in ways]

    assert len(set(map(id, made))) == len(ways)
    assert [contexts.get(way, SECRETS) for way in ways] == made
    assert contexts.get(Tls(certificate_name="another"), {"another": SECRETS["one"]}) is made[0]
    assert contexts.get(None, SECRETS) is None


def test_what_the_next_configuration_needs_is_kept_and_the_rest_forgotten() -> None:
    contexts = Contexts()
    one, two = Tls(certificate_name="one"), Tls(certificate_name="two")
    first, second = contexts.get(one, SECRETS), contexts.get(two, SECRETS)
    contexts.follow()
    assert contexts.get(one, SECRETS) is first
    contexts.follow()
    assert contexts.get(one, SECRETS) is first
    assert contexts.get(two, SECRETS) is not second


def test_what_is_no_pem_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        Contexts().get(Tls(certificate_name="one"), {"one": b"hello"})
    with pytest.raises(ValueError, match="no certificate"):
        Contexts().get(Tls(ca_name="one"), {"one": b"hello"})
    with pytest.raises(KeyError):
        Contexts().get(Tls(ca_name="one"), {})
