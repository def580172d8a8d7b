"""A key in a token behind a PKCS#11 module: an HSM, a smart card, SoftHSM.

The mechanism is CKM_EDDSA without parameters, which is pure Ed25519. Modules write CKA_EC_POINT in two ways, as the raw
32 bytes or within a DER OCTET STRING; both are read. A session is kept, and given up after whatever error.

A module is a library in this process, and a process logs in to a token once: all calls to modules are made one after
another, for many modules take no two threads at once whatever they say.
"""

from threading import Lock
from typing import Any, Final

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_store.key_backends import Pkcs11Key

_LOCK: Final = Lock()
# PINs that a token did not take, with its module and label: a second try could only bring it nearer to its lock, for
# the same key or for another one, now or after the lead has come back. Another PIN is tried at once.
_REFUSED: Final[set[tuple[str, str, str]]] = set()
_OCTET_STRING: Final = b"\x04\x20"
_REMEDY: Final = "correct the Secret; if the token was given another PIN or unlocked instead, restart the attestor"


class TokenBackend:
    """One key pair."""

    def __init__(self, where: Pkcs11Key, pin: str) -> None:
        self._where = where
        self._pin = pin
        self._trial = (where.module, where.token_label, pin)
        self._session: Any = None

    def public_key(self) -> bytes:
        return self._with_session(self._read_point)

    def sign(self, message: bytes) -> bytes:
        return self._with_session(lambda session: self._sign(session, message))

    def _read_point(self, session: Any) -> bytes:
        from pkcs11 import Attribute, ObjectClass

        return point(bytes(self._key(session, ObjectClass.PUBLIC_KEY)[Attribute.EC_POINT]), str(self._where))

    def _sign(self, session: Any, message: bytes) -> bytes:
        from pkcs11 import Mechanism, ObjectClass

        return bytes(self._key(session, ObjectClass.PRIVATE_KEY).sign(message, mechanism=Mechanism.EDDSA))

    def _key(self, session: Any, kind: Any) -> Any:
        from pkcs11 import Attribute, KeyType

        where = self._where
        wanted = {Attribute.CLASS: kind, Attribute.KEY_TYPE: KeyType.EC_EDWARDS}
        if where.label is not None:
            wanted[Attribute.LABEL] = where.label
        if where.id is not None:
            wanted[Attribute.ID] = bytes.fromhex(where.id)
        # To the end: a search that is given up halfway stays open in the session.
        found = list(session.get_objects(wanted))
        if not found:
            raise SigningError(f"there is no Ed25519 key pair for {where}")
        if len(found) > 1:
            raise SigningError(f"several keys go by the name of {where}: name it by label and id")
        return found[0]

    def _with_session(self, work: Any) -> bytes:
        try:
            import pkcs11
            from pkcs11 import exceptions
        except ImportError as error:
            raise SigningError("a PKCS#11 token needs the package python-pkcs11: pip install '.[pkcs11]'") from error
        with _LOCK:
            if self._session is None and self._trial in _REFUSED:
                raise SigningError(
                    f"the token of {self._where} did not take the PIN, which is not tried again: {_REMEDY}"
                )
            try:
                if self._session is None:
                    self._session = self._open(pkcs11)
                return bytes(work(self._session))
            except (
                exceptions.PinIncorrect,
                exceptions.PinLocked,
                exceptions.PinInvalid,
                exceptions.PinExpired,
            ) as error:
                # Each wrong try counts, and some tokens lock themselves for good after three.
                _REFUSED.add(self._trial)
                raise SigningError(
                    f"the token of {self._where} does not take the PIN ({_name(error)}), which is not tried again: "
                    f"{_REMEDY}"
                ) from error
            except (exceptions.NoSuchToken, exceptions.MultipleTokensReturned) as error:
                raise SigningError(f"there is not exactly one token of the label {self._where.token_label}") from error
            except (exceptions.MechanismInvalid, exceptions.KeyTypeInconsistent) as error:
                raise SigningError(f"{self._where} does not sign with CKM_EDDSA ({_name(error)})") from error
            except (exceptions.PKCS11Error, RuntimeError) as error:
                self._forget()
                raise SignerAwayError(f"{self._where} does not sign now: {_name(error)}") from error

    def _open(self, pkcs11: Any) -> Any:
        try:
            library = pkcs11.lib(self._where.module)
        except RuntimeError as error:
            raise SigningError(f"the PKCS#11 module {self._where.module} cannot be loaded: {error}") from error
        token = library.get_token(token_label=self._where.token_label)
        try:
            return token.open(user_pin=self._pin)
        except pkcs11.exceptions.UserAlreadyLoggedIn:
            return token.open()  # another key of the same token: the process is logged in

    def _forget(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            try:
                session.close()
            except Exception:  # noqa: BLE001 - it is given up because it fails
                return


def point(encoded: bytes, where: str) -> bytes:
    """Return the 32 bytes of a CKA_EC_POINT, raw or within a DER OCTET STRING."""
    if len(encoded) == 34 and encoded.startswith(_OCTET_STRING):
        return encoded[2:]
    if len(encoded) == 32:
        return encoded
    raise SigningError(f"the public key of {where} is no Ed25519 point: it has {len(encoded)} bytes")


def _name(error: Exception) -> str:
    return str(error) or type(error).__name__
