"""YAML and JSON text as plain documents that remember on which line each field stands.

Called by `manifests`. PyYAML reads YAML 1.1, keeps the last of two equal keys and makes dates of strings; Kubernetes
does none of the last two. What the two would read differently is refused here in words, so that a file means on a
laptop what it means in a cluster.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import yaml

FieldPath = tuple[str | int, ...]

MAX_NODES: Final = 200_000  # aliases of aliases multiply; no honest file is that large

_BOOLEAN_WORDS: Final = frozenset(["y", "n", "yes", "no", "on", "off", "true", "false"])
_AMBIGUOUS_VALUES: Final = frozenset({"y", "n"})
_TEXT_TAGS: Final = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:timestamp"})
_BINARY_TAG: Final = "tag:yaml.org,2002:binary"
_MERGE_TAG: Final = "tag:yaml.org,2002:merge"


@dataclass(frozen=True, slots=True)
class Flaw:
    """A line of a file that cannot be read, and why."""

    line: int
    wrong: str


@dataclass(frozen=True, slots=True)
class Document:
    """One document: its content, and the line on which each field begins."""

    content: object
    lines: dict[FieldPath, int]

    def line_of(self, path: FieldPath) -> int:
        """Return the line of a field, or of the nearest one above it that is there."""
        while path not in self.lines and path:
            path = path[:-1]
        return self.lines.get(path, 1)


def read(text: bytes) -> tuple[list[Document], list[Flaw]]:
    """Return the documents of one file, empty ones left out, and what cannot be read of it."""
    documents, flaws = [], []
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            reader = _Reader()
            content = reader.value(node, ())
            flaws += reader.flaws
            if content is not None and not reader.flaws:
                documents += list(_items(Document(content, reader.lines)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        flaws.append(Flaw(mark.line + 1 if mark else 1, f"the file is not YAML: {error.problem or error.context}"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        flaws.append(Flaw(1, f"the file is not YAML: {str(error).splitlines()[0]}"))
    except RecursionError:
        flaws.append(Flaw(1, "the file is nested too deeply"))
    return documents, flaws


def _items(document: Document) -> Iterator[Document]:
    """Take a `kind: List`, as kubectl prints it, apart."""
    content = document.content
    if not isinstance(content, dict) or content.get("apiVersion") != "v1" or content.get("kind") != "List":
        yield document
        return
    items = content.get("items")
    for index, item in enumerate(items if isinstance(items, list) else []):
        prefix = ("items", index)
        yield Document(item, {path[2:]: line for path, line in document.lines.items() if path[:2] == prefix})


class _Reader:
    """Makes plain values of the nodes of one document."""

    def __init__(self) -> None:
        self.lines: dict[FieldPath, int] = {}
        self.flaws: list[Flaw] = []
        self._scalars = yaml.SafeLoader("")
        self._nodes = 0

    def value(self, node: yaml.Node | None, path: FieldPath) -> object:
        """Return the plain value of a node and remember where it stands."""
        if node is None:
            return None
        self._nodes += 1
        if self._nodes > MAX_NODES:
            if self._nodes == MAX_NODES + 1:
                self._flaw(node, f"the document has more than {MAX_NODES} values, aliases counted")
            return None
        self.lines.setdefault(path, _line(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: FieldPath) -> dict[str, object]:
        content: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key is None:
                continue
            if key in content:
                self._flaw(key_node, f"the key {key} is there twice, first on line {self.lines[(*path, key)]}")
                continue
            self.lines[(*path, key)] = _line(key_node)
            content[key] = self.value(value_node, (*path, key))
        return content

    def _key(self, node: yaml.Node) -> str | None:
        if node.tag == _MERGE_TAG:
            self._flaw(node, "merge keys (<<) are not read here; write the fields out")
        elif not isinstance(node, yaml.ScalarNode):
            self._flaw(node, "a key must be a string")
        elif node.style is None and node.value.lower() in _BOOLEAN_WORDS:
            self._flaw(node, f'YAML 1.1 reads the key {node.value} as true or false; quote it: "{node.value}"')
        elif node.tag not in _TEXT_TAGS:
            self._flaw(node, f'YAML reads the key {node.value or "(none)"} as no string; quote it: "{node.value}"')
        else:
            return str(node.value)
        return None

    def _scalar(self, node: yaml.Node) -> object:
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if plain and node.value.lower() in _AMBIGUOUS_VALUES:
            self._flaw(node, f'{node.value} is true or false to some readers of YAML; quote it: "{node.value}"')
            return None
        if plain and ":" in node.value:  # PyYAML counts 12:30 in base 60; Kubernetes does not
            return node.value
        if node.tag in _TEXT_TAGS:
            return node.value
        if node.tag == _BINARY_TAG or not node.tag.startswith("tag:yaml.org,2002:"):
            self._flaw(node, f"the YAML tag {node.tag.rpartition(':')[2]} is not read here")
            return None
        try:
            return self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError):
            self._flaw(node, f"{node.value} cannot be read as a value")
            return None

    def _flaw(self, node: yaml.Node, wrong: str) -> None:
        self.flaws.append(Flaw(_line(node), wrong))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
