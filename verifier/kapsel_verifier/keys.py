"""Keys that somebody decided to trust, as given on a command line or in a key set file.

They come from the auditor, never from a proof. The console publishes a log's key set at /.well-known/kapsel/keys.json;
fetching it over a channel one trusts, and keeping it, is the auditor's act.
"""

import json
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from kapsel_verifier import strict
from kapsel_verifier.errors import MalformedKeyError, TooLargeError
from kapsel_verifier.note import VerifierKey

MAX_KEY_SET_SIZE: Final = 262_144  # bytes


class TrustedKey(NamedTuple):
    """A public key to trust, for one log or, without a name, for whatever log is signed with it."""

    public_key: bytes  # 32 bytes
    name: str | None = None  # the log's origin; None for a bare key
    not_before_ms: int | None = None  # heads dated earlier are refused; milliseconds since 1970-01-01 UTC
    not_after_ms: int | None = None  # heads dated later are refused

    def under(self, origin: str) -> VerifierKey | None:
        """Return the key as it would sign for this origin, or None if it is trusted for another one."""
        return VerifierKey(origin, self.public_key) if self.name in (None, origin) else None

    def is_valid_at(self, timestamp_ms: int) -> bool:
        """Say whether a head of this date may be signed with the key."""
        return (self.not_before_ms is None or self.not_before_ms <= timestamp_ms) and (
            self.not_after_ms is None or timestamp_ms <= self.not_after_ms
        )


def parse_key(text: str) -> TrustedKey:
    """Read 64 hex digits (a bare key) or a vkey; raises MalformedKeyError."""
    text = text.strip()
    if "+" in text:
        key = VerifierKey.parse(text)
        return TrustedKey(public_key=key.public_key, name=key.name)
    return TrustedKey(public_key=strict.hexadecimal(text.lower(), 32, "the public key", MalformedKeyError))


def parse_key_set(data: bytes) -> tuple[TrustedKey, ...]:
    """Read a key set: either JSON, or lines of vkeys with blank lines and # comments.

    Raises MalformedKeyError (also for an empty set) or TooLargeError (beyond 256 KiB).
    """
    if len(data) > MAX_KEY_SET_SIZE:
        raise TooLargeError("the key set", MAX_KEY_SET_SIZE)
    keys = _parse_json(data) if data.lstrip().startswith(b"{") else _parse_lines(data)
    if not keys:
        raise MalformedKeyError("the key set holds no key")
    return keys


def encode_key_set(keys: Iterable[TrustedKey]) -> bytes:
    """Write the JSON form, to be served at /.well-known/kapsel/keys.json; raises MalformedKeyError for a bare key."""
    return json.dumps({"keys": [_to_json(key) for key in keys]}, indent=2).encode("ascii") + b"\n"


def _parse_lines(data: bytes) -> tuple[TrustedKey, ...]:
    try:
        lines = [line.strip() for line in data.decode("utf-8").split("\n")]
    except UnicodeDecodeError:
        raise MalformedKeyError("the key set is not UTF-8") from None
    vkeys = (VerifierKey.parse(line) for line in lines if line and not line.startswith("#"))
    return tuple(TrustedKey(public_key=key.public_key, name=key.name) for key in vkeys)


def _parse_json(data: bytes) -> tuple[TrustedKey, ...]:
    value = strict.json_object(data, "the key set", MalformedKeyError)
    strict.members(value, ("keys",), "the key set", MalformedKeyError)
    if type(value["keys"]) is not list:
        raise MalformedKeyError("the keys of the key set are not a list")
    return tuple(_from_json(item) for item in value["keys"])


def _from_json(item: Any) -> TrustedKey:
    if type(item) is not dict:
        raise MalformedKeyError("a key of the key set is not an object")
    full = {"not_before_ms": None, "not_after_ms": None, **item}
    strict.members(full, ("not_before_ms", "not_after_ms", "vkey"), "a key of the key set", MalformedKeyError)
    key = VerifierKey.parse(strict.string(full["vkey"], "a vkey of the key set", MalformedKeyError))
    return TrustedKey(
        public_key=key.public_key,
        name=key.name,
        not_before_ms=_instant(full["not_before_ms"]),
        not_after_ms=_instant(full["not_after_ms"]),
    )


def _instant(value: object) -> int | None:
    return None if value is None else strict.integer(value, "a time in the key set", MalformedKeyError)


def _to_json(key: TrustedKey) -> dict[str, str | int | None]:
    if key.name is None:
        raise MalformedKeyError("a key without a name cannot be published, nobody could tell which log it is for")
    return {
        "vkey": VerifierKey(key.name, key.public_key).encode(),
        "not_before_ms": key.not_before_ms,
        "not_after_ms": key.not_after_ms,
    }
