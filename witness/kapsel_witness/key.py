"""The witness's key file: one line, the form in which golang.org/x/mod/sumdb/note keeps a signer.

    PRIVATE+KEY+<name>+<key id, hex>+<base64(0x01 || seed)>

It is made at the first start, with the name in it, and never changed: the name is in every cosignature. Other witnesses
read the form, so the key can move. `__main__` and the command line call `open_key`. Before a key comes an empty
state, so that a key without a state always means that a state was lost.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nacl.signing import SigningKey

from kapsel_verifier import note, strict
from kapsel_verifier.cosignature import WitnessKey
from kapsel_verifier.errors import MalformedKeyError
from kapsel_verifier.note import VerifierKey
from kapsel_witness import state
from kapsel_witness.errors import KeyFileError

FILE: Final = "key"
_PREFIX: Final = "PRIVATE+KEY+"
_SEED_SIZE: Final = 32


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """What the witness cosigns with."""

    public: WitnessKey
    signing: SigningKey

    def sign(self, message: bytes) -> bytes:
        """Return the raw signature."""
        return self.signing.sign(message).signature


def open_key(directory: Path, name: str | None) -> Key:
    """Return the key of the witness that lives in a directory, made if there is none yet and a name is given.

    Raises KeyFileError, also if the key there has another name.
    """
    path = directory / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return _made(path, name)
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileError(f"the key file {path} cannot be read: {error}") from error
    try:
        key = parse(text.removesuffix("\n"))
    except MalformedKeyError as error:
        raise KeyFileError(f"the key file {path} is damaged: {error}; put its copy back") from error
    if name is not None and name != key.public.name:
        raise KeyFileError(
            f"the witness in {directory} is called {key.public.name}, which is in every cosignature it made: "
            f"start it without a name, or give a new witness a directory of its own"
        )
    return key


def parse(text: str) -> Key:
    """Read the one line of a key file, without its newline; raises MalformedKeyError."""
    name, _, rest = text.removeprefix(_PREFIX).partition("+")
    identifier, _, encoded = rest.partition("+")
    secret = strict.base64(encoded, "the key", MalformedKeyError)
    if not text.startswith(_PREFIX) or secret[:1] != note.ED25519 or len(secret) != 1 + _SEED_SIZE:
        raise MalformedKeyError("it is not the private half of an Ed25519 key of a signer of notes")
    signing = SigningKey(secret[1:])
    public = bytes(signing.verify_key)
    if not note.is_key_name(name) or identifier != VerifierKey(name, public).key_id.hex():
        raise MalformedKeyError("its name or key id does not fit the key")
    return Key(WitnessKey(name, public), signing)


def encode(name: str, signing: SigningKey) -> str:
    """Return the line of a key file, without its newline."""
    identifier = VerifierKey(name, bytes(signing.verify_key)).key_id.hex()
    return f"{_PREFIX}{name}+{identifier}+{strict.to_base64(note.ED25519 + bytes(signing))}"


def _require_name(name: str) -> None:
    """Refuse what no new witness should be called: C2SP names keys by URLs without scheme, and names stay for good."""
    scheme, separator, rest = name.partition("://")
    if not separator and note.is_key_name(name):
        return
    better = rest.rstrip("/") if separator else "".join(name.split()).replace("+", "-")
    step = (
        f"take {better}" if note.is_key_name(better) and "://" not in better else "take one like witness.example.com/w1"
    )
    wrong = f"it begins with {scheme}://" if separator else "it has blanks or plus signs, is empty, or is too long"
    raise KeyFileError(f"{name!r} cannot be the name of a witness, which is a URL without scheme: {wrong}; {step}")


def _made(path: Path, name: str | None) -> Key:
    if name is None:
        raise KeyFileError(
            f"there is no key file {path} yet, and a new witness needs a name, such as witness.example.com/w1: a URL "
            f"without scheme, under a domain of yours"
        )
    _require_name(name)
    signing = SigningKey.generate()
    temporary = path.with_name(path.name + ".new")
    state.prepare(path.parent)
    try:
        temporary.unlink(missing_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(encode(name, signing) + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A crash here leaves no key: the next start makes another one, and nobody has seen this.
        path.hardlink_to(temporary)
        temporary.unlink()
        # Before anybody sees the key: after a power cut another one of the same name would be made without a word.
        state.sync(path.parent)
    except OSError as error:
        raise KeyFileError(f"the key file {path} cannot be made: {error.strerror}") from error
    return Key(WitnessKey(name, bytes(signing.verify_key)), signing)
