"""All manifests of a directory: read, parsed, and every problem given its file and line.

Called by `up` at start and whenever a file changes. What a manifest means is decided by kapsel_resources; here lies
only what has to do with files.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kapsel_cli.documents import Document, FieldPath
from kapsel_cli.documents import read as read_documents
from kapsel_resources.kinds.model import Identity
from kapsel_resources.manifests import Resource, identity, is_foreign, parse
from kapsel_resources.problems import Problem

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
MAX_FILE_BYTES: Final = 4_194_304  # more than an API server takes


@dataclass(frozen=True, slots=True)
class Place:
    """Where a resource is declared."""

    file: Path
    document: Document

    def at(self, path: FieldPath) -> str:
        """Return file:line of a field."""
        return f"{self.file}:{self.document.line_of(path)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """What a directory declares."""

    resources: tuple[Resource, ...]
    problems: tuple[str, ...]  # one line each: file:line: kind namespace/name: field: what is wrong; what is allowed
    notes: tuple[str, ...]  # what was passed over, and why
    places: dict[Identity, Place]
    broken: tuple[Identity, ...]  # declared, but not readable: what runs for them stays as it is
    complete: bool  # False when something could not be read at all, so that anything may be declared there

    def locate(self, problem: Problem) -> str:
        """Return a problem of the plan as one line, with the file and line of its field."""
        place = self.places.get(problem.resource)
        where = f"{place.at(problem.path)}: " if place else ""
        return f"{where}{_described(problem)}"


def read(directory: Path) -> Manifests:
    """Read every manifest below a directory; names that begin with a dot are passed over."""
    files, problems, notes = _files(directory)
    places = _places(files, problems)
    complete = not problems
    resources: dict[Identity, Resource] = {}
    found: dict[Identity, Place] = {}
    broken: list[Identity] = []
    for place in places:
        content = place.document.content
        parsed = parse(content)
        if is_foreign(content):
            notes.append(f"{place.at(())}: {identity(content)} is not a kind of kapsel's and was passed over")
        elif isinstance(parsed, list):
            problems += [f"{place.at(problem.path)}: {_described(problem)}" for problem in parsed]
            broken.append(identity(content))
        elif parsed.identity in resources:
            first = found[parsed.identity].at(())
            problems.append(f"{place.at(())}: {parsed.identity}: declared twice, and {first} is used")
        else:
            resources[parsed.identity] = parsed
            found[parsed.identity] = place
    return Manifests(
        resources=tuple(resources.values()),
        problems=tuple(problems),
        notes=tuple(notes),
        places=found,
        broken=tuple(broken),
        complete=complete,
    )


def _places(files: Sequence[Path], problems: list[str]) -> list[Place]:
    """Return the documents of all files, and add what cannot be read as documents to the problems."""
    places: list[Place] = []
    for file in files:
        try:
            if not stat.S_ISREG(file.stat().st_mode):  # a pipe, for which one would wait for ever
                continue
            text = file.read_bytes()
        except OSError as error:
            problems.append(f"{file}:1: the file cannot be read: {error.strerror}")
            continue
        if len(text) > MAX_FILE_BYTES:
            problems.append(f"{file}:1: the file has {len(text)} bytes; allowed: at most {MAX_FILE_BYTES}")
            continue
        # JSON may be indented with tabs, which YAML forbids; inside a JSON string a tab is written \t.
        documents, flaws = read_documents(text.replace(b"\t", b" ") if file.suffix == ".json" else text)
        problems += [f"{file}:{flaw.line}: {flaw.wrong}" for flaw in flaws]
        places += [Place(file, document) for document in documents]
    return places


def _files(directory: Path) -> tuple[list[Path], list[str], list[str]]:
    """Return the files in an order that does not depend on the file system, the folders that cannot be read, and notes.

    A link is a file even if it leads nowhere just now: what was read through it must not be taken for deleted. Links to
    folders are not followed, as kubectl does not, and so none leads in a circle.
    """
    files: list[Path] = []
    problems: list[str] = []
    notes: list[str] = []

    def unreadable(error: OSError) -> None:
        problems.append(f"{error.filename}: the folder cannot be read: {error.strerror}")

    for where, folders, names in os.walk(directory, onerror=unreadable):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        # Path.is_symlink raises where a folder can be listed and nothing in it looked at; that is said when it is read.
        links = [path for name in folders if os.path.islink(path := Path(where, name))]  # noqa: PTH114
        notes += [f"{path} is a link to a folder and was passed over" for path in links]
        files += [path for name in names if (path := Path(where, name)).suffix in SUFFIXES and not _is_hidden(name)]
    return sorted(files), sorted(problems), sorted(notes)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "lost+found"  # which a volume has, and root alone may read


def _described(problem: Problem) -> str:
    resource = f"{problem.resource}: " if problem.resource.kind else ""
    return f"{resource}{problem.field or 'the document'}: {problem.wrong}; allowed: {problem.allowed}"
