"""One request and one answer to a service that holds keys: what its failures mean is the same for all of them.

The standard library's client, as for the Kubernetes API: it blocks, and is called from a thread. No redirect is
followed and no proxy is asked: a credential goes to the host that the manifest names and to no other.
"""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from kapsel_attestor.errors import SignerAwayError, SigningError

TIMEOUT: Final = 4.0  # seconds that one step of the exchange may take
MOST_BYTES: Final = 262_144


@dataclass(frozen=True, slots=True)
class Answer:
    """What a service said."""

    status: int
    body: Mapping[str, Any]

    def text(self, *path: str) -> str:
        """Return the string at a path; raise SigningError if there is none, for then this is another service."""
        found: Any = self.body
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if not isinstance(found, str):
            raise SigningError(f"the answer has no {'.'.join(path)}: is the address that of such a service?")
        return found


class Service:
    """One server, and the authority that signs for it."""

    def __init__(self, name: str, url: str, authority: str | None = None) -> None:
        """Ask at `url`, which has no path; `authority` is PEM, without it the system's are trusted."""
        self.name = name
        self.url = url
        self.host = urlsplit(url).netloc
        self._authority = authority

    def request(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None) -> Answer:
        """Return an answer of 200 to 499 but 429; raise SignerAwayError if there is none or it is overloaded."""
        try:
            status, content = self._exchange(method, path, headers, body)
        except (OSError, http.client.HTTPException) as error:
            # A certificate that is not trusted is told here too: it may be the clock, or be renewed in a moment.
            reason = str(error) or type(error).__name__
            raise SignerAwayError(f"{self.name} at {self.url} does not answer: {reason}") from error
        except ValueError:
            # Not chained: the error quotes the header, which is the secret.
            raise SigningError(
                f"what opens {self.name} at {self.url} cannot be sent: it has a line break, or no text"
            ) from None
        answer = Answer(status, _object(content))
        if status == 429 or status >= 500:
            raise SignerAwayError(f"{self.name} at {self.url} cannot serve: status {status} {problem(answer)}".rstrip())
        if 300 <= status < 400:
            raise SigningError(f"{self.name} at {self.url} redirects, which is not followed: correct the address")
        return answer

    def _exchange(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> tuple[int, bytes]:
        connection = self._connection()
        try:
            connection.request(method, path, body, {"Accept": "application/json", **headers})
            response = connection.getresponse()
            return response.status, response.read(MOST_BYTES)
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port or 80, timeout=TIMEOUT)
        try:
            context = ssl.create_default_context(cadata=self._authority)
        except (ssl.SSLError, ValueError) as error:
            raise SigningError(f"the authority of {self.name} is no certificate in PEM: {error}") from error
        return http.client.HTTPSConnection(host, parts.port or 443, timeout=TIMEOUT, context=context)


def _object(content: bytes) -> Mapping[str, Any]:
    """Return the members of an answer; what is no JSON, such as the page of a proxy, has none."""
    try:
        parsed = json.loads(content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def problem(answer: Answer) -> str:
    """Return the service's own words for what is wrong, cut short."""
    body = answer.body
    found = body.get("errors") or body.get("message") or body.get("Message") or body.get("error") or body.get("Error")
    if isinstance(found, dict):
        found = found.get("message") or found.get("Message")
    if isinstance(found, list):
        found = "; ".join(map(str, found))
    kind = body.get("__type") or body.get("error_description")
    return ": ".join(str(part) for part in (kind, found) if part)[:300]
