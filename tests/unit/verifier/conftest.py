"""The generator of the vectors, so that tests share its log, its keys and its proof."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

VECTORS = Path(__file__).parents[2] / "vectors"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kapsel_vectors_generate", VECTORS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def log() -> ModuleType:
    """A log of thirteen attempts: `log.LEAVES`, `log.PROOF`, `log.vkey()`, `log.sign()`."""
    return _load()


@pytest.fixture(scope="session")
def vectors() -> Path:
    return VECTORS
