"""The settings of a console process, each from an environment variable KAPSEL_<NAME>."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from kapsel_runtime.settings import DataPlaneSettings


class ConsoleSettings(DataPlaneSettings):
    """What can be set of a console."""

    console_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address of the API. Default: this machine only, because whoever reaches a console without a token "
        "reads every event and may retry, cancel, resume and erase. On any other address, set "
        "`KAPSEL_CONSOLE_TOKEN_FILE`, or put something in front that authenticates.",
    )
    console_port: int = Field(
        default=8081,
        ge=0,
        le=65535,
        description="Port of the API; 0: any free one. Default 8081: beside the receiver's 8080.",
    )
    console_token_file: Path | None = Field(
        default=None,
        description="File of the tokens that open the API, one a line, each of 16 to 512 characters. Every request "
        "must then bring one, as `Authorization: Bearer TOKEN` or `Kapsel-Token: TOKEN`. The file is read again when "
        "it changes: write the new token beside the old one, let callers change over, remove the old one. Default: "
        "none, nobody is asked.",
    )
    console_public_log: Literal["none", "heads", "proofs", "leaves"] = Field(
        default="none",
        description="What of the log needs no token, so that outsiders and web pages can hold it to its word. heads: "
        "checkpoints, hashes, keys, consistency proofs, which show how much is delivered and when. proofs: also the "
        "proof of an attempt, for whoever knows its id. leaves: also all leaves, with the URL and outcome of every "
        "attempt. Default: none.",
    )
    console_public_rate: float = Field(
        default=200.0,
        ge=1,
        le=100_000,
        description="Requests a second that callers without a token have together, for the public keys of namespaces "
        "and what `KAPSEL_CONSOLE_PUBLIC_LOG` opens; beyond, 429. Default 200: an auditor reads a million leaves in "
        "a minute.",
    )
    console_connections: int = Field(
        default=4,
        ge=1,
        le=100,
        description="Connections to the database, so also queries at once. Default 4: people read little.",
    )
    console_query_timeout: float = Field(
        default=10.0,
        gt=0,
        le=60,
        description="Seconds one request may spend in the database; beyond, 503. Default 10: longer, nobody waits.",
    )
