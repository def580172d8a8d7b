"""One TLS context for each way of connecting that destinations declare, shared by those that declare the same.

`targets` asks for them. Connections are pooled by their context, so what was made with one client certificate, or by
one destination's authorities, never carries a webhook of another.
"""

import ssl
from collections.abc import Mapping
from pathlib import Path

from kapsel_egress import tls
from kapsel_store.rows import Tls

_Way = tuple[bytes | None, bytes | None, tls.MinVersion]  # authorities, certificate with its key, lowest version


def trusted(ca_file: Path | None) -> ssl.SSLContext:
    """Return the context of all that declare nothing: it trusts the system's authorities and those of the file."""
    return tls.context(also_trusted=ca_file)


class Contexts:
    """The contexts of one configuration; `follow` keeps those that the next one needs."""

    def __init__(self, ca_file: Path | None = None) -> None:
        self._ca_file = ca_file
        self._known: dict[_Way, ssl.SSLContext] = {}
        self._used: dict[_Way, ssl.SSLContext] = {}

    def get(self, declared: Tls | None, secrets: Mapping[str, bytes]) -> ssl.SSLContext | None:
        """Return a context, None for that of all; raise KeyError if a secret is absent, ValueError if it is no PEM."""
        if declared is None:
            return None
        way = (
            None if declared.ca_name is None else secrets[declared.ca_name],
            None if declared.certificate_name is None else secrets[declared.certificate_name],
            declared.min_version,
        )
        found = self._known.get(way) or self._used.get(way)
        if found is None:
            ca, certificate, version = way
            found = tls.context(ca=ca, certificate=certificate, min_version=version, also_trusted=self._ca_file)
        self._used[way] = found
        return found

    def follow(self) -> None:
        """Forget what nobody has asked for since the last time."""
        self._known, self._used = self._used, {}
