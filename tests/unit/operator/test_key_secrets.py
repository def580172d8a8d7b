"""Generated keys in Secrets, and back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_operator import key_secrets
from kapsel_operator.store import Declared, declared
from kapsel_resources import key_values
from kapsel_resources.keys import new_id
from kapsel_resources.kinds.core import Secret
from kapsel_resources.manifests import parse
from kapsel_resources.rotation import BACKDATE
from kapsel_store.rows import Algorithm, KeyRow

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def entropy(size: int) -> bytes:
    return bytes(range(size))


def owner() -> Declared:
    metadata = {"name": "out", "namespace": "shop", "uid": "u", "resourceVersion": "1"}
    spec = {"algorithm": "Ed25519", "source": "Generate"}
    return declared({"apiVersion": "kapsel.dev/v1alpha1", "kind": "SigningKey", "metadata": metadata, "spec": spec})


def row(version: int, algorithm: Algorithm, seed: int = 0, lives: timedelta | None = None) -> KeyRow:
    value = key_values.generate(algorithm, bytes([seed]) * key_values.random_size(algorithm))
    return KeyRow(
        id=new_id(entropy),
        namespace="shop",
        name="generated/out",
        version=version,
        algorithm=algorithm,
        secret=value.secret,
        public=value.public,
        not_before=NOW,
        not_after=None if lives is None else NOW + lives,
    )


def read(manifest: dict[str, Any]) -> Secret:
    parsed = parse(manifest)
    assert isinstance(parsed, Secret), [str(problem) for problem in parsed]
    return parsed


@given(
    st.sampled_from(["HMAC-SHA256", "HMAC-SHA512", "Ed25519"]),
    st.lists(st.tuples(st.integers(1, 99), st.integers(0, 255)), min_size=1, unique_by=lambda pair: pair[0]),
)
def test_what_is_written_into_a_secret_comes_back(algorithm: Algorithm, versions: list[tuple[int, int]]) -> None:
    before = [row(version, algorithm, seed, timedelta(hours=version)) for version, seed in versions]
    secret = read(key_secrets.manifest(owner(), before))
    found = key_secrets.rows(secret, "generated/out", algorithm, NOW, entropy)
    known = {one.version: one for one in before}
    assert {one.version for one in found} == set(known)
    for one in found:
        expected = known[one.version]
        assert (one.secret, one.public) == (expected.secret, expected.public)
        assert (one.not_before, one.not_after) == (expected.not_before, expected.not_after)


def test_a_secret_is_read_as_people_expect_it() -> None:
    entries = read(key_secrets.manifest(owner(), [row(1, "Ed25519")])).entries
    assert sorted(entries) == ["v1", "v1.pub"]
    assert entries["v1"].startswith(b"whsk_")
    assert entries["v1.pub"].startswith(b"whpk_")
    shared = read(key_secrets.manifest(owner(), [row(2, "HMAC-SHA256")])).entries
    assert shared["v2"].startswith(b"whsec_")


def test_what_somebody_made_of_a_secret_is_left_out_and_the_rest_is_read() -> None:
    manifest = key_secrets.manifest(owner(), [row(1, "Ed25519")])
    manifest["metadata"]["annotations"] = {key_secrets.VERSIONS: "[nonsense"}
    manifest["stringData"] = {"v2": "no key", "v0": "whsk_AAAA", "v01": "x", "note": "mine"}
    (found,) = key_secrets.rows(read(manifest), "generated/out", "Ed25519", NOW, entropy)
    assert found.version == 1
    assert found.not_before < NOW
    assert found.not_after is None


def test_names_that_are_too_long_are_cut() -> None:
    assert key_secrets.secret_name("SigningKey", "out") == "out-key"
    assert key_secrets.secret_name("WebhookEndpoint", "orders") == "orders-signing"
    assert len(key_secrets.secret_name("WebhookEndpoint", "a" * 253)) == 253


def read_back(times: str, *entries: str) -> list[tuple[int, datetime, datetime | None]]:
    secret = Secret.model_validate(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "out-key", "namespace": "shop", "annotations": {key_secrets.VERSIONS: times}},
            "stringData": dict.fromkeys(entries, "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="),
        }
    )
    rows = key_secrets.rows(secret, "generated/out", "HMAC-SHA256", NOW, entropy)
    return [(row.version, row.not_before, row.not_after) for row in rows]


@pytest.mark.parametrize(
    "times",
    [
        "no JSON",
        "[" * 100_000,
        '{"v1": ["2026-01-01T00:00:00", null]}',
        '{"v1": ["2026-01-02T00:00:00+00:00", "2026-01-01T00:00:00+00:00"]}',
        '{"v1": ["9999-12-31T23:59:59+00:00", null]}',
        '{"v1": ["0001-01-01T00:00:00+00:00", null]}',
        '{"v1": ["2026-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00"]}',
    ],
    ids=["text", "deep", "naive", "backwards", "last", "first", "endless"],
)
def test_times_that_no_row_can_have_count_for_nothing(times: str) -> None:
    """The database would refuse such a row, and with it all that is applied with it."""
    assert read_back(times, "v1") == [(1, NOW - BACKDATE, None)]


def test_versions_that_the_database_cannot_count_are_left_out() -> None:
    assert [version for version, _, _ in read_back("", "v0", "v01", "v7", "v99999999999")] == [7]
