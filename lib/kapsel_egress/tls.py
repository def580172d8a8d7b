"""TLS towards others: which authorities are trusted, and what we prove ourselves with.

The plan asks `authorities` and `certificate` whether what a Secret holds can be used at all, the deliverer makes its
connections with `context`: what was accepted once works.
"""

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

MinVersion = Literal["1.2", "1.3"]

_VERSIONS: Final = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


def context(
    *,
    ca: bytes | None = None,
    certificate: bytes | None = None,
    min_version: MinVersion = "1.2",
    also_trusted: Path | None = None,
) -> ssl.SSLContext:
    """Return a client's context; raise ValueError for PEM that cannot be used.

    Trusted are the authorities of `ca` alone, or, without it, the system's and those of the file `also_trusted`.
    """
    made = ssl.create_default_context() if ca is None else _empty()
    made.minimum_version = _VERSIONS[min_version]
    if ca is not None:
        _trust(made, ca)
    elif also_trusted is not None:
        made.load_verify_locations(also_trusted)
    if certificate is not None:
        _prove(made, certificate)
    return made


def authorities(pem: bytes) -> None:
    """Raise ValueError unless this is one certificate or more in PEM."""
    _trust(_empty(), pem)


def certificate(pem: bytes) -> None:
    """Raise ValueError unless this is a private key without a password and the certificates that belong to it."""
    _prove(_empty(), pem)


def _empty() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _trust(made: ssl.SSLContext, pem: bytes) -> None:
    try:
        made.load_verify_locations(cadata=_text(pem))
    except ssl.SSLError as error:
        raise ValueError("there is no certificate in it that can be read") from error


def _prove(made: ssl.SSLContext, pem: bytes) -> None:
    with _file(pem) as path:
        try:
            made.load_cert_chain(path, password="")  # else it would ask on the terminal
        except ssl.SSLError as error:
            mismatch = error.reason == "KEY_VALUES_MISMATCH"
            wrong = "the key does not belong to the certificate" if mismatch else "key and certificate cannot be read"
            raise ValueError(wrong) from error


def _text(pem: bytes) -> str:
    try:
        return pem.decode("ascii")
    except UnicodeDecodeError as error:
        raise ValueError("it is not PEM, which is text") from error


@contextmanager
def _file(content: bytes) -> Iterator[str]:
    """Give bytes a path, for OpenSSL reads a key from nowhere else; where the system can, they never touch a disk."""
    if hasattr(os, "memfd_create"):
        with os.fdopen(os.memfd_create("kapsel"), "wb") as memory:
            memory.write(content)
            memory.flush()
            yield f"/proc/self/fd/{memory.fileno()}"
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name
