"""The settings of the attestor."""

from pathlib import Path

from pydantic import Field

from kapsel_runtime.settings import DataPlaneSettings


class AttestorSettings(DataPlaneSettings):
    """What can be set of an attestor; intervals and the key of the log are configuration, not settings."""

    attestor_fence_file: Path = Field(
        description="File that remembers the last head that was signed, one per log. Required: it must survive when "
        "the database is restored from a backup, so it lies on another volume, or at least next to the data directory "
        "and not in it. Its directory must exist; the file is made with the first head.",
    )
