"""kapsel-verify: judges one proof file offline with the keys its caller trusts.

Exit codes: 0 verified, 2 wrong usage, else the exit code of the error's class (`errors`). What is proven goes to
standard output, a refusal to standard error in one sentence. All judgement is in `verify`.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import BinaryIO, Final, NoReturn

from kapsel_verifier.errors import TooLargeError, VerificationError

# The rest of the package is imported where it is used: `--help` and a mistyped option answer at once.

MAX_BODY_SIZE: Final = 67_108_864  # bytes
_USAGE: Final = 2
_DESCRIPTION: Final = "Check a proof of delivery offline, with keys that you trust and that did not come with it."
_EPILOG: Final = """\
examples:
  kapsel-verify --proof proof.json --public-key log.example.com/shop+0a1b2c3d+AXq...
  kapsel-verify --proof proof.json --keys keys.json --body request.json
  kapsel-verify --proof proof.json --keys keys.json --expect outcome=delivered --json

exit codes: 0 verified, 2 wrong usage; a refusal has the code of its class:
  10 malformed proof       11 unsupported version  12 malformed leaf      13 malformed checkpoint
  14 unusable key          15 key inside proof     16 input too large     20 no trusted signature
  21 wrong signature       22 key not valid then   23 head in the future  30 parts do not fit
  31 not in the log        32 log rewritten        40 another body        41 not what was expected
"""


class UsageError(Exception):
    """The command cannot be carried out as it was given."""


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
    _require_keys(options)
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
    add = parser.add_argument
    add("--proof", required=True, metavar="FILE", help="proof.json or a .tlog-proof file; - reads standard input")
    add("--public-key", action="append", default=[], metavar="KEY", help="a trusted key: a vkey, or 64 hex digits")
    add("--keys", metavar="FILE", help="trusted keys: lines of vkeys, or the JSON of /.well-known/kapsel/keys.json")
    add("--body", metavar="FILE", help="the request body you have: it must be the one that was sent")
    add("--payload-salt", metavar="HEX", help="the event's salt, to open the payload commitment (with --body)")
    add("--expect", action="append", default=[], metavar="NAME=VALUE", help="a member the leaf must have, so valued")
    add("--clock-skew", type=int, default=300, metavar="SECONDS", help="how far ahead a head may be (default 300)")
    add("--json", action="store_true", help="print the result as JSON")
    return parser


def _require_keys(options: argparse.Namespace) -> None:
    if not options.public_key and not options.keys:
        raise UsageError("a trusted key is needed: give --public-key or --keys")
    if options.payload_salt and not options.body:
        raise UsageError("--payload-salt needs --body")
    if options.clock_skew < 0:
        raise UsageError("--clock-skew cannot be negative")


def _verify(options: argparse.Namespace) -> None:
    import time

    from kapsel_verifier import keys, proof, report, tlog_proof, verify

    trusted = [keys.parse_key(text) for text in options.public_key]
    if options.keys:
        trusted += keys.parse_key_set(_read(options.keys, "the key set", keys.MAX_KEY_SET_SIZE))
    expected = _expectations(options.expect)
    payload = None
    if options.body:
        payload = verify.Payload(_read(options.body, "the body", MAX_BODY_SIZE), _salt(options.payload_salt))
    data = _read(options.proof, "the proof", proof.MAX_PROOF_SIZE)
    verified = verify.verify_proof(
        tlog_proof.TlogProof.parse(data) if tlog_proof.is_tlog_proof(data) else proof.parse(data),
        trusted,
        payload=payload,
        expected=expected,
        now_ms=time.time_ns() // 1_000_000,
        max_skew_ms=options.clock_skew * 1000,
    )
    if options.json:
        _print_json(report.to_json(verified))
    else:
        print("Proof verified successfully!", *report.lines(verified), sep="\n", flush=True)


def _salt(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise UsageError("--payload-salt takes hex digits") from None


def _expectations(texts: Sequence[str]) -> dict[str, str]:
    expected = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise UsageError(f"--expect takes NAME=VALUE, not {text}")
        expected[name] = value
    return expected


def _read(name: str, what: str, limit: int) -> bytes:
    """Read a file up to its limit, never more: the file may be huge, or endless."""
    try:
        if name == "-":
            return _read_stream(sys.stdin.buffer, what, limit)
        with open(name, "rb") as file:  # noqa: PTH123 - pathlib takes a tenth of the time this command has
            return _read_stream(file, what, limit)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read {what} from {name}: {reason}") from None


def _read_stream(stream: BinaryIO, what: str, limit: int) -> bytes:
    data = stream.read(limit + 1)
    if len(data) > limit:
        raise TooLargeError(what, limit)
    return data


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
