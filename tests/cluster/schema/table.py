"""The table of manifests: what must be accepted, what must be refused, and which change must be refused.

One file a rule. Three readers take the same files and must agree: the models, the manifest reader of `kapsel up`, and a
real API server with the CRDs. What each says of a bad one stands on top of it, a line a complaint:

    # kapsel: the whole line that `kapsel up` prints after the resource
    # kubernetes: FIELD: what the API server says of the field, or the part of it that names the rule

A file in update/ holds two documents, before and after. The first may have a status, because some fields may change
only as long as nothing depends on them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kapsel_cli.documents import read

HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Case:
    """One file of the table."""

    path: Path

    @property
    def text(self) -> bytes:
        """The file as it is."""
        return self.path.read_bytes()

    @property
    def documents(self) -> list[dict[str, Any]]:
        """What `kapsel up` makes of the text."""
        documents, flaws = read(self.text)
        assert flaws == []
        return [document.content for document in documents]

    @property
    def kapsel(self) -> list[str]:
        """What the models must say."""
        return self._lines("# kapsel: ")

    @property
    def kubernetes(self) -> list[tuple[str, str]]:
        """What the API server must say: a field, and words about it."""
        lines = [line.partition(": ") for line in self._lines("# kubernetes: ")]
        return [(field, words) for field, _, words in lines]

    def _lines(self, prefix: str) -> list[str]:
        return [
            line.removeprefix(prefix) for line in self.path.read_text("utf-8").splitlines() if line.startswith(prefix)
        ]


def cases(folder: str) -> list[Case]:
    """Return the files of accept, reject or update."""
    found = [Case(path) for path in sorted((HERE / folder).glob("*.yaml"))]
    assert found, folder
    return found


def name(case: Case) -> str:
    """Return the name of the rule, which is that of the file."""
    return case.path.stem


def rules(definition: object) -> list[dict[str, Any]]:
    """Return every entry of x-kubernetes-validations in a definition."""
    if isinstance(definition, list):
        return [rule for item in definition for rule in rules(item)]
    if not isinstance(definition, dict):
        return []
    return [
        *definition.get("x-kubernetes-validations", ()),
        *(rule for key, item in definition.items() if key != "x-kubernetes-validations" for rule in rules(item)),
    ]


def definitions() -> list[dict[str, Any]]:
    """Return the CustomResourceDefinitions as they are in crds/."""
    files = sorted((HERE.parents[2] / "crds").glob("*.yaml"))
    return [yaml.safe_load(path.read_text("utf-8")) for path in files]
