"""What is answered, and how it goes out: one write of a whole HTTP/1.1 message (RFC 9112).

`app` makes answers, `connection` sends them. That of an accepted webhook is the one that must cost least: of its bytes
only two ids and the date ever change.
"""

import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Final, NamedTuple
from uuid import UUID

from kapsel_store.rows import Scheme

SERVER: Final = "kapsel"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_STATUS_LINES: Final = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}
_NO_CONTENT: Final = 204
_ACCEPTED: Final = 202
# What a provider must hear of a webhook that was accepted, where any other success would have it send again, or in the
# end send nothing more. docs/receiving.md has a column of this.
DEMANDED: Final[Mapping[Scheme, int]] = {
    "discord": _NO_CONTENT,
    "docusign": 200,
    "dropbox": 200,
    "gitlab": 200,
    "linear": 200,
    "meta": 200,
    "okta": _NO_CONTENT,
    "paddle": 200,
    "slack": 200,
    "twilio": _NO_CONTENT,
    "x": 200,
    "zoom": 200,
}
# Slack would take a body for the answer to a command or a dialogue; the others have a status that allows none.
BODILESS: Final[frozenset[Scheme]] = frozenset({"discord", "okta", "slack", "twilio"})


class Answer(NamedTuple):
    """One answer."""

    status: int
    headers: str  # whole lines; those of the framing and the date are left out
    body: bytes = b""
    close: bool = False  # what follows on the connection cannot be trusted, or is not worth reading


def lines(correlation_id: str, headers: Mapping[str, str]) -> str:
    """Return the header lines of any answer but that of an accepted webhook."""
    named = {"Server": SERVER, "X-Correlation-Id": correlation_id, **headers}
    return "".join([f"{name}: {value}\r\n" for name, value in named.items()])


def accepted(event_id: UUID, *, duplicate: bool, correlation_id: str, scheme: Scheme) -> Answer:
    """Say that the event is durable; a duplicate hears exactly what the first one heard, but for one header."""
    status = DEMANDED.get(scheme, _ACCEPTED)
    replayed = "Idempotent-Replayed: true\r\n" if duplicate else ""
    if scheme in BODILESS:
        return Answer(status, f"X-Correlation-Id: {correlation_id}\r\nX-Event-Id: {event_id}\r\n{replayed}")
    return Answer(
        status,
        f"Content-Type: application/json\r\nX-Correlation-Id: {correlation_id}\r\n{replayed}",
        b'{"id": "%s"}' % str(event_id).encode(),
    )


def wire(answer: Answer, *, stays: bool, http_1_0: bool = False, head: bool = False) -> bytes:
    """Return the whole message.

    `stays` says whether the connection stays open after it, `http_1_0` whether the sender has to be told so, `head`
    that it asked for no body.
    """
    status, headers, body, _ = answer
    length = "" if status == _NO_CONTENT else f"Content-Length: {len(body)}\r\n"
    connection = "" if stays and not http_1_0 else f"Connection: {'keep-alive' if stays else 'close'}\r\n"
    message = f"{_STATUS_LINES[status]}{headers}{length}{connection}Date: {_date()}\r\n\r\n".encode("latin-1")
    return message if head else message + body


class _Clock:
    """The date as HTTP writes it, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


_date = _Clock()
