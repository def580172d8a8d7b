"""The fence as the status of an AttestationLog: outside the database, and swapped by the API server's own rule.

Every object has a resource version, and a patch that names one is refused if the object has moved on. So a swap reads,
compares and patches, and of two attestors one passes. The patch names the fence and nothing else: it can take nothing
back that others, or this attestor's own reports, write into the same status.
"""

import json
from typing import Any, Final

from kapsel_attestor.api_server import MERGE, ApiServer, Document
from kapsel_attestor.errors import FenceAwayError, FenceMovedError, RefusedError
from kapsel_attestor.fence import Fenced
from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedProofError
from kapsel_verifier.merkle import HASH_SIZE

API_VERSION: Final = "kapsel.dev/v1alpha1"
MANAGER: Final = "kapsel-attestor"
TRIES: Final = 10  # others write into the same object, and each of their writes costs one
_MEMBERS: Final = ("origin", "treeSize", "rootHash", "timestampMs")


def status_path(namespace: str, name: str) -> str:
    """Return where the status of an AttestationLog is read and patched."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/attestationlogs/{name}/status"


def document(fenced: Fenced) -> dict[str, str | int]:
    """Return a fence as it stands in the status."""
    values = (fenced.origin, fenced.tree_size, fenced.root.hex(), fenced.timestamp_ms)
    return dict(zip(_MEMBERS, values, strict=True))


def parse(value: object) -> Fenced:
    """Read a fence from a status; raise ValueError that says what is wrong with it."""
    if not isinstance(value, dict):
        raise ValueError("it is not an object")
    try:
        strict.members(value, _MEMBERS, "it", MalformedProofError)
        return Fenced(
            origin=strict.string(value["origin"], "origin", MalformedProofError),
            tree_size=strict.integer(value["treeSize"], "treeSize", MalformedProofError),
            root=strict.hexadecimal(value["rootHash"], HASH_SIZE, "rootHash", MalformedProofError),
            timestamp_ms=strict.integer(value["timestampMs"], "timestampMs", MalformedProofError),
        )
    except MalformedProofError as error:
        raise ValueError(str(error)) from error


class KubernetesFence:
    """The fence of one log in the status of one AttestationLog; blocking, so called from a thread."""

    def __init__(self, api: ApiServer, namespace: str, name: str, origin: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self._origin = origin
        self._path = status_path(namespace, name)

    def __str__(self) -> str:
        return f"the fence in the status of AttestationLog {self._namespace}/{self._name}"

    def remedy(self, fenced: Fenced) -> str:
        """Return what a person does who is sure that this is the newest head."""
        patch = json.dumps({"status": {"fence": document(fenced)}})
        command = f"kubectl patch attestationlog {self._name} -n {self._namespace} --subresource=status --type=merge"
        return f"run: {command} -p '{patch}'"

    def read(self) -> Fenced | None:
        """Return the fenced head, None if there is none yet; raise RefusedError if that cannot be told."""
        return self._fenced(self._object())

    def swap(self, old: Fenced | None, new: Fenced) -> None:
        """Replace `old` by `new`, durably; raise FenceMovedError, and change nothing, if another attestor was first."""
        unanswered = False
        for _ in range(TRIES):
            found = self._object()
            fenced = self._fenced(found)
            if unanswered and fenced == new:
                return  # the answer was lost, and not the swap
            if fenced != old:
                raise FenceMovedError(f"another attestor has passed {self}")
            patch = {"metadata": {"resourceVersion": _version(found)}, "status": {"fence": document(new)}}
            try:
                answer = self._api.request("PATCH", f"{self._path}?fieldManager={MANAGER}", patch, form=MERGE)
            except FenceAwayError:
                unanswered = True
                continue
            if answer.status == 200:
                # A crash from here on leaves the fence before the heads, by one that nobody has seen.
                return
            if answer.status != 409:
                raise RefusedError(f"{self} cannot be moved: {answer.message}")
            # Somebody wrote in between. Whether it was the fence, the next look tells.
        raise FenceAwayError(f"{self} could not be moved in {TRIES} tries")

    def _object(self) -> Document:
        answer = self._api.request("GET", self._path)
        if answer.status == 404:
            raise RefusedError(
                f"there is no AttestationLog {self._namespace}/{self._name} to hold the fence ({answer.message}): "
                f"apply it, with the status that it had if heads were ever signed"
            )
        if answer.status != 200:
            raise RefusedError(f"{self} cannot be read: {answer.message}")
        return answer.body

    def _fenced(self, found: Document) -> Fenced | None:
        status: Any = found.get("status") or {}
        value = status.get("fence")
        if value is None:
            return None
        try:
            fenced = parse(value)
        except ValueError as error:
            raise RefusedError(
                f"{self} is damaged ({error}): put its newest content back; do not delete it, it is what keeps a "
                f"restored database from being signed"
            ) from error
        if fenced.origin != self._origin:
            raise RefusedError(
                f"{self} belongs to the log {fenced.origin}, not to {self._origin}: give each log an AttestationLog of "
                f"its own"
            )
        return fenced


def _version(found: Document) -> str:
    return str(found["metadata"]["resourceVersion"])
