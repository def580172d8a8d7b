"""The programs that judge the chart, built once into the cache of tests/cluster."""

import os
from pathlib import Path

import pytest
from onenode import binaries


def tool(module: str) -> Path:
    """Return a program, built now if this is CI; skip where it is missing."""
    if binaries.missing((module,)):
        if os.environ.get("CI") == "true":
            binaries.build((module,))
        else:
            pytest.skip(f"{module} is not built: run `tests/cluster/cluster build` once (Go, some minutes)")
    return binaries.program(module)
