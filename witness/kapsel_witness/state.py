"""What the witness has cosigned: the newest head of each log, in one file that is replaced as a whole.

Everything a witness is worth hangs on never forgetting this. So the file is written and synced, with its directory,
before an answer goes out; a second process on the same directory is refused; a witness that has a key but no state does
not start; and at each start every head in it must bear this witness's own cosignature.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kapsel_verifier import cosignature, strict
from kapsel_verifier.cosignature import WitnessKey
from kapsel_verifier.errors import MalformedNoteError, VerificationError
from kapsel_verifier.note import Checkpoint, Note
from kapsel_witness.errors import StateError

FILE: Final = "state.json"
LOCK: Final = "lock"
_MEMBERS: Final = ("v", "witness", "checkpoints")
_NEW: Final = b"{}\n"  # the state of a witness that never cosigned


class State:
    """The newest cosigned head of each log, as signed notes; writing blocks, so it is called from a thread."""

    def __init__(self, path: Path, key: WitnessKey, notes: Mapping[str, str]) -> None:
        self._path = path
        self._key = key
        self.notes = dict(notes)  # origin -> the note, with the log's signatures and this witness's cosignature
        self.known = {origin: Checkpoint.parse(Note.parse(note).text) for origin, note in notes.items()}

    def timestamp(self, origin: str) -> int:
        """Return the date of the newest cosignature, 0 if there is none."""
        if origin not in self.notes:
            return 0
        return cosignature.find(Note.parse(self.notes[origin]), [self._key])[0].timestamp

    def put(self, origin: str, note: str) -> None:
        """Remember a head, durably; raises StateError, and then it may or may not be what the next start finds.

        No cosignature goes out after that error, so either is true.
        """
        notes = self.notes | {origin: note}
        try:
            _replace(self._path, _content(self._key, notes))
        except OSError as error:
            raise StateError(f"the state {self._path} cannot be written: {error.strerror}") from error
        # A crash here has cosigned nothing; the log asks again, learns the newer size by a 409, and goes on from there.
        self.notes = notes
        self.known[origin] = Checkpoint.parse(Note.parse(note).text)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep every other process off the directory; raises StateError if one is there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (directory / LOCK).open("ab")
    except OSError as error:
        raise StateError(f"the directory {directory} cannot be used: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StateError(
                f"another witness runs in {directory}: stop it first; two of them would vouch for two histories"
            ) from error
        yield


def prepare(directory: Path) -> None:
    """Make an empty state, if there is none, for a witness that is about to get its key."""
    path = directory / FILE
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            _replace(path, _NEW)
    except OSError as error:
        raise StateError(f"the state {path} cannot be made: {error.strerror}") from error


def load(directory: Path, key: WitnessKey) -> State:
    """Return the state of the witness with this key; raises StateError."""
    path = directory / FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise StateError(
            f"the state {path} is missing, and with it what this witness has cosigned: put its newest copy back. If "
            f"there is none, give up this key: start a new witness with another name in an empty directory"
        ) from None
    except OSError as error:
        raise StateError(f"the state {path} cannot be read: {error.strerror}") from error
    try:
        return State(path, key, {} if data == _NEW else _parse(data, key))
    except VerificationError as error:
        raise StateError(
            f"the state {path} is damaged ({error}): put its newest copy back; do not delete it, it is what keeps this "
            f"witness from vouching for two histories"
        ) from error


def sync(directory: Path) -> None:
    """Make what was named or renamed in a directory outlive a power cut; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _content(key: WitnessKey, notes: Mapping[str, str]) -> bytes:
    values = (1, key.encode(), dict(sorted(notes.items())))
    return json.dumps(dict(zip(_MEMBERS, values, strict=True)), indent=1).encode("ascii") + b"\n"


def _parse(data: bytes, key: WitnessKey) -> dict[str, str]:
    value = strict.json_object(data, "it", MalformedNoteError)
    strict.members(value, _MEMBERS, "it", MalformedNoteError)
    if not strict.same(value["v"], 1):
        raise MalformedNoteError("it has a version that this witness does not know")
    if value["witness"] != key.encode():
        raise MalformedNoteError(f"it belongs to the witness {strict.shown(str(value['witness']))}")
    if type(value["checkpoints"]) is not dict:
        raise MalformedNoteError("its checkpoints are no object")
    for origin, text in value["checkpoints"].items():
        note = Note.parse(strict.string(text, "a checkpoint in it", MalformedNoteError))
        if not cosignature.find(note, [key]):
            raise MalformedNoteError("a checkpoint in it is not cosigned by this witness")
        if Checkpoint.parse(note.text).origin != origin:
            raise MalformedNoteError("a checkpoint in it is of another log")
    return dict(value["checkpoints"])


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    # A crash here leaves the old state: nothing was cosigned.
    temporary.replace(path)
    sync(path.parent)
