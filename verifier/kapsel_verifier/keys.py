"""Keys that somebody decided to trust, as given on a command line or in a key set file.

They come from the auditor, never from a proof. The console publishes a log's key set at /.well-known/kapsel/keys.json;
fetching it over a channel one trusts, and keeping it, is the auditor's act. Who holds one key of a log need not trust
the set: `follow` takes from it the keys that this one announced, and their successors, each signed by the one before.
"""

import json
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
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
    succession: bytes | None = None  # the leaf in which the log announced the key: a claim unless `follow` returned it

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
    try:
        return TrustedKey(public_key=strict.hexadecimal(text.lower(), 32, "the public key", MalformedKeyError))
    except MalformedKeyError:
        raise MalformedKeyError("the public key is neither a vkey nor 64 hex digits") from None


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


def encode_jwks(keys: Iterable[TrustedKey]) -> bytes:
    """Write a JSON Web Key Set (RFC 7517, RFC 8037), `kid` is the key id; raises MalformedKeyError for a bare key."""
    return json.dumps({"keys": [_to_jwk(key) for key in keys]}, indent=2).encode("ascii") + b"\n"


def follow(trusted: Iterable[TrustedKey], offered: Iterable[TrustedKey]) -> tuple[TrustedKey, ...]:
    """Return the trusted keys, and those of the offered that follow from them link by link.

    A link is a leaf in which a key announces the next, signed by both. The successor is trusted from the date in it,
    and the predecessor no longer than it says there. Nothing else of what is offered is trusted, nor are its dates.
    Raises SignatureError if a link that begins at a trusted key does not hold, MalformedLeafError or TooLargeError if
    one is no leaf: nobody can tell where that would begin.
    """
    from kapsel_verifier.statements import KeySuccession, parse

    leaves = [key.succession for key in offered if key.succession is not None]
    links = [(link, leaf) for leaf in leaves if isinstance(link := parse(leaf), KeySuccession)]
    announced: dict[bytes, list[int]] = {}  # predecessor -> its links
    for number, (link, _) in enumerate(links):
        announced.setdefault(link.predecessor.public_key, []).append(number)
    followed = list(trusted)
    places: dict[bytes, list[int]] = {}  # public key -> where it stands among the followed
    for place, key in enumerate(followed):
        places.setdefault(key.public_key, []).append(place)
    waiting = [number for public_key in places for number in announced.get(public_key, ())]
    heapify(waiting)  # in the order in which they are offered
    taken = set()
    while waiting:
        number = heappop(waiting)
        link, leaf = links[number]
        begins = [
            place
            for place in places[link.predecessor.public_key]
            if followed[place].under(link.origin) == link.predecessor
        ]
        if number in taken or not any(followed[place].is_valid_at(link.timestamp) for place in begins):
            continue
        taken.add(number)
        link.verify()
        for place in begins:  # the key may be trusted in more than one way, and it ends as a whole
            followed[place] = _until(followed[place], link.predecessor_not_after)
        known = places.setdefault(link.successor.public_key, [])
        if all(link.successor != followed[place].under(link.origin) for place in known):
            known.append(len(followed))
            followed.append(TrustedKey(link.successor.public_key, link.origin, link.not_before, succession=leaf))
            for further in announced.get(link.successor.public_key, ()):
                heappush(waiting, further)
    return tuple(followed)


def _until(key: TrustedKey, not_after_ms: int) -> TrustedKey:
    if not_after_ms == strict.MAX_INTEGER:  # nothing was decided when the successor was announced
        return key
    return key._replace(not_after_ms=not_after_ms if key.not_after_ms is None else min(key.not_after_ms, not_after_ms))


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
    return tuple(_from_json(item, f"keys[{number}] of the key set") for number, item in enumerate(value["keys"]))


def _from_json(item: Any, what: str) -> TrustedKey:
    if type(item) is not dict:
        raise MalformedKeyError(f"{what} is not an object")
    full = {"not_before_ms": None, "not_after_ms": None, "succession": None, **item}
    known = ("not_before_ms", "not_after_ms", "succession", "vkey")
    strict.members(full, known, what, MalformedKeyError)
    key = VerifierKey.parse(strict.string(full["vkey"], f"the vkey of {what}", MalformedKeyError))
    return TrustedKey(
        public_key=key.public_key,
        name=key.name,
        not_before_ms=_instant(full, "not_before_ms", what),
        not_after_ms=_instant(full, "not_after_ms", what),
        succession=_leaf(full["succession"], f"the succession of {what}"),
    )


def _instant(key: dict[str, Any], name: str, what: str) -> int | None:
    return None if key[name] is None else strict.integer(key[name], f"the {name} of {what}", MalformedKeyError)


def _leaf(value: object, what: str) -> bytes | None:
    if value is None:
        return None
    return strict.base64(strict.string(value, what, MalformedKeyError), what, MalformedKeyError)


def _to_json(key: TrustedKey) -> dict[str, str | int | None]:
    if key.name is None:
        raise MalformedKeyError("a key without a name cannot be published, nobody could tell which log it is for")
    return {
        "vkey": VerifierKey(key.name, key.public_key).encode(),
        "not_before_ms": key.not_before_ms,
        "not_after_ms": key.not_after_ms,
        "succession": None if key.succession is None else strict.to_base64(key.succession),
    }


def _to_jwk(key: TrustedKey) -> dict[str, str | int]:
    if key.name is None:
        raise MalformedKeyError("a key without a name cannot be published, nobody could tell which log it is for")
    jwk: dict[str, str | int] = {
        "kty": "OKP",
        "crv": "Ed25519",
        "alg": "EdDSA",
        "use": "sig",
        "kid": VerifierKey(key.name, key.public_key).key_id.hex(),
        "x": strict.to_base64url(key.public_key),
        "origin": key.name,
    }
    # In seconds, as JWTs have them; rounded so that no head falls out.
    if key.not_before_ms is not None:
        jwk["nbf"] = key.not_before_ms // 1000
    if key.not_after_ms is not None:
        jwk["exp"] = -(-key.not_after_ms // 1000)
    return jwk
