"""The witness process: `python -m kapsel_witness`, settings from KAPSEL_* variables; `kapsel witness` starts it.

Exit codes are those of every process; a state that cannot be trusted is a failure, not something to start without.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry

from kapsel_runtime import process
from kapsel_runtime.errors import SettingsError
from kapsel_runtime.health import Health
from kapsel_verifier import keys
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.note import VerifierKey
from kapsel_witness import state
from kapsel_witness.app import Witness
from kapsel_witness.errors import WitnessError
from kapsel_witness.judge import Logs
from kapsel_witness.key import Key, open_key
from kapsel_witness.metrics import Metrics
from kapsel_witness.settings import WitnessSettings

COMPONENT: Final = "witness"
ANSWERS: Final = 2.0  # seconds for answers under way when the process ends

logger = logging.getLogger(__name__)


async def main(settings: WitnessSettings, stopping: asyncio.Event) -> None:
    """Witness until `stopping`."""
    logs = read_logs(settings.witness_logs, settings.witness_logs_file)
    directory = settings.witness_directory
    try:
        with state.locked(directory):
            key = open_key(directory, settings.witness_name)
            _refuse_itself(logs, key)
            registry = CollectorRegistry()
            found = state.load(directory, key.public)
            witness = Witness(key, found, logs, Metrics(registry), directory / "evidence")
            await _serve(settings, witness, registry, key.public.encode(), stopping)
    except WitnessError as error:
        # What is to be done is in the sentence; a traceback would hide it.
        raise SettingsError(str(error)) from error


async def _serve(
    settings: WitnessSettings, witness: Witness, registry: CollectorRegistry, vkey: str, stopping: asyncio.Event
) -> None:
    health = Health(stopping)
    health.add("state", witness.problem)
    runner = web.AppRunner(witness.app(), access_log=None, shutdown_timeout=ANSWERS)
    async with await health.serve(settings.health_host, settings.health_port, registry) as health_server:
        await runner.setup()
        try:
            site = web.TCPSite(runner, settings.witness_host, settings.witness_port)
            try:
                await site.start()
            except OSError as error:
                raise SettingsError(
                    f"cannot listen on {settings.witness_host} port {settings.witness_port}: {error.strerror}"
                ) from error
            ports = {"port": runner.addresses[0][1], "health_port": health_server.port}
            logger.info("witnessing", extra={"vkey": vkey, **ports})
            await stopping.wait()
        finally:
            await runner.cleanup()


def _refuse_itself(logs: Logs, key: Key) -> None:
    """Refuse to vouch for whoever has the same key; raises SettingsError."""
    for origin, known in logs.items():
        if any(one.public_key == key.public.public_key for one in known):
            raise SettingsError(
                f"The log {origin} has the key of this witness. A log that is its own witness shows nobody anything: "
                f"whoever runs the log must not have the witness's key, and no policy takes one key as both."
            )


def read_logs(text: str | None, file: Path | None) -> Logs:
    """Return the keys of the logs to cosign, by origin; raises SettingsError if there is none or one is wrong."""
    found: dict[str, list[VerifierKey]] = {}
    try:
        for vkey in (text or "").split():
            key = VerifierKey.parse(vkey)
            found.setdefault(key.name, []).append(key)
        if file is not None:
            for trusted in keys.parse_key_set(file.read_bytes()):
                if trusted.name is not None:
                    found.setdefault(trusted.name, []).append(VerifierKey(trusted.name, trusted.public_key))
    except VerificationError as error:
        raise SettingsError(f"The key of a log is not usable: {error}.") from error
    except OSError as error:
        raise SettingsError(f"KAPSEL_WITNESS_LOGS_FILE names {str(file)!r}: {error.strerror}.") from error
    if not found:
        raise SettingsError("No log to cosign: set KAPSEL_WITNESS_LOGS or KAPSEL_WITNESS_LOGS_FILE.")
    return {origin: list(dict.fromkeys(all_of_it)) for origin, all_of_it in found.items()}


if __name__ == "__main__":
    loaded = process.load(COMPONENT, WitnessSettings)
    process.run(COMPONENT, loaded, lambda stopping: main(loaded, stopping))
