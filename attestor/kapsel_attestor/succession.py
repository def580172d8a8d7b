"""Which keys sign a log: all that are live, each announced in the log before it signs, and none again once it ended.

The leader asks `Succession.signers` before every head and has `run` announce new keys; what both come to is `decide`,
which is pure. The rules, so that who trusts the first key of a log can follow to the last:

- The first head of a log is signed by the oldest live version of its key.
- Every other key is announced by a leaf that a key of the log and the new one have signed, with the date from which it
  signs.
- While several are live, every head carries the signatures of all of them: nobody has to switch on a day.
- A key that left the configuration has ended, at the date of the last head, and never signs again.
- If no key that the log knows is left, nothing is signed: a key out of nowhere would look like a theft, and may be one.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from kapsel_attestor.beside import Led
from kapsel_attestor.errors import LateError, SignerAwayError, SigningError
from kapsel_attestor.sequencer import Note
from kapsel_attestor.signers.keyring import Keyring
from kapsel_attestor.signers.signer import Signer
from kapsel_attestor.status_report import Condition
from kapsel_runtime.backoff import patient
from kapsel_store import configuration, log_keys, tlog
from kapsel_store.configuration import Source
from kapsel_store.database import Connection
from kapsel_store.ids import milliseconds
from kapsel_store.log_keys import LogKey
from kapsel_store.rows import LogRow
from kapsel_verifier.note import VerifierKey
from kapsel_verifier.statements import KeySuccession
from kapsel_verifier.strict import MAX_INTEGER

LOOK: Final = 1.0  # seconds between looks at whether there is a new key
_SALT: Final = 32  # bytes
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

State = Callable[[bytes, Note], Awaitable[None]]  # puts a leaf into the log

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roll:
    """What follows from the keys that a log had and those that are configured."""

    signing: tuple[Signer, ...]  # all of them sign the next head, the oldest key of the log first
    announce: tuple[Signer, Signer] | None  # a key of the log, and the one to announce
    ended: tuple[LogKey, ...]  # keys that sign no more
    troubles: tuple[
        LateError, ...
    ] = ()  # of configured keys that do not sign: nobody could look at them, or they ended
    is_settled: bool = False  # every configured key is known to the log
    dated_ms: int = 0  # what an announcement is dated by: as heads are, so that the key before it is valid by then


def decide(
    row: LogRow,
    history: Sequence[LogKey],
    signers: Sequence[Signer],
    now: datetime,
    *,
    last_ms: int = 0,
    troubles: tuple[LateError, ...] = (),
) -> Roll:
    """Return who signs now, who is to be announced and who has ended; raise SigningError if nobody may sign.

    `last_ms` is the date of the last head: the next one is later, whatever the clock says.
    """
    configured = {signer.key.public_key: signer for signer in signers if not signer.is_over(now)}
    live = [signer for signer in configured.values() if signer.is_live(now)]
    if not live:
        raise SigningError(
            f"the log {row.origin} has no key to sign with: the SigningKey {row.namespace}/{row.key_name} needs a live "
            f"version with algorithm Ed25519 and its private half"
        )
    if not history:
        return Roll(signing=(live[0],), announce=None, ended=(), troubles=troubles)
    known = {one.public_key: one for one in history}
    dated_ms = max(milliseconds(now), last_ms + 1)
    back = tuple(
        _has_ended(row, signer, record.not_after_ms)
        for signer in live
        if (record := known.get(signer.key.public_key)) is not None and record.not_after_ms is not None
    )
    active = [one for one in history if one.not_after_ms is None]
    signing = tuple(
        configured[one.public_key] for one in active if one.public_key in configured and one.not_before_ms <= dated_ms
    )
    if not signing and back:
        raise back[0]
    if not signing:
        ids = ", ".join(VerifierKey(row.origin, one.public_key).key_id.hex() for one in active)
        raise SigningError(
            f"no key of the log {row.origin} (key id {ids}) is among the versions of SigningKey "
            f"{row.namespace}/{row.key_name}, and no successor was announced: put it back beside the new one, or name "
            f"it as retiringSigningKey, until both sign; if it is lost for good, the log can only be continued under a "
            f"new origin"
        )
    fresh = [signer for signer in configured.values() if signer.key.public_key not in known]
    return Roll(
        signing=signing,
        announce=(signing[-1], fresh[0]) if fresh else None,
        ended=tuple(one for one in active if one.public_key not in configured),
        troubles=(*troubles, *back),
        is_settled=not fresh and not troubles,
        dated_ms=dated_ms,
    )


def _has_ended(row: LogRow, signer: Signer, last_ms: int) -> SigningError:
    return SigningError(
        f"{signer.where} signed the log {row.origin} until {_date(last_ms)} and has ended: auditors take no later head "
        f"from it; take it out, and add a new version if you need one"
    )


class Succession:
    """The keys of one log, for as long as it is led; a task beside it announces new ones."""

    name = "succession"

    def __init__(self, source: Source, keyring: Keyring, log_id: int, state: State, clock: Callable[[], int]) -> None:
        """`state` puts a leaf into the log; keys begin and end by the `clock` that heads are dated by."""
        self._source = source
        self._keyring = keyring
        self._log_id = log_id
        self._state = state
        self._clock = clock

    async def signers(self, connection: Connection, row: LogRow) -> list[Signer]:
        """Return who signs the next head; who signs no more is noted first.

        Raises LateError if nobody may sign, or if it is too early to ask again who could not a moment ago.
        """
        seen = self._source.current
        roll = await self._decided(connection, row)
        if roll.ended and await configuration.generation(connection) != seen.generation:
            # Ending cannot be taken back, and the key may be missing only in what this process knows.
            raise SignerAwayError("the newest configuration has not been loaded yet")
        for one in roll.ended:
            head = await tlog.latest_head(connection, self._log_id)
            last = one.not_before_ms if head is None else head.timestamp_ms
            await log_keys.end(connection, self._log_id, one.public_key, last)
            logger.info("the key %s of the log has ended", VerifierKey(row.origin, one.public_key).key_id.hex())
        # A crash here leaves a key ended whose last signature is on the last head: the next one goes on without it.
        for signer in roll.signing:
            signer.gate.check()
        return list(roll.signing)

    async def run(self, led: Led) -> None:
        """Announce each new key as soon as it is configured, until cancelled."""
        waits, said, settled = patient(), None, None
        while True:
            pause, seen = LOOK, self._source.current
            if seen is settled:
                await asyncio.sleep(pause)
                continue
            try:
                async with led.pool.acquire(timeout=5) as connection:
                    roll = await self._decided(connection, led.row())
                if roll.announce is not None:
                    await self._announce(*roll.announce, roll.dated_ms)
                # A log without a head has no key yet that could announce another.
                settled = seen if roll.is_settled else None
                for error in roll.troubles:
                    raise error
                waits, trouble = patient(), ""
            except LateError as error:
                pause, trouble = next(waits), str(error)
            if trouble != said:
                led.say(_announced(trouble))
                said = trouble
            await asyncio.sleep(pause)

    async def _decided(self, connection: Connection, row: LogRow) -> Roll:
        history = await log_keys.history(connection, self._log_id)
        pinned = {one.key_id: one.public_key for one in history if one.key_id is not None}
        opened = await self._keyring.open(self._source.current, row, pinned)
        if opened.troubles and not opened.signers:
            raise opened.troubles[0]
        head = await tlog.latest_head(connection, self._log_id)
        last = 0 if head is None else head.timestamp_ms
        return decide(row, history, opened.signers, self._now(), last_ms=last, troubles=opened.troubles)

    def _now(self) -> datetime:
        return _EPOCH + timedelta(milliseconds=self._clock())

    async def _announce(self, predecessor: Signer, successor: Signer, dated_ms: int) -> None:
        """Have both keys sign that one follows the other, and put that into the log."""
        not_before = max(milliseconds(successor.not_before), dated_ms)
        not_after = MAX_INTEGER if predecessor.not_after is None else milliseconds(predecessor.not_after)
        unsigned = KeySuccession(
            not_before=not_before,
            origin=predecessor.key.name,
            predecessor=predecessor.key,
            predecessor_not_after=max(not_after, not_before),
            predecessor_signature=b"",
            salt=os.urandom(_SALT),
            successor=successor.key,
            successor_signature=b"",
            timestamp=dated_ms,
        )
        message = unsigned.message()
        statement = unsigned._replace(
            predecessor_signature=await predecessor.sign(message), successor_signature=await successor.sign(message)
        )
        statement.verify()

        async def note(connection: Connection, leaf_index: int) -> None:
            await log_keys.announce(
                connection,
                self._log_id,
                successor.key.public_key,
                successor.key_id,
                not_before_ms=not_before,
                leaf_index=leaf_index,
            )

        await self._state(statement.encode(), note)
        # A crash before this has announced nothing, after it everything: leaf and note are one transaction.
        logger.info("%s was announced as a key of the log, from %s on", successor.where, _date(not_before))


def _announced(trouble: str) -> Condition:
    if not trouble:
        message = "every live version of its key is announced in the log"
        return Condition(type="KeysAnnounced", status="True", reason="Announced", message=message)
    logger.warning("a key of the log cannot be announced: %s", trouble)
    return Condition(type="KeysAnnounced", status="False", reason="NotAnnounced", message=trouble)


def _date(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds")
