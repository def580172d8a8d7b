"""The options of kapsel-verify: one table, read in two ways.

Options that are in order are read by `read` alone. Everything else, `--help` too, goes to an argparse parser made of
the same table: loading argparse takes a fifth of the time of a whole verification, and is worth it when there is
something to explain.
"""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from kapsel_verifier.given import UsageError

if TYPE_CHECKING:
    from argparse import ArgumentParser

_DESCRIPTION: Final = """\
Check a proof of delivery offline, with keys that you trust and that did not come with it.

Every proof that verifies is at least claimed: the log's operator recorded the attempt and cannot take it back. Whether
it is also witnessed, anchored or acknowledged is checked with what you give: --policy, --block-header and
--destination-key each demand their level, and the proof is refused if it falls short of it."""
_EPILOG: Final = """\
examples:
  kapsel-verify --proof proof.json --public-key log.example.com/shop+0a1b2c3d+AXq...
  kapsel-verify --proof proof.json --keys keys.json --body request.json
  kapsel-verify --proof proof.json --keys keys.json --expect outcome=delivered --json
  kapsel-verify --proof proof.json --policy policy.txt --explain
  kapsel-verify --proof proof.json --keys keys.json --destination-key billing.jwks --require acknowledged
  kapsel-verify --proof proof.json --keys keys.json --known-checkpoint checkpoint --consistency consistency.json

exit codes: 0 verified, 2 wrong usage; a refusal has the code of its class:
  10 malformed proof       11 unsupported version  12 malformed leaf      13 malformed checkpoint
  14 unusable key          15 key inside proof     16 input too large     17 unusable policy
  18 malformed timestamp   19 malformed tile       20 no trusted signature
  21 wrong signature       22 key not valid then   23 head in the future  24 not enough witnesses
  25 not acknowledged      26 head too old         30 parts do not fit    31 not in the log
  32 log rewritten         33 not anchored         40 another body        41 not what was expected
"""

_LEVELS: Final = ("witnessed", "anchored", "acknowledged")
_ONE, _MANY, _COUNT, _FLAG = "one", "many", "count", "flag"

# Name, kind, what its value is called, what it is for.
_OPTIONS: Final = (
    ("--proof", _ONE, "FILE", "proof.json or a .tlog-proof file; - reads standard input"),
    ("--public-key", _MANY, "KEY", "a trusted key: a vkey, or 64 hex digits"),
    ("--keys", _ONE, "FILE", "trusted keys: lines of vkeys, or the JSON of /.well-known/kapsel/keys.json"),
    ("--successors", _ONE, "FILE", "a key set that you do not trust: keys that yours have announced count"),
    ("--policy", _ONE, "FILE", "trusted logs, witnesses, and how many of them it takes (C2SP tlog-policy)"),
    ("--block-header", _MANY, "HEX|FILE",
     "the 80 bytes of a Bitcoin block that you know to be in the chain: the proof must be anchored in one"),
    ("--min-difficulty", _COUNT, "N", "of a block header, for chains other than Bitcoin's main one"),
    ("--destination-key", _MANY, "KEY|FILE",
     "a key of the destination, whpk_... or hex, or a file of keys, lines or a JSON Web Key Set: one must have signed"),
    ("--require", _MANY, "LEVEL", "witnessed, anchored or acknowledged: refuse a proof that is not shown to be"),
    ("--known-checkpoint", _ONE, "FILE", "a checkpoint of the log that you hold, and that must agree"),
    ("--consistency", _ONE, "FILE", "the consistency proof between the two, if their sizes differ"),
    ("--body", _ONE, "FILE", "the body you have: it must be the one that came or was sent"),
    ("--payload-salt", _ONE, "HEX", "the event's salt, to open the payload commitment (with --body)"),
    ("--expect", _MANY, "NAME=VALUE", "a member the leaf must have, so valued"),
    ("--clock-skew", _COUNT, "SECONDS", "how far ahead a head may be (default 300)"),
    ("--max-age", _COUNT, "SECONDS", "how old the head may be; by default however old"),
    ("--explain", _FLAG, None, "print step by step what was checked, and how strong the result is"),
    ("--json", _FLAG, None, "print the result as JSON"),
)  # fmt: skip
_DEFAULTS: Final = {"clock_skew": 300}


def read(arguments: Sequence[str]) -> SimpleNamespace:
    """Return the options as attributes, checked against each other; raises UsageError, or SystemExit after --help."""
    options = _read(arguments) or parser().parse_args(arguments, SimpleNamespace())
    _check(options)
    return options


def parser() -> "ArgumentParser":
    """Return the parser that explains: what is wrong with the arguments, or what there are."""
    import argparse
    from functools import partial

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(f"{message}; see kapsel-verify --help")

    made = Parser(
        prog="kapsel-verify",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        # A fixed width: measuring the terminal imports four modules of compression, for every option.
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=110),
        allow_abbrev=False,
    )
    output = made.add_mutually_exclusive_group()
    for name, kind, metavar, about in _OPTIONS:
        if kind == _FLAG:
            output.add_argument(name, action="store_true", help=about)
            continue
        how: dict[str, Any] = {"metavar": metavar, "help": about, "default": _DEFAULTS.get(_attribute(name))}
        if kind == _MANY:
            how |= {"action": "append", "default": [], "choices": _LEVELS if name == "--require" else None}
        if kind == _COUNT:
            how["type"] = int
        made.add_argument(name, required=name == "--proof", **how)
    return made


def _attribute(name: str) -> str:
    return name[2:].replace("-", "_")


def _read(arguments: Sequence[str]) -> SimpleNamespace | None:
    """Return the options if every word of them is in order; otherwise None, for the parser to say what is wrong."""
    kinds = {name: kind for name, kind, _, _ in _OPTIONS}
    empty = {_MANY: list, _FLAG: bool}
    values: dict[str, Any] = {
        _attribute(name): empty[kind]() if kind in empty else None for name, kind in kinds.items()
    }
    values |= _DEFAULTS
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        kind = kinds.get(name)
        if kind == _FLAG and not equals:
            values[_attribute(name)] = True
            continue
        found = value if equals else _value(words)
        if kind in (None, _FLAG) or found in ("", "--") or (name == "--require" and found not in _LEVELS):
            return None
        if kind == _MANY:
            values[_attribute(name)].append(found)
        elif kind == _ONE:
            values[_attribute(name)] = found
        elif found.isascii() and found.isdecimal() and len(found) < 20:
            values[_attribute(name)] = int(found)
        else:
            return None
    if not values["proof"] or (values["explain"] and values["json"]):
        return None
    return SimpleNamespace(**values)


def _value(words: Iterator[str]) -> str:
    """Return the word after an option, or nothing if it may be an option itself."""
    word = next(words, "")
    return word if word == "-" or not word.startswith("-") else ""


def _check(options: SimpleNamespace) -> None:
    if not options.public_key and not options.keys and not options.policy:
        raise UsageError("a trusted key is needed: give --public-key, --keys or --policy")
    pairs = (("payload_salt", "body"), ("consistency", "known_checkpoint"), ("min_difficulty", "block_header"))
    for given, needed in pairs:
        if getattr(options, given) is not None and not getattr(options, needed):
            raise UsageError(f"--{given.replace('_', '-')} needs --{needed.replace('_', '-')}")
    for name in ("clock_skew", "max_age", "min_difficulty"):
        if (getattr(options, name) or 0) < 0:
            raise UsageError(f"--{name.replace('_', '-')} cannot be negative")
