"""The Kubernetes API as a pod sees it: one request at a time with the token of its service account.

Called from threads by the fence and by what reports to the status. The standard library's client, which is loaded
anyway: an attestor needs three sorts of request and is a sidecar in every deliverer, where the package `kubernetes`
adds 12 MB to its 58. A connection serves one request, so a token or an authority that was renewed is used by the next.
"""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from kapsel_attestor.errors import FenceAwayError, RefusedError

TIMEOUT: Final = 5.0
MOST_BYTES: Final = 4_194_304  # above what etcd stores of one object
MERGE: Final = "application/merge-patch+json"
APPLY: Final = "application/apply-patch+yaml"  # of which JSON is a part

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the API server said."""

    status: int
    body: Document

    @property
    def message(self) -> str:
        """The server's own words."""
        return str(self.body.get("message", "")) or f"status {self.status}"


class ApiServer:
    """One API server, asked as one service account."""

    def __init__(self, url: str, account: Path) -> None:
        """Ask at `url` with what is mounted at `account`: `token` and `ca.crt`."""
        parts = urlsplit(url)
        self.url = url
        self._host = parts.hostname or ""
        self._port = parts.port or 443
        self._account = account

    def request(
        self, method: str, path: str, body: Document | None = None, *, form: str = "application/json"
    ) -> Answer:
        """Return the answer to one request, which is of the server's own making if it failed.

        Raises FenceAwayError if there is none or it is overloaded, RefusedError if the account may not do this.
        """
        token = self._mounted("token").read_text(encoding="ascii").strip()
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/json", "User-Agent": "kapsel-attestor"}
        if body is not None:
            headers["Content-Type"] = form
        try:
            answer = self._exchange(method, path, None if body is None else json.dumps(body), headers)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise FenceAwayError(f"the Kubernetes API at {self.url} does not answer: {reason}") from error
        if answer.status == 429 or answer.status >= 500:
            raise FenceAwayError(f"the Kubernetes API at {self.url} cannot serve: {answer.message}")
        if answer.status in (401, 403):
            raise RefusedError(f"the Kubernetes API refuses {method} {path.partition('?')[0]}: {answer.message}")
        return answer

    def _exchange(self, method: str, path: str, body: str | None, headers: Mapping[str, str]) -> Answer:
        context = ssl.create_default_context(cafile=str(self._mounted("ca.crt")))
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT, context=context)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            content = response.read(MOST_BYTES)
        finally:
            connection.close()
        return Answer(status=response.status, body=_document(response, content))

    def _mounted(self, name: str) -> Path:
        path = self._account / name
        if not path.is_file():
            raise RefusedError(f"{path} does not exist: mount the token of the service account there")
        return path


def _document(response: http.client.HTTPResponse, content: bytes) -> Document:
    """Return the JSON of an answer; what says that a path is unknown is plain text."""
    if "json" not in response.headers.get("Content-Type", ""):
        return {"message": content.decode(errors="replace").strip()[:200]}
    document = json.loads(content)
    if not isinstance(document, dict):
        raise ValueError("the answer is not an object")
    return document
