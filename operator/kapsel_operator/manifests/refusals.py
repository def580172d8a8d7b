"""What is wrong in a `podTemplate`, collected while it is read: whatever does not fit is left out and told."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """One thing in a podTemplate that is not used."""

    path: Path  # from podTemplate
    wrong: str
    allowed: str


@dataclass(slots=True)
class Refusals:
    """All that was refused so far; the readers yield what is left."""

    found: list[Refused] = field(default_factory=list)

    def add(self, path: Path, wrong: str, allowed: str) -> None:
        """Note one refusal."""
        self.found.append(Refused(path=path, wrong=wrong, allowed=allowed))

    def mapping(self, value: object, path: Path) -> dict[str, Any]:
        """Return a mapping; none at all is an empty one."""
        if isinstance(value, dict) or value is None:
            return value or {}
        self.add(path, "this is not a mapping", "a mapping")
        return {}

    def items(self, value: object, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield the items of a list of mappings."""
        if value is not None and not isinstance(value, list):
            self.add(path, "this is not a list", "a list")
            return
        for index, item in enumerate(value or ()):
            if isinstance(item, dict):
                yield (*path, index), item
            else:
                self.add((*path, index), "this is not a mapping", "a mapping")

    def named(self, value: object, path: Path, key: str = "name") -> Iterator[tuple[Path, str, dict[str, Any]]]:
        """Yield the items of a list that go by a name, each name once."""
        seen = set()
        for where, item in self.items(value, path):
            name = item.get(key)
            if not isinstance(name, str) or not name:
                self.add(where, f"this has no {key}", f"a {key}")
            elif name in seen:
                self.add(where, f"{name} is there twice", "each once")
            else:
                seen.add(name)
                yield where, name, item


def deep(ours: dict[str, Any], added: dict[str, Any]) -> dict[str, Any]:
    """Return one mapping laid over another, at every depth; null takes a field away."""
    merged = dict(ours)
    for key, value in added.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = deep(merged[key], value)
        else:
            merged[key] = value
    return merged
