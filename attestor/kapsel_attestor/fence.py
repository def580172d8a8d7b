"""The last head that was signed, kept where a restored database cannot take it back.

The publisher compares and swaps it before every signature, so that neither a tree that does not continue the fenced
one nor two trees at once are ever signed. Whether the new head continues the old one is the publisher's to prove.

Here as a file, which therefore lies next to the data directory and not in it, is replaced as a whole and synced with
its directory, and is swapped under a lock: of two attestors one passes. In a cluster it is in `kubernetes_fence`.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from kapsel_attestor.errors import FenceMovedError, RefusedError
from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedProofError
from kapsel_verifier.merkle import HASH_SIZE

_MEMBERS: Final = ("v", "origin", "tree_size", "root_hash", "timestamp_ms")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fenced:
    """One head, about to be signed or signed."""

    origin: str
    tree_size: int
    root: bytes
    timestamp_ms: int


class Fence(Protocol):
    """Where the fence of one log is kept; blocking, so called from a thread. As text it is what messages call it.

    Both raise RefusedError if a person has to act, FenceAwayError if the fence cannot be reached just now.
    """

    def read(self) -> Fenced | None:
        """Return the fenced head, None if there is none yet."""

    def swap(self, old: Fenced | None, new: Fenced) -> None:
        """Replace `old` by `new`, durably; raise FenceMovedError, and change nothing, if another attestor was first."""

    def remedy(self, fenced: Fenced) -> str:
        """Return what a person does who is sure that this is the newest head."""


def text(fenced: Fenced) -> str:
    """Return the content of a fence file."""
    values = (1, fenced.origin, fenced.tree_size, fenced.root.hex(), fenced.timestamp_ms)
    return json.dumps(dict(zip(_MEMBERS, values, strict=True))) + "\n"


def parse(data: bytes) -> Fenced:
    """Read the content of a fence file; raise ValueError that says what is wrong with it."""
    try:
        value = strict.json_object(data, "it", MalformedProofError)
        strict.members(value, _MEMBERS, "it", MalformedProofError)
        if strict.integer(value["v"], "v", MalformedProofError) != 1:
            raise ValueError("it has a version that this attestor does not know")
        return Fenced(
            origin=strict.string(value["origin"], "origin", MalformedProofError),
            tree_size=strict.integer(value["tree_size"], "tree_size", MalformedProofError),
            root=strict.hexadecimal(value["root_hash"], HASH_SIZE, "root_hash", MalformedProofError),
            timestamp_ms=strict.integer(value["timestamp_ms"], "timestamp_ms", MalformedProofError),
        )
    except MalformedProofError as error:
        raise ValueError(str(error)) from error


class FileFence:
    """The fence of one log as a JSON file; blocking, so called from a thread."""

    def __init__(self, path: Path, origin: str) -> None:
        self.path = path
        self._origin = origin

    def __str__(self) -> str:
        return f"the fence {self.path}"

    def remedy(self, fenced: Fenced) -> str:
        """Return what a person does who is sure that this is the newest head."""
        return f"write this line into it: {text(fenced).rstrip()}"

    def read(self) -> Fenced | None:
        """Return the fenced head, None if there is no file; raise RefusedError if the file is of no use."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            self._require_directory()
            return None
        except OSError as error:
            raise RefusedError(f"{self} cannot be read ({error.strerror}): make it readable") from error
        try:
            fenced = parse(data)
        except ValueError as error:
            raise RefusedError(
                f"{self} is damaged ({error}): put its newest copy back; do not delete it, it is what "
                f"keeps a restored database from being signed"
            ) from error
        if fenced.origin != self._origin:
            raise RefusedError(
                f"{self} belongs to the log {fenced.origin}, not to {self._origin}: give each log a "
                f"file of its own, by KAPSEL_ATTESTOR_FENCE_FILE, or move this one away if that log is closed"
            )
        return fenced

    def _require_directory(self) -> None:
        if not self.path.parent.is_dir():
            # A volume that was not mounted must not look like a first start.
            raise RefusedError(f"the directory of {self} does not exist: mount it or make it")

    def swap(self, old: Fenced | None, new: Fenced) -> None:
        """Replace `old` by `new`, durably; raise FenceMovedError, and change nothing, if another attestor was first."""
        try:
            with self._locked():
                if self.read() != old:
                    raise FenceMovedError(f"another attestor has passed {self}")
                self._replace(text(new).encode())
        except OSError as error:
            raise RefusedError(f"{self} cannot be written ({error.strerror}): make it so") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # The file itself is replaced by each swap, so what is locked is a file beside it.
        with self._beside(".lock").open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise FenceMovedError(f"another attestor is passing {self}") from None
            yield

    def _replace(self, content: bytes) -> None:
        temporary = self._beside(".new")
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        # A crash here leaves the old fence: nothing was signed.
        temporary.replace(self.path)
        directory = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)
