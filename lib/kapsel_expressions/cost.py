"""How much work an expression can be at most, and how much it can make, for an event of a given size.

The engine cannot be interrupted, and a deliverer does nothing else meanwhile. So the work is bounded before: every node
of the tree has a worst case in the number of values and of characters that it may meet, and an event that is too large
for an expression is a failure that is a value. The bound grows with the event: what holds for one holds for each
smaller one.

For a comprehension the sum over its elements is bounded without knowing how they share what they share: all that an
element's part costs beyond its fixed price is superadditive, so the whole list at once is the worst element there is.
"""

from dataclasses import dataclass
from typing import Final

from kapsel_expressions import pattern
from kapsel_expressions.syntax import Call, Collection, Comprehension, Field, Literal, Name, Node

WORK: Final = 2_000_000.0  # steps of one evaluation: a step is about the copy of one value
MADE: Final = 16_777_216.0  # values and characters that one evaluation may make

_PATTERN: Final = WORK / pattern.MOST  # steps of making a regular expression ready, for each part of its price
_COMPARING: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})
_TEXTS: Final = frozenset({"contains", "startsWith", "endsWith"})


@dataclass(frozen=True, slots=True)
class Size:
    """At most so many values, and characters in all of them."""

    values: float
    characters: float

    @property
    def steps(self) -> float:
        """What it is to go over all of it once: texts are copied and compared many characters at a time."""
        return self.values + self.characters / 16

    def __add__(self, other: "Size") -> "Size":
        return Size(self.values + other.values, self.characters + other.characters)


_ONE: Final = Size(1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Cost:
    """The steps that a node takes, and the size of what it gives."""

    work: float
    size: Size


def worst(node: Node, event: Size) -> Cost:
    """Return the worst that a node can be for any event of this size."""
    return _worst(node, {"event": event})


def admits(node: Node, event: Size) -> bool:
    """Return whether the work for an event of this size is within bounds."""
    cost = worst(node, event)
    return cost.work <= WORK and cost.size.values + cost.size.characters <= MADE


def _worst(node: Node, sizes: dict[str, Size]) -> Cost:
    match node:
        case Literal(source=source):
            return Cost(1, Size(1, len(source)))
        case Name(name=name):
            return Cost(1, sizes.get(name, _ONE))
        case Field(of=of):
            inner = _worst(of, sizes)
            return Cost(inner.work + 1, inner.size)
        case Collection(items=items):
            parts = [_worst(item, sizes) for item in items]
            return Cost(1 + sum(part.work for part in parts), sum((part.size for part in parts), _ONE))
        case Comprehension():
            return _comprehension(node, sizes)
        case Call(name="matches", args=(text, Literal(source=source))):
            return _matching(_worst(text, sizes), pattern.price(source))
        case Call(name=name, args=args):
            return _call(name, [_worst(arg, sizes) for arg in args])


def _call(name: str, args: list[Cost]) -> Cost:
    work = 1 + sum(arg.work for arg in args)
    size = sum((arg.size for arg in args), _ONE)
    if name in _COMPARING or name in _TEXTS:
        return Cost(work + size.steps, _ONE)
    if name == "+":
        return Cost(work + size.steps, size)
    if name in ("?:", "[]", "dyn"):
        return Cost(work, size)
    if name in ("string", "bytes"):
        return Cost(work + size.steps, Size(1, size.characters + 64))
    return Cost(work + size.steps, _ONE)


def _matching(text: Cost, price: pattern.Price | None) -> Cost:
    if price is None:
        return Cost(float("inf"), _ONE)
    return Cost(text.work + text.size.values + price.each * text.size.characters + _PATTERN * price.ready, _ONE)


def _comprehension(node: Comprehension, sizes: dict[str, Size]) -> Cost:
    over = _worst(node.over, sizes)
    turns, whole = over.size.values, over.size
    fixed = [_worst(step, {**sizes, node.variable: Size(0, 0)}) for step in node.steps]
    all_at_once = [_worst(step, {**sizes, node.variable: whole}) for step in node.steps]
    work = over.work + 4 * turns
    for least, most in zip(fixed, all_at_once, strict=True):
        work += turns * least.work + (most.work - least.work)
    if node.kind not in ("map", "filter"):
        return Cost(work, _ONE)
    work += turns * turns / 2  # the engine copies the list that grows, at every turn
    if node.kind == "filter":
        return Cost(work, whole + _ONE)
    few, many = fixed[-1].size, all_at_once[-1].size
    made = Size(
        turns * (few.values + 1) + many.values - few.values,
        turns * few.characters + many.characters - few.characters,
    )
    return Cost(work, made + _ONE)
