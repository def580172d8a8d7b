"""The settings of a witness; `kapsel witness` sets them from its options."""

from pathlib import Path

from pydantic import Field

from kapsel_runtime.settings import ProcessSettings


class WitnessSettings(ProcessSettings):
    """What can be set of a witness; it has no database and no configuration besides."""

    witness_directory: Path = Field(
        description="Directory of the witness's key and state, on a disk that keeps what was synced. Made at the first "
        "start. Required: a witness that forgets what it cosigned is none.",
    )
    witness_name: str | None = Field(
        default=None,
        min_length=1,
        max_length=200,
        description="Name of the witness in its cosignatures: a URL without scheme under a domain you own, such as "
        "witness.example.com/w1. Needed at the first start, when the key is made; kept with it ever after.",
    )
    witness_logs: str | None = Field(
        default=None,
        min_length=1,
        max_length=65_536,
        description="Verifier keys (vkeys) of the logs to cosign, separated by blanks; a log's key is named after its "
        "origin. Several keys of one origin may be given while a log changes its key.",
    )
    witness_logs_file: Path | None = Field(
        default=None,
        description="File with more of them: a key set as a kapsel publishes it at /.well-known/kapsel/keys.json, or a "
        "vkey on each line. Read at the start.",
    )
    witness_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address that takes heads to cosign. Default: this machine only; 0.0.0.0 to be asked from outside, "
        "better behind a server that speaks TLS.",
    )
    witness_port: int = Field(
        default=7380, ge=0, le=65535, description="Port that takes heads to cosign. 0: any free one. Default 7380."
    )
