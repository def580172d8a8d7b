"""kapsel-verify: judges one proof file offline with the keys its caller trusts.

Exit codes: 0 verified, 2 wrong usage, else the exit code of the error's class (`errors`). What is proven goes to
standard output, a refusal to standard error in one sentence. All judgement is in `verify`; what it is given is read in
`given`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final, NoReturn

from kapsel_verifier.errors import VerificationError
from kapsel_verifier.given import UsageError

# The rest of the package is imported where it is used: `--help` and a mistyped option answer at once.

_USAGE: Final = 2
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


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see kapsel-verify --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    try:
        return _run(arguments)
    except UsageError as error:
        return _complain(str(error), _USAGE)
    except OSError as error:
        # The output cannot be written; without this the interpreter would complain again when it flushes at exit.
        sys.stdout = None
        return _complain(f"cannot write the result: {error.strerror}", 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    _check_options(options)
    try:
        _verify(options)
    except VerificationError as error:
        if options.json:
            _print_refusal(error)
        return _complain(error.sentence(), error.exit_code)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="kapsel-verify",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        # A fixed width: measuring the terminal imports four modules of compression, for every add_argument.
        formatter_class=partial(argparse.RawDescriptionHelpFormatter, width=110),
        allow_abbrev=False,
    )
    _add_options(parser)
    return parser


def _add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--proof", required=True, metavar="FILE", help="proof.json or a .tlog-proof file; - reads standard input")
    add("--public-key", action="append", default=[], metavar="KEY", help="a trusted key: a vkey, or 64 hex digits")
    add("--keys", metavar="FILE", help="trusted keys: lines of vkeys, or the JSON of /.well-known/kapsel/keys.json")
    add("--successors", metavar="FILE", help="a key set that you do not trust: keys that yours have announced count")
    add("--policy", metavar="FILE", help="trusted logs, witnesses, and how many of them it takes (C2SP tlog-policy)")
    add(
        "--block-header", action="append", default=[], metavar="HEX|FILE",
        help="the 80 bytes of a Bitcoin block that you know to be in the chain: the proof must be anchored in one",
    )  # fmt: skip
    add("--min-difficulty", type=int, metavar="N", help="of a block header, for chains other than Bitcoin's main one")
    add(
        "--destination-key", action="append", default=[], metavar="HEX|FILE",
        help="a key of the destination, or a file of keys (hex lines, or a JSON Web Key Set): one must have signed",
    )  # fmt: skip
    add(
        "--require", action="append", default=[], choices=("witnessed", "anchored", "acknowledged"), metavar="LEVEL",
        help="witnessed, anchored or acknowledged: refuse a proof that is not shown to be",
    )  # fmt: skip
    add("--known-checkpoint", metavar="FILE", help="a checkpoint of the log that you hold, and that must agree")
    add("--consistency", metavar="FILE", help="the consistency proof between the two, if their sizes differ")
    add("--body", metavar="FILE", help="the request body you have: it must be the one that was sent")
    add("--payload-salt", metavar="HEX", help="the event's salt, to open the payload commitment (with --body)")
    add("--expect", action="append", default=[], metavar="NAME=VALUE", help="a member the leaf must have, so valued")
    add("--clock-skew", type=int, default=300, metavar="SECONDS", help="how far ahead a head may be (default 300)")
    add("--max-age", type=int, metavar="SECONDS", help="how old the head may be; by default however old")
    output = parser.add_mutually_exclusive_group().add_argument
    output("--explain", action="store_true", help="print step by step what was checked, and how strong the result is")
    output("--json", action="store_true", help="print the result as JSON")


def _check_options(options: argparse.Namespace) -> None:
    if not options.public_key and not options.keys and not options.policy:
        raise UsageError("a trusted key is needed: give --public-key, --keys or --policy")
    pairs = (("payload_salt", "body"), ("consistency", "known_checkpoint"), ("min_difficulty", "block_header"))
    for given, needed in pairs:
        if getattr(options, given) is not None and not getattr(options, needed):
            raise UsageError(f"--{given.replace('_', '-')} needs --{needed.replace('_', '-')}")
    for name in ("clock_skew", "max_age", "min_difficulty"):
        if (getattr(options, name) or 0) < 0:
            raise UsageError(f"--{name.replace('_', '-')} cannot be negative")


def _verify(options: argparse.Namespace) -> None:
    import time

    from kapsel_verifier import given, report, verify

    verified = verify.verify_proof(
        given.proof(options.proof),
        given.trusted_keys(options.public_key, options.keys, options.successors),
        means=given.means(options),
        known=given.known_head(options.known_checkpoint, options.consistency),
        payload=given.payload(options.body, options.payload_salt),
        expected=_expectations(options.expect),
        now_ms=time.time_ns() // 1_000_000,
        max_skew_ms=options.clock_skew * 1000,
        max_age_ms=None if options.max_age is None else options.max_age * 1000,
    )
    if options.json:
        _print_json(report.to_json(verified))
        return
    said = report.explanation(verified) if options.explain else report.lines(verified)
    print("Proof verified successfully!", *said, sep="\n", flush=True)


def _expectations(texts: Sequence[str]) -> dict[str, str]:
    expected = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise UsageError(f"--expect takes NAME=VALUE, not {text}")
        expected[name] = value
    return expected


def _print_refusal(error: VerificationError) -> None:
    _print_json(
        {
            "verified": False,
            "error": type(error).__name__,
            "exit_code": error.exit_code,
            "message": str(error),
            "meaning": error.meaning,
        }
    )


def _print_json(value: Mapping[str, object]) -> None:
    import json

    print(json.dumps(value, indent=2), flush=True)


def _complain(sentence: str, exit_code: int) -> int:
    print(f"kapsel-verify: {sentence}", file=sys.stderr)
    return exit_code
