"""Where in an expression it failed at an event: the smallest part of it that fails by itself.

`expression` asks when an evaluation has failed; the engine says what went wrong and not where. So the parts are
evaluated one after the other, from the whole down, as far as the whole would have: a few evaluations more, for which
there is a bound of their own. Only the place is kept, and never a value of the event.
"""

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from kapsel_expressions import cost, engine, syntax
from kapsel_expressions.cost import Size
from kapsel_expressions.syntax import Call, Collection, Comprehension, Field, Literal, Name, Node

WORK: Final = 200_000.0  # steps of all evaluations together, about a hundredth of a second
TURNS: Final = 64  # elements of a list that are looked at
_PREFIX: Final = {"!_": "!", "-_": "-"}
_INFIX: Final = frozenset({"||", "&&", "<", "<=", ">", ">=", "==", "!=", "in", "+", "-", "*", "/", "%"})

Variables = Mapping[str, object]


class Places:
    """The parts of one expression, compiled when they are first asked for."""

    __slots__ = ("_height", "_programs", "_tree")

    def __init__(self, tree: Node) -> None:
        self._tree = tree
        self._height = _height(tree)
        self._programs: dict[int, engine.Program | None] = {}  # by the identity of the node, which the tree keeps alive

    def find(self, variables: Variables, size: Size) -> Node | None:
        """Return the part that fails, None if it would be too much work to look for it."""
        if cost.worst(self._tree, size).work * self._height > WORK:
            return None
        node, around = self._tree, variables
        while (inner := next((pair for pair in self._asked(node, around) if self._fails(*pair)), None)) is not None:
            node, around = inner
        return node

    def _asked(self, node: Node, around: Variables) -> Iterator[tuple[Node, Variables]]:
        """Yield the parts that the value of a node depends on, each with the variables that it sees."""
        match node:
            case Call(name="has", args=(Field(of=of),)):
                yield of, around
            case Call(name="?:", args=(condition, yes, no)):
                yield condition, around
                yield (yes if self._value(condition, around) is True else no), around
            case Comprehension(over=over):
                yield over, around
                yield from self._turns(node, around)
            case _:
                for child in syntax.children(node):
                    yield child, around

    def _turns(self, node: Comprehension, around: Variables) -> Iterator[tuple[Node, Variables]]:
        elements = self._value(node.over, around)
        if not isinstance(elements, (list, dict)):
            return
        for element in islice(elements, TURNS):
            inner = {**around, node.variable: element}
            for step in node.steps:
                yield step, inner
                if len(node.steps) > 1 and self._value(step, inner) is not True:  # map with a condition
                    break

    def _fails(self, node: Node, around: Variables) -> bool:
        return self._value(node, around) is _FAILED

    def _value(self, node: Node, around: Variables) -> object:
        if id(node) not in self._programs:
            self._programs[id(node)] = _compiled(node)
        program = self._programs[id(node)]
        if program is None:
            return None  # what cannot be looked at by itself is not where it failed
        try:
            return program.execute(dict(around))
        except Exception:  # noqa: BLE001 - as for the whole: it is about this part and this event
            return _FAILED
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # the engine's own, which no module exports
                raise
            return _FAILED


_FAILED: Final = object()


def names(tree: Node) -> frozenset[str]:
    """Return the names of fields that are written down in an expression."""
    found, left = set[str](), [tree]
    while left:
        node = left.pop()
        if isinstance(node, Field):
            found.add(node.name)
        left.extend(syntax.children(node))
    return frozenset(found)


def text(node: Node) -> str:
    """Return an expression that is this part."""
    match node:
        case Literal(source=source):
            return source
        case Name(name=name):
            return name
        case Field(of=of, name=name):
            return f'{text(of)}["{name}"]'
        case Collection(kind="list", items=items):
            return f"[{', '.join(map(text, items))}]"
        case Collection(items=items):
            pairs = zip(items[::2], items[1::2], strict=True)
            return f"{{{', '.join(f'{text(key)}: {text(value)}' for key, value in pairs)}}}"
        case Comprehension(kind=kind, over=over, variable=variable, steps=steps):
            return f"({text(over)}).{kind}({', '.join((variable, *map(text, steps)))})"
        case Call():
            return _call(node)


def _call(node: Call) -> str:
    args = node.args
    if node.name == "has" and isinstance(args[0], Field):
        return f"has({text(args[0].of)}.{args[0].name})"
    match [node.name, *map(text, args)]:
        case ["?:", condition, yes, no]:
            return f"({condition} ? {yes} : {no})"
        case ["[]", of, by]:
            return f"{of}[{by}]"
        case [sign, one] if sign in _PREFIX:
            return f"{_PREFIX[sign]}({one})"
        case [sign, left, right] if sign in _INFIX:
            return f"({left} {sign} {right})"
        case [name, of, *rest] if node.method:
            return f"({of}).{name}({', '.join(rest)})"
        case [name, *rest]:
            return f"{name}({', '.join(rest)})"
    raise AssertionError(node)


def _compiled(node: Node) -> engine.Program | None:
    try:
        return engine.compile_program(text(node))
    except ValueError:
        return None


def _height(tree: Node) -> int:
    height, level = 1, syntax.children(tree)
    while level:
        height, level = height + 1, tuple(child for each in level for child in syntax.children(each))
    return height
