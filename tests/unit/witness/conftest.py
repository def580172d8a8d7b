"""A log that a witness knows: it grows, and it can cheat."""

import pytest
from witnessing import SmallLog


@pytest.fixture
def log() -> SmallLog:
    return SmallLog()
