"""`kapsel run postgres`: the embedded Postgres on a TCP port, as the only process of a container.

Run by the StatefulSet that the operator makes for `database: {embedded: {}}`. It is for trying kapsel: one server, no
replica, no backup. SIGTERM is a fast shutdown, which for Postgres itself would be one that waits for every client.
"""

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from kapsel_cli.errors import CliError
from kapsel_cli.postgres import EmbeddedPostgres, Listen
from kapsel_runtime.errors import SettingsError
from kapsel_runtime.process import EXIT_FAILED, EXIT_SETTINGS
from kapsel_runtime.settings import load


class PostgresSettings(BaseModel):
    """What can be set of the embedded Postgres in a container."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    postgres_data_dir: Path = Field(
        default=Path("/var/lib/kapsel"),
        description="Directory that holds the data, a volume that outlives the container. Default /var/lib/kapsel.",
    )
    postgres_host: str = Field(
        default="0.0.0.0",  # noqa: S104 - it asks for a password
        min_length=1,
        pattern=r"^[0-9A-Za-z.:*-]+$",
        description="Address to listen on. Default 0.0.0.0: in a container whoever connects comes from outside.",
    )
    postgres_port: int = Field(default=5432, ge=1, le=65535, description="Port to listen on. Default 5432.")
    postgres_password: SecretStr = Field(
        description="Password of the user postgres, who owns the database kapsel. Read at the start; a new one is set "
        "by a restart. Required: a server on the network must ask for one.",
    )


def serve(settings: PostgresSettings) -> int:
    """Run Postgres until SIGTERM or SIGINT, or until it ends by itself, which is a failure."""
    listen = Listen(
        host=settings.postgres_host,
        port=settings.postgres_port,
        password=settings.postgres_password.get_secret_value(),
    )
    server = EmbeddedPostgres(settings.postgres_data_dir, listen=listen, spare_wal=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        server.start(output=sys.stderr.buffer)
        code = server.wait()
    except KeyboardInterrupt:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        server.stop()
        return 0
    _say(f"Postgres ended by itself with exit code {code}.")
    server.stop()
    return EXIT_FAILED


def _say(line: str) -> None:
    sys.stderr.write(f"kapsel-postgres: {line}\n")


def main(arguments: Sequence[str]) -> int:
    """Run with the settings of the environment and return the exit code."""
    if arguments:
        _say(f"{' '.join(arguments)}: it takes no arguments, only settings (docs/settings.md).")
        return EXIT_SETTINGS
    try:
        return serve(load(PostgresSettings, os.environ))
    except SettingsError as error:
        _say(str(error))
        return EXIT_SETTINGS
    except CliError as error:
        _say(str(error))
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
