"""Who may ask: the tokens that open this console, read from a file again whenever it changes.

Called by the middleware for every request. The file is one token a line, so that a new one is live beside the old one
while callers change over; a file that goes away or holds none lets nobody in. Tokens are never logged, nor is what
somebody tried.
"""

import hashlib
import hmac
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from kapsel_console.errors import ProblemError, TokensError

HEADER: Final = "Kapsel-Token"  # for callers behind a proxy that keeps Authorization to itself, as the API server does
SCHEME: Final = "bearer "
LEAST: Final = 16  # characters
MOST_BYTES: Final = 65_536
_TOKEN: Final = re.compile(rf"[!-~]{{{LEAST},512}}", re.ASCII)

logger = logging.getLogger(__name__)


class Tokens:
    """The tokens in one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None  # of the file that was read last; None: it could not be
        self._digests: tuple[bytes, ...] = ()

    def load(self) -> None:
        """Read the file; raise TokensError if it gives no token, so that a console does not start in vain."""
        version = _version(self._path)
        self._digests = tuple(_digest(token) for token in parse(_content(self._path)))
        self._version = version

    def require(self, headers: Mapping[str, str]) -> None:
        """Let a request pass that brings a live token; raise ProblemError for any other."""
        self._refresh()
        given = offered(headers)
        if not given:
            raise ProblemError(
                "token_required", f"this console wants a token: `Authorization: Bearer TOKEN`, or `{HEADER}: TOKEN`"
            )
        if not any(self._matches(token) for token in given):
            raise ProblemError("token_wrong", "the token is none of this console's; it may have been rotated")

    def _matches(self, token: str) -> bool:
        digest = _digest(token)
        # All are compared, each in constant time: how long it takes tells nothing of them.
        return sum(hmac.compare_digest(digest, one) for one in self._digests) > 0

    def _refresh(self) -> None:
        """Read the file again if it is another one than before."""
        try:
            if self._version is not None and _version(self._path) == self._version:
                return
            self.load()
            logger.info("read the console's tokens again", extra={"tokens": len(self._digests)})
        except TokensError as error:
            if self._version is not None:
                logger.error("nobody is let in until there is a token: %s", error)
            self._version, self._digests = None, ()


def parse(content: bytes) -> list[str]:
    """Return the tokens of a file, one a line; raise TokensError if there is none or one is none."""
    try:
        lines = [line.strip() for line in content.decode("ascii").splitlines()]
    except UnicodeDecodeError:
        raise TokensError("it is not plain ASCII text") from None
    tokens = [line for line in lines if line]
    for number, line in enumerate(lines, 1):
        if line and not _TOKEN.fullmatch(line):
            raise TokensError(f"line {number} is no token: {LEAST} to 512 characters, without blanks")
    if not tokens:
        raise TokensError("it is empty; put one token on each line")
    return tokens


def offered(headers: Mapping[str, str]) -> list[str]:
    """Return the tokens that a request brings."""
    authorization = headers.get("Authorization", "")
    bearer = authorization[len(SCHEME) :] if authorization[: len(SCHEME)].lower() == SCHEME else ""
    return [token.strip() for token in (headers.get(HEADER, ""), bearer) if token.strip()]


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()


def _version(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise TokensError(f"it cannot be read: {error.strerror}") from error
    # A Secret that is mounted is replaced as a whole: another inode, perhaps with an older time.
    return found.st_ino, found.st_mtime_ns, found.st_size


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TokensError(f"it cannot be read: {error.strerror}") from error
    if len(content) > MOST_BYTES:
        raise TokensError(f"it is larger than {MOST_BYTES} bytes")
    return content
