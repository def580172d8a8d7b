"""`kapsel completion`: a script that completes commands and options in a shell, made from the parser itself."""

import argparse
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from kapsel_cli.arguments import Subparsers, add_command

SHELLS: Final = ("bash", "zsh", "fish")

TEXT: Final = """\
Prints a script that completes kapsel's commands, options and their values.

examples:
  source <(kapsel completion bash)                                   in ~/.bashrc
  source <(kapsel completion zsh)                                    in ~/.zshrc, after compinit
  kapsel completion fish > ~/.config/fish/completions/kapsel.fish    once
"""


def register(subparsers: Subparsers) -> None:
    """Declare the command."""
    parser = add_command(subparsers, "completion", summary="complete kapsel's commands in a shell", text=TEXT)
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=", ".join(SHELLS))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    from kapsel_cli.parser import build  # it imports this module

    tree = list(walk(build(), "kapsel"))
    print({"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](tree), end="")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option and the values it takes; none for a flag, empty for anything."""

    names: tuple[str, ...]
    says: str
    values: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command: the words that follow it, each with a summary, and its options."""

    path: str
    words: dict[str, str]
    options: tuple[Option, ...]


def walk(parser: argparse.ArgumentParser, path: str) -> Iterator[Command]:
    """Yield a command and all those below it."""
    words: dict[str, str] = {}
    options: list[Option] = []
    below: list[tuple[str, argparse.ArgumentParser]] = []
    for action in parser._actions:  # noqa: SLF001 - argparse offers no other way to its own declarations
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            shown = {str(entry.dest): entry.help or "" for entry in action._choices_actions}  # noqa: SLF001
            # The metavar of an entry with aliases is `name (alias)`; its name is what comes first.
            words |= {name.partition(" ")[0]: says for name, says in shown.items()}
            below += [(name, child) for name, child in action.choices.items() if name in words]
        elif action.option_strings:
            values = None if action.nargs == 0 else tuple(str(choice) for choice in action.choices or ())
            options.append(Option(names=tuple(action.option_strings), says=_plain(action.help), values=values))
        elif action.choices:
            words |= dict.fromkeys((str(choice) for choice in action.choices), "")
    yield Command(path=path, words=words, options=tuple(options))
    for name, child in below:
        yield from walk(child, f"{path} {name}")


def bash(tree: list[Command]) -> str:
    """Return the script for bash. Where it knows nothing it offers files, as the shell does by itself."""
    values = [
        f"    {_alternatives(command, option)}) words={shlex.quote(' '.join(option.values or ()))} ;;"
        for command in tree
        for option in command.options
        if option.values is not None
    ]
    words = []
    for command in tree:
        names = [name for option in command.options for name in option.names]
        words.append(f"    {shlex.quote(command.path)}) words={shlex.quote(' '.join([*command.words, *names]))} ;;")
    deeper = [shlex.quote(command.path) for command in tree[1:]]
    return f"""\
_kapsel() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" path=kapsel words= word index
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="${{COMP_WORDS[index]}}"
    case "$path $word" in
    {"|".join(deeper)}) path="$path $word" ;;
    esac
  done
  case "$path|$previous" in
{chr(10).join(values)}
  *)
    case "$path" in
{chr(10).join(words)}
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _kapsel kapsel
"""


def zsh(tree: list[Command]) -> str:
    """Return the script for zsh, which can run that of bash."""
    return f"autoload -U +X bashcompinit && bashcompinit\n{bash(tree)}"


def fish(tree: list[Command]) -> str:
    """Return the script for fish."""
    lines = []
    for command in tree:
        at = _fish_condition(command, tree)
        lines += [
            f"complete -c kapsel -f -n {at} -a {shlex.quote(word)} -d {shlex.quote(says)}"
            for word, says in command.words.items()
        ]
        for option in command.options:
            names = " ".join(
                f"-l {name.removeprefix('--')}" if name.startswith("--") else f"-s {name.removeprefix('-')}"
                for name in option.names
            )
            takes = (
                ""
                if option.values is None
                else f" -x -a {shlex.quote(' '.join(option.values))}"
                if option.values
                else " -r"
            )
            lines.append(f"complete -c kapsel -n {at} {names}{takes} -d {shlex.quote(option.says)}")
    return "\n".join(lines) + "\n"


def _fish_condition(command: Command, tree: list[Command]) -> str:
    typed = command.path.split()[1:]
    seen = [f"__fish_seen_subcommand_from {word}" for word in typed]
    further = [other.path.split()[-1] for other in tree if other.path.rpartition(" ")[0] == command.path]
    missing = [f"not __fish_seen_subcommand_from {' '.join(further)}"] if further else []
    return shlex.quote("; and ".join([*seen, *missing]) or "true")


def _alternatives(command: Command, option: Option) -> str:
    return "|".join(shlex.quote(f"{command.path}|{name}") for name in option.names)


def _plain(text: str | None) -> str:
    """Return an option's help without what argparse fills in."""
    return "" if text is None or text == argparse.SUPPRESS else text.partition(" (default")[0].replace("%%", "%")
