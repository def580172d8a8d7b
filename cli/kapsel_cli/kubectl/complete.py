"""`kubectl_complete-kapsel`: what kubectl (1.26 and newer) asks when somebody presses Tab after `kubectl kapsel`.

It is called with the words that were typed, the last one unfinished, and prints candidates, one a line, then what the
shell is to do with them, as Cobra does.
"""

import sys
from collections.abc import Sequence
from typing import Final

from kapsel_cli.completion import Command, Option, walk
from kapsel_cli.kubectl.parser import build

NO_FILES: Final = ":4"
FILES: Final = ":0"


def main(argv: Sequence[str] | None = None) -> int:
    """Print the candidates for the last word."""
    words = list(sys.argv[1:] if argv is None else argv)
    tree = {command.path: command for command in walk(build(), "kapsel")}
    candidates, directive = complete(tree, words or [""])
    print(*candidates, directive, sep="\n")
    return 0


def complete(tree: dict[str, Command], words: Sequence[str]) -> tuple[list[str], str]:
    """Return the candidates with what each means, and the directive."""
    *typed, current = words
    path = "kapsel"
    for word in typed:
        path = f"{path} {word}" if f"{path} {word}" in tree else path
    command = tree[path]
    before = _named(command, typed[-1]) if typed else None
    if before is not None and before.values is not None:
        return [value for value in before.values if value.startswith(current)], NO_FILES if before.values else FILES
    found = {**command.words, **{name: option.says for option in command.options for name in option.names}}
    chosen = {name: says for name, says in found.items() if name.startswith(current)}
    shown = {name: says for name, says in chosen.items() if current.startswith("-") or not name.startswith("-")}
    return [f"{name}\t{says}" if says else name for name, says in shown.items()], NO_FILES


def _named(command: Command, name: str) -> Option | None:
    return next((option for option in command.options if name in option.names), None)


if __name__ == "__main__":
    sys.exit(main())
