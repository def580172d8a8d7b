"""kapsel-verify: judges one proof file offline with the keys its caller trusts.

Exit codes: 0 verified, 2 wrong usage, else the exit code of the error's class (`errors`). What is proven goes to
standard output, a refusal to standard error in one sentence. All judgement is in `verify`; its options are in
`options`, the files that they name are read in `given`.
"""

import sys
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Final

from kapsel_verifier.errors import VerificationError
from kapsel_verifier.given import UsageError
from kapsel_verifier.options import read

# The rest of the package is imported where it is used: `--help` and a mistyped option answer at once.

_USAGE: Final = 2


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
    options = read(sys.argv[1:] if arguments is None else arguments)
    try:
        _verify(options)
    except VerificationError as error:
        if options.json:
            _print_refusal(error)
        return _complain(error.sentence(), error.exit_code)
    return 0


def _verify(options: SimpleNamespace) -> None:
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
