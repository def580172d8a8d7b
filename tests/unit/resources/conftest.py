import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from kapsel_resources.manifests import parse

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Entropy:
    """A whole random source whose bytes are known: no two draws are equal."""

    def __init__(self, seed: str = "") -> None:
        self._seed = seed
        self._draws = 0

    def __call__(self, size: int) -> bytes:
        self._draws += 1
        return hashlib.shake_256(f"{self._seed}{self._draws}".encode()).digest(size)


class NoEntropy:
    """A random source that must not be asked."""

    def __call__(self, size: int) -> bytes:
        raise AssertionError("a plan that changes nothing draws nothing")


def _resource(kind: str, name: str, spec: dict | None = None, namespace: str = "shop") -> object:
    document = {"apiVersion": "kapsel.dev/v1alpha1", "kind": kind, "metadata": {"name": name, "namespace": namespace}}
    parsed = parse({**document, "spec": spec} if spec is not None else document)
    assert not isinstance(parsed, list), [str(problem) for problem in parsed]
    return parsed


def _secret(name: str, namespace: str = "shop", **entries: str) -> object:
    metadata = {"name": name, "namespace": namespace}
    return parse({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": entries})


@pytest.fixture(scope="session")
def resource() -> Callable[..., object]:
    return _resource


@pytest.fixture(scope="session")
def secret() -> Callable[..., object]:
    return _secret


@pytest.fixture(scope="session")
def now() -> datetime:
    return NOW


@pytest.fixture(scope="session")
def entropy() -> Entropy:
    return Entropy()


@pytest.fixture(scope="session")
def other_entropy() -> Entropy:
    return Entropy("other")


@pytest.fixture(scope="session")
def no_entropy() -> NoEntropy:
    return NoEntropy()
