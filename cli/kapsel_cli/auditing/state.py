"""What an auditor remembers between two looks at a log: the head it has checked, and how far it has read since.

One file, replaced as a whole. It is worth keeping: with it the next audit shows whether the log has kept its word. A
walk that was interrupted goes on from `Progress`, which counts for nothing until the root at its end was signed.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kapsel_cli.auditing.chains import Chains
from kapsel_cli.errors import CliError
from kapsel_tlog.tree import Tree
from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedProofError
from kapsel_verifier.merkle import HASH_SIZE
from kapsel_verifier.tiles import HEIGHT, WIDTH

_VERSION: Final = 1
_MEMBERS: Final = ("v", "origin", "verified", "verified_ms", "seen", "verified_progress", "progress")
_PROGRESS: Final = ("size", "edge", "chains", "erased", "unclaimed", "erasures", "successions", "gaps")


@dataclass(slots=True)
class Progress:
    """How far the leaves were read: the tree up to there, and where each endpoint's records stand."""

    tree: Tree = field(default_factory=Tree)
    chains: Chains = field(default_factory=Chains)
    erasures: int = 0  # leaves of which only the hash was left when they were read
    successions: list[bytes] = field(default_factory=list)  # leaves that announced keys
    gaps: list[str] = field(default_factory=list)  # where records are missing, told when the root at the end was signed

    def copy(self) -> "Progress":
        """Return the same, to go on from without losing this."""
        chains = Chains(dict(self.chains.last), set(self.chains.erased), self.chains.unclaimed)
        return Progress(self.tree, chains, self.erasures, list(self.successions), list(self.gaps))


@dataclass(slots=True)
class State:
    """Everything that is remembered of one log."""

    origin: str | None = None
    verified: str | None = None  # the newest signed note of which every leaf was checked
    verified_ms: int = 0  # the date of that head
    seen: list[str] = field(default_factory=list)  # notes that the log signed, and that were not found to be in it yet
    verified_progress: Progress = field(default_factory=Progress)  # at that head
    progress: Progress = field(default_factory=Progress)  # there, or further


def load(path: Path) -> State:
    """Return what was remembered, nothing if there is no file; raises CliError if it cannot be used."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return State()
    except OSError as error:
        raise CliError(
            f"the state {path} cannot be read: {error.strerror}", "Name another file with --state"
        ) from error
    try:
        return _parse(data)
    except (MalformedProofError, ValueError, TypeError, AttributeError) as error:
        raise CliError(
            f"the state {path} is damaged ({error})", "Put its newest copy back, or begin anew with another --state"
        ) from error


def save(path: Path, state: State) -> None:
    """Replace the file; raises CliError."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(_encode(state))
            file.flush()
            os.fsync(file.fileno())
        # A crash here leaves the state of before: a little is read twice.
        temporary.replace(path)
    except OSError as error:
        raise CliError(
            f"the state {path} cannot be written: {error.strerror}", "Name another file with --state"
        ) from error


def _encode(state: State) -> bytes:
    same = state.progress.tree.size == state.verified_progress.tree.size
    values = (
        _VERSION,
        state.origin,
        state.verified,
        state.verified_ms,
        state.seen,
        _progress(state.verified_progress),
        None if same else _progress(state.progress),
    )
    return json.dumps(dict(zip(_MEMBERS, values, strict=True))).encode("ascii") + b"\n"


def _progress(progress: Progress) -> dict[str, Any]:
    chains = progress.chains
    values = (
        progress.tree.size,
        [row.hex() for row in progress.tree.edge],
        {endpoint: [number, digest.hex()] for endpoint, (number, digest) in chains.last.items()},
        sorted(digest.hex() for digest in chains.erased),
        chains.unclaimed,
        progress.erasures,
        [strict.to_base64(leaf) for leaf in progress.successions],
        progress.gaps,
    )
    return dict(zip(_PROGRESS, values, strict=True))


def _parse(data: bytes) -> State:
    error = MalformedProofError
    value = strict.json_object(data, "it", error)
    strict.members(value, _MEMBERS, "it", error)
    if not strict.same(value["v"], _VERSION):
        raise error("it is of another version of this command")
    verified = _parse_progress(value["verified_progress"])
    return State(
        origin=_text_or_none(value["origin"]),
        verified=_text_or_none(value["verified"]),
        verified_ms=strict.integer(value["verified_ms"], "the date in it", error),
        seen=_texts(value["seen"]),
        verified_progress=verified,
        progress=verified.copy() if value["progress"] is None else _parse_progress(value["progress"]),
    )


def _parse_progress(value: Any) -> Progress:
    error = MalformedProofError
    if type(value) is not dict:
        raise error("its progress is no object")
    strict.members(value, _PROGRESS, "its progress", error)
    size = strict.integer(value["size"], "the size in it", error)
    edge = tuple(bytes.fromhex(strict.string(row, "a row in it", error)) for row in value["edge"])
    widths = [(size >> (HEIGHT * level)) % WIDTH for level in range((size.bit_length() + HEIGHT - 1) // HEIGHT)]
    if [len(row) for row in edge] != [width * HASH_SIZE for width in widths]:
        raise error("the edge of the tree in it does not fit its size")
    last = {
        endpoint: (
            strict.integer(number, "a number in it", error),
            strict.hexadecimal(digest, 32, "a hash in it", error),
        )
        for endpoint, (number, digest) in value["chains"].items()
    }
    erased = {strict.hexadecimal(one, 32, "a hash in it", error) for one in value["erased"]}
    chains = Chains(last, erased, strict.integer(value["unclaimed"], "a number in it", error))
    erasures = strict.integer(value["erasures"], "a number in it", error)
    successions = [strict.base64(text, "a leaf in it", error) for text in _texts(value["successions"])]
    return Progress(Tree(size=size, edge=edge), chains, erasures, successions, _texts(value["gaps"]))


def _texts(value: Any) -> list[str]:
    if type(value) is not list:
        raise MalformedProofError("a list in it is none")
    return [strict.string(one, "a text in it", MalformedProofError) for one in value]


def _text_or_none(value: Any) -> str | None:
    return None if value is None else strict.string(value, "a text in it", MalformedProofError)
