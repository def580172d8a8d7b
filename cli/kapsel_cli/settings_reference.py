"""Writes docs/settings.md: the prose of settings_reference.md with a table for each component, made from the models.

`python -m kapsel_cli.settings_reference > docs/settings.md`. A test keeps file and models equal. It is here because the
command line alone may import every component.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from kapsel_attestor.settings import AttestorSettings
from kapsel_cli.migration import MigrateSettings
from kapsel_cli.postgres_server import PostgresSettings
from kapsel_console.settings import ConsoleSettings
from kapsel_deliverer.settings import DelivererSettings
from kapsel_operator.settings import OperatorSettings
from kapsel_receiver.settings import ReceiverSettings
from kapsel_runtime.settings import DataPlaneSettings, ProcessSettings, reference
from kapsel_witness.settings import WitnessSettings

COMPONENTS: Final[Mapping[str, type[BaseModel]]] = {
    "receiver": ReceiverSettings,
    "deliverer": DelivererSettings,
    "attestor": AttestorSettings,
    "console": ConsoleSettings,
    "witness": WitnessSettings,
    "operator": OperatorSettings,
    "migrate": MigrateSettings,
    "postgres": PostgresSettings,
}

_TEMPLATE: Final = Path(__file__).with_name("settings_reference.md")
_HEAD: Final = "| variable | value | default | meaning |\n|---|---|---|---|\n"


def render() -> str:
    """Return the whole page."""
    text = _TEMPLATE.read_text(encoding="utf-8")
    every, data_plane = reference(ProcessSettings), reference(DataPlaneSettings)
    text = text.replace("<!-- settings of every process -->\n", _table(every))
    text = text.replace(
        "<!-- settings of the data plane -->\n", _table([setting for setting in data_plane if setting not in every])
    )
    for component, model in COMPONENTS.items():
        own = [setting for setting in reference(model) if setting not in data_plane]
        text = text.replace(f"<!-- settings of {component} -->\n", _table(own))
    return text


def _table(settings: list[tuple[str, str, str, str]]) -> str:
    return _HEAD + "".join(
        f"| `{variable}` | {_cell(values)} | {_default(default)} | {_cell(meaning)} |\n"
        for variable, values, default, meaning in settings
    )


def _default(default: str) -> str:
    return {"required": "**required**", "none": "", "computed": "computed"}.get(default, f"`{default}`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.stdout.write(render())
