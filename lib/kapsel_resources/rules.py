"""Rules that one field's schema cannot say, as CEL: what the API server checks before it stores a resource.

A model declares them beside the validator that says the same to `kapsel up`, and the generated CRDs carry them. Rules
over time, which compare with the object that was there, hold in a cluster alone: a file has no past.

Two habits of the API server to know: a rule that compares whole optional values (`self.?x == oldSelf.?x`) is refused as
too costly, and a property called like a word of CEL is written with underscores (`__namespace__`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: an expression that must be true, what is said when it is not, and the field that is then to blame."""

    expression: str
    message: str
    field: str | None = None  # from where the rule stands; None for that place itself

    @property
    def is_over_time(self) -> bool:
        """Whether it compares with the object that was there."""
        return "oldSelf" in self.expression

    def document(self) -> dict[str, Any]:
        """Return the entry of x-kubernetes-validations."""
        entry = {"rule": self.expression, "message": self.message}
        return {**entry, "fieldPath": f".{self.field}"} if self.field else entry


def one_of(names: Iterable[str]) -> Rule:
    """Return the rule of a union: exactly one of its members is there."""
    names = list(names)
    present = ", ".join(f"has(self.{name})" for name in names)
    return Rule(f"[{present}].exists_one(present, present)", f"exactly one of: {', '.join(names)}")


def each_once(name: str, what: str) -> Rule:
    """Return the rule that a short list has no item twice."""
    return Rule(f"self.{name}.all(one, self.{name}.exists_one(other, one == other))", f"each {what} once", name)


def matches(pattern: str, message: str) -> Rule:
    """Return the rule that the whole of a string has a form."""
    return Rule(f"self.matches({quoted(f'^(?:{pattern})$')})", message)


def quoted(text: str) -> str:
    """Return a string as CEL writes it: raw, because patterns are full of backslashes."""
    if "'" not in text:
        return f"r'{text}'"
    return f'r"{text}"'


def unchanged(name: str, *, once: str, message: str) -> Rule:
    """Return the rule, for a whole resource, that a field of its spec stays as it is once the status has `once`."""
    used = f"has(oldSelf.status) && has(oldSelf.status.{once})"
    was_set = f"has(oldSelf.spec) && has(oldSelf.spec.{name})"
    same = f"has(self.spec) && has(self.spec.{name}) && self.spec.{name} == oldSelf.spec.{name}"
    return Rule(f"!({used} && {was_set}) || ({same})", message, f"spec.{name}")
