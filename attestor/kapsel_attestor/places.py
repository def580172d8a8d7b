"""Where the settings say that the fence of the log is kept, and with it where its status is told."""

from pathlib import Path
from typing import Protocol

from kapsel_attestor.api_server import ApiServer
from kapsel_attestor.errors import RefusedError
from kapsel_attestor.fence import Fence, FileFence
from kapsel_attestor.kubernetes_fence import KubernetesFence
from kapsel_attestor.settings import AttestorSettings
from kapsel_attestor.status_report import Reporter
from kapsel_store.rows import LogRow


class Place(Protocol):
    """A place for fences."""

    reporter: Reporter | None

    def open(self, row: LogRow) -> Fence:
        """Return the fence of a log; raise RefusedError if this is not the place of its fence."""


class Files:
    """One file, of one log at a time: its content says which."""

    reporter: Reporter | None = None

    def __init__(self, file: Path) -> None:
        self._file = file

    def open(self, row: LogRow) -> Fence:
        return FileFence(self._file, row.origin)


class Statuses:
    """The status of one AttestationLog, which is the fence of the log that it declares and of no other."""

    def __init__(self, api: ApiServer, namespace: str, name: str) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name
        self.reporter: Reporter | None = Reporter(api, namespace, name)

    def open(self, row: LogRow) -> Fence:
        if (row.namespace, row.name) != (self._namespace, self._name):
            raise RefusedError(
                f"the log to keep is AttestationLog {row.namespace}/{row.name}, and KAPSEL_ATTESTOR_FENCE_LOG names "
                f"{self._namespace}/{self._name}: set it to {row.namespace}/{row.name}, for a fence guards its own log "
                f"alone"
            )
        return KubernetesFence(self._api, self._namespace, self._name, row.origin)


def place(settings: AttestorSettings) -> Place:
    """Return the place that the settings name."""
    if settings.attestor_fence_file is not None:
        return Files(settings.attestor_fence_file)
    namespace, _, name = (settings.attestor_fence_log or "").partition("/")
    return Statuses(ApiServer(settings.attestor_api_server or "", settings.attestor_service_account), namespace, name)
