"""Witnesses as processes of their own, and a log that asks them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from witnessing import SmallLog, WitnessProcess


@pytest.fixture
def small_log() -> SmallLog:
    return SmallLog()


@pytest.fixture
def witness(tmp_path: Path) -> Iterator[Callable[[str], WitnessProcess]]:
    made: list[WitnessProcess] = []

    def make(name: str) -> WitnessProcess:
        one = WitnessProcess(tmp_path / re.sub(r"\W", "-", name))
        one.make(name)
        made.append(one)
        return one

    yield make
    for one in made:
        one.close()
