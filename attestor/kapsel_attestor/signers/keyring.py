"""The versions of a log's key, opened: each with its public half and the gate to its private half.

The leader's succession asks before every head, so a rotated key takes effect with the next one. What is remembered from
one asking to the next are gates, sessions and tokens; a row that was changed is opened anew.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from kapsel_attestor.errors import LateError
from kapsel_attestor.signers.backends import Backend, Identity, backend_of
from kapsel_attestor.signers.gate import DEADLINE, FIRST_WAIT, Gate
from kapsel_attestor.signers.signer import Signer
from kapsel_store.rows import Configuration, KeyRow, LogRow
from kapsel_verifier.note import VerifierKey


@dataclass(frozen=True, slots=True)
class Opened:
    """What there is to sign with."""

    signers: tuple[Signer, ...]  # the oldest version first
    troubles: tuple[LateError, ...]  # of versions whose public half nobody knows yet


@dataclass(slots=True)
class _Known:
    row: KeyRow
    backend: Backend
    gate: Gate
    public_key: bytes | None = None


class Keyring:
    """Opens keys, and keeps them open."""

    def __init__(self, identity: Identity, *, deadline: float = DEADLINE, first_wait: float = FIRST_WAIT) -> None:
        """Open keys as `identity`, where the keys do not say how; `deadline` and `first_wait` are for their gates."""
        self._identity = identity
        self._deadline = deadline
        self._first_wait = first_wait
        self._known: dict[UUID, _Known] = {}

    async def open(self, configuration: Configuration, log: LogRow, public_keys: Mapping[UUID, bytes]) -> Opened:
        """Return all versions that can sign; `public_keys` are those that the log has been signed with, by row."""
        rows = [row for row in log.versions(configuration.keys) if row.backend is not None or len(row.secret) == 32]
        self._known = {row.id: self._opened(row) for row in rows}
        signers, troubles = [], []
        for row in rows:
            known = self._known[row.id]
            name = str(row.backend or f"version {row.version} of SigningKey {row.namespace}/{row.name}")
            try:
                # What was pinned counts, and not what the other side says now.
                public = public_keys.get(row.id) or known.public_key or await self._ask(name, known)
            except LateError as error:
                troubles.append(error)
                continue
            signers.append(
                Signer(
                    key=VerifierKey(log.origin, public),
                    key_id=row.id,
                    where=name,
                    not_before=row.not_before,
                    not_after=row.not_after,
                    backend=known.backend,
                    gate=known.gate,
                )
            )
        return Opened(tuple(signers), tuple(troubles))

    def _opened(self, row: KeyRow) -> _Known:
        known = self._known.get(row.id)
        if known is not None and (known.row.backend, known.row.secret) == (row.backend, row.secret):
            return known
        return _Known(row, backend_of(row, self._identity), Gate(self._deadline, self._first_wait))

    async def _ask(self, name: str, known: _Known) -> bytes:
        known.public_key = await known.gate.call(name, known.backend.public_key)
        return known.public_key
