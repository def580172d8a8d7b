"""The syntax of CEL as far as kapsel takes it: text in, a tree out.

The engine says whether an expression is well-formed and evaluates it; its tree is not to be had. This one is for
looking at an expression before it runs: which names it uses, where, and how much work it can be. What only one of the
two parsers takes is refused, so an expression that runs is one that was looked at.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

DEEPEST: Final = 32  # brackets within each other, and signs before an operand
TALLEST: Final = 200  # levels of the tree, so that whoever goes down it comes up again

MACROS: Final = {"all": (2,), "exists": (2,), "exists_one": (2,), "filter": (2,), "map": (2, 3)}

_TOKEN: Final = re.compile(
    r"""(?P<space>[ \t\n\f\r]+|//[^\n]*)
    |(?P<text>[bB]?[rR](?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n\r]*"|'[^'\n\r]*')
        |[bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|"(?:\\.|[^\\"\n\r])*"|'(?:\\.|[^\\'\n\r])*'))
    |(?P<number>0x[0-9a-fA-F]+u?|[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|[0-9]+u?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<sign>\|\||&&|<=|>=|==|!=|[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_LEVELS: Final = (("||",), ("&&",), ("<", "<=", ">", ">=", "==", "!=", "in"), ("+", "-"), ("*", "/", "%"))
_CONSTANTS: Final = frozenset({"true", "false", "null"})


class SyntaxProblem(Exception):  # noqa: N818 - it never leaves this package
    """Text that is no expression: `wrong` says why, from character `at` on."""

    def __init__(self, wrong: str, at: int) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.at = at


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal:
    """A number, a text, true, false or null."""

    kind: str  # text, number, bool or null
    source: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A variable."""

    name: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """`of.name`, or `of["name"]`."""

    of: "Node"
    name: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """An operator, an index, a function or a method: `of` is the first of its `args` if it has one."""

    name: str
    args: tuple["Node", ...]
    at: int
    method: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A list or a map that is written down; a map's keys and values take turns."""

    kind: str  # list or map
    items: tuple["Node", ...]
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comprehension:
    """A macro that goes over a list or a map: `over.kind(variable, steps)`."""

    kind: str
    over: "Node"
    variable: str
    steps: tuple["Node", ...]
    at: int


Node = Literal | Name | Field | Call | Collection | Comprehension


@dataclass(frozen=True, slots=True, kw_only=True)
class _Token:
    kind: str
    text: str
    at: int


def parse(source: str) -> Node:
    """Return the tree of an expression; raise SyntaxProblem for anything else."""
    parser = _Parser(_tokens(source), len(source))
    node = parser.expression()
    parser.end()
    level: Sequence[Node] = (node,)
    for _ in range(TALLEST):
        if not (level := [child for each in level for child in children(each)]):
            return node
    raise SyntaxProblem(f"it is nested more than {TALLEST} deep", level[0].at)


def children(node: Node) -> tuple[Node, ...]:
    """Return the parts of a node."""
    match node:
        case Field(of=of):
            return (of,)
        case Call(args=args):
            return args
        case Collection(items=items):
            return items
        case Comprehension(over=over, steps=steps):
            return (over, *steps)
        case _:
            return ()


def _tokens(source: str) -> list[_Token]:
    tokens, at = [], 0
    while at < len(source):
        found = _TOKEN.match(source, at)
        if found is None:
            raise SyntaxProblem(f"{source[at]!r} begins nothing that CEL knows", at)
        if found.lastgroup is not None and found.lastgroup != "space":
            tokens.append(_Token(kind=found.lastgroup, text=found.group(), at=at))
        at = found.end()
    return tokens


class _Parser:
    """Goes through the tokens once, one function for each sort of expression."""

    def __init__(self, tokens: list[_Token], end: int) -> None:
        self._tokens = tokens
        self._next = 0
        self._end = _Token(kind="end", text="", at=end)
        self._depth = 0

    def end(self) -> None:
        if self._peek.kind != "end":
            self._refuse()

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next] if self._next < len(self._tokens) else self._end

    def _refuse(self) -> None:
        token = self._peek
        wrong = "the expression ends too early" if token.kind == "end" else f"{token.text!r} does not belong here"
        raise SyntaxProblem(wrong, token.at)

    def _take(self, sign: str) -> bool:
        if self._peek.kind == "sign" and self._peek.text == sign:
            self._next += 1
            return True
        return False

    def _need(self, sign: str) -> None:
        if not self._take(sign):
            self._refuse()

    def _pop(self) -> _Token:
        token = self._peek
        self._next += 1
        return token

    def expression(self) -> Node:
        self._depth += 1
        if self._depth > DEEPEST:
            raise SyntaxProblem(f"it is nested more than {DEEPEST} deep", self._peek.at)
        node = self._binary(0)
        at = self._peek.at
        if self._take("?"):
            yes = self._binary(0)
            self._need(":")
            node = Call(name="?:", args=(node, yes, self.expression()), at=at)
        self._depth -= 1
        return node

    def _binary(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        node = self._binary(level + 1)
        while self._peek.kind in ("sign", "name") and self._peek.text in _LEVELS[level]:
            sign = self._pop()
            node = Call(name=sign.text, args=(node, self._binary(level + 1)), at=sign.at)
        return node

    def _unary(self) -> Node:
        signs = []
        while self._peek.kind == "sign" and self._peek.text in ("!", "-"):
            signs.append(self._pop())
        if len(signs) > DEEPEST:
            raise SyntaxProblem(f"it is nested more than {DEEPEST} deep", signs[0].at)
        node = self._member()
        for sign in reversed(signs):
            node = Call(name=f"{sign.text}_", args=(node,), at=sign.at)
        return node

    def _member(self) -> Node:
        node = self._primary()
        while True:
            at = self._peek.at
            if self._take("."):
                if self._peek.kind != "name":
                    self._refuse()
                name = self._pop().text
                node = self._method(node, name, at + 1) if self._take("(") else Field(of=node, name=name, at=at + 1)
            elif self._take("["):
                by = self.expression()
                self._need("]")
                key = _plain(by)
                node = Call(name="[]", args=(node, by), at=at) if key is None else Field(of=node, name=key, at=at)
            else:
                return node

    def _method(self, of: Node, name: str, at: int) -> Node:
        args = self._list(")")
        if name in MACROS:
            variable = args[0] if args else None
            if len(args) not in MACROS[name] or not isinstance(variable, Name):
                raise SyntaxProblem(f"{name}() takes the name of a variable and what to do with it", at)
            return Comprehension(kind=name, over=of, variable=variable.name, steps=args[1:], at=at)
        return Call(name=name, args=(of, *args), at=at, method=True)

    def _list(self, closing: str) -> tuple[Node, ...]:
        """Return what stands between commas up to `closing`; a list may end with a comma."""
        items: list[Node] = []
        while not self._take(closing):
            if items:
                self._need(",")
                if closing == "]" and self._take(closing):
                    break
            items.append(self.expression())
        return tuple(items)

    def _primary(self) -> Node:
        token = self._pop()
        if token.kind == "text":
            return Literal(kind="text", source=token.text, at=token.at)
        if token.kind == "number":
            return Literal(kind="number", source=token.text, at=token.at)
        if token.kind == "name" and token.text != "in":
            if token.text in _CONSTANTS:
                kind = "null" if token.text == "null" else "bool"
                return Literal(kind=kind, source=token.text, at=token.at)
            if self._take("("):
                return Call(name=token.text, args=self._list(")"), at=token.at)
            return Name(name=token.text, at=token.at)
        if token.text == "(":
            node = self.expression()
            self._need(")")
            return node
        if token.text == "[":
            return Collection(kind="list", items=self._list("]"), at=token.at)
        if token.text == "{":
            return Collection(kind="map", items=self._pairs(), at=token.at)
        self._next -= 1
        self._refuse()
        raise AssertionError(token)

    def _pairs(self) -> tuple[Node, ...]:
        items: list[Node] = []
        while not self._take("}"):
            if items:
                self._need(",")
                if self._take("}"):
                    break
            items.append(self.expression())
            self._need(":")
            items.append(self.expression())
        return tuple(items)


def _plain(node: Node) -> str | None:
    """Return the text of a literal without escapes and prefixes."""
    if isinstance(node, Literal) and node.kind == "text":
        plain = re.fullmatch(r"""(["'])((?!\1)[^\\"']*)\1""", node.source)
        return plain.group(2) if plain else None
    return None
