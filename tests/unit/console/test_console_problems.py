"""Which problems a route declares: those that its handler can answer with, as the code is, and no other."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import kapsel_console
from kapsel_console.app import INDEX, ROUTES
from kapsel_console.codes import PROBLEMS, Code
from kapsel_console.context import Route

PACKAGE = Path(kapsel_console.__file__).parent
MODULES = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.glob("*.py")}
Place = tuple[str, str]  # a module, and a function or class of it
DEFINED: dict[Place, ast.AST] = {
    (module, node.name): node
    for module, tree in MODULES.items()
    for node in tree.body
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
}
# Of the edge around all handlers, and of what each of them does first.
COMMON: set[Code] = {
    "parameter_unknown",
    "parameter_invalid",
    "request_refused",
    "token_required",
    "token_wrong",
    "cross_origin",
    "unknown_host",
    "too_many_requests",
    "internal_error",
    "storage_unavailable",
    "query_timeout",
}
OUTSIDE: set[Code] = {"unknown_route", "method_not_allowed"}  # of no route


@cache
def imported(module: str) -> dict[str, Place]:
    """Return what the names of a module mean, as far as it is of this package."""
    names: dict[str, Place] = {place[1]: place for place in DEFINED if place[0] == module}
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("kapsel_console."):
            for alias in node.names:
                names[alias.asname or alias.name] = (node.module.rpartition(".")[2], alias.name)
    return names


def reached(start: Place) -> Iterator[tuple[str, ast.AST]]:
    """Yield every node of the code that a function leads to, with its module."""
    todo, seen = [start], {start}
    while todo:
        place = todo.pop()
        names = imported(place[0])
        for node in ast.walk(DEFINED[place]):
            yield place[0], node
            target = names.get(node.id) if isinstance(node, ast.Name) else None
            if target in DEFINED and target not in seen:
                seen.add(target)
                todo.append(target)


def answered(route: Route) -> tuple[set[str], bool]:
    """Return the codes of the problems that a handler leads to, and whether it asks the database."""
    codes, reads = set(), False
    for _, node in reached((route.handler.__module__.rpartition(".")[2], route.handler.__name__)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "ProblemError":
            assert isinstance(node.args[0], ast.Constant), "a problem whose code cannot be read here"
            codes.add(node.args[0].value)
        reads = reads or (isinstance(node, ast.Attribute) and node.attr == "storage")
    return codes, reads


def impossible(route: Route) -> set[Code]:
    """Return what a handler leads to and cannot come to on this route."""
    never: set[Code] = set()
    if route.path.partition("/{")[0].endswith(("/checkpoint", "/entries", "/tile")) and "{log}" not in route.path:
        never.add("unknown_log")  # the path names none
    if "proof/{id}" in route.path and "blockchain" not in route.path:
        never.add("not_anchored")  # a proof under any head is asked for
    if route.takes is not None:
        never.add("unknown_replay")  # it was made a moment before, in the same transaction
    return never


@pytest.mark.parametrize("route", [INDEX, *ROUTES], ids=lambda route: f"{route.method} {route.path}")
def test_a_route_declares_the_problems_that_its_handler_leads_to_and_no_other(route: Route) -> None:
    codes, reads = answered(route)
    assert set(route.problems) == codes - COMMON - impossible(route)
    assert len(set(route.codes)) == len(route.codes)
    assert route.reads == reads
    assert ("request_refused" in codes) == (route.takes is not None)


def test_every_code_is_a_problem_of_some_route_or_of_what_is_no_route() -> None:
    assert {code for route in (INDEX, *ROUTES) for code in route.codes} == set(PROBLEMS) - OUTSIDE
