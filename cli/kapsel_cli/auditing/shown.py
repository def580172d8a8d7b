"""The heads that a log shows to one auditor: whose they are, and which of them are remembered.

`run` asks for the newest one. It is remembered from the moment that its signature was checked, whatever becomes of the
audit, so that a log cannot show one head, keep its leaves back, and show another head the next time.
"""

from collections.abc import Callable, Sequence
from typing import Final, cast

from kapsel_cli.auditing import views
from kapsel_cli.auditing.source import Source
from kapsel_cli.auditing.state import State
from kapsel_cli.auditing.views import View
from kapsel_verifier import heads, keys
from kapsel_verifier.errors import KeyValidityError, UntrustedKeyError
from kapsel_verifier.heads import VerifiedHead
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.note import Note, VerifierKey
from kapsel_verifier.statements import KeySuccession, parse

MOST_SEEN: Final = 16  # heads that are remembered while no audit reaches its end
OWN: Final = "this auditor, at an earlier look,"


class Shown:
    """What one log shows, judged by the keys that the auditor trusts and by those that the log announced."""

    def __init__(
        self,
        source: Source,
        trusted: Sequence[TrustedKey],
        state: State,
        save: Callable[[State], None],
        clock: Callable[[], int],
    ) -> None:
        """Remember heads in `state`, which is kept by `save`; `clock` gives milliseconds."""
        self._source = source
        self._pinned = trusted
        self._state = state
        self._save = save
        self._clock = clock

    async def newest(self) -> tuple[str, VerifiedHead, list[bytes]]:
        """Return the newest head, and the leaves that must be in the log because its key is trusted by them."""
        note = await self._source.checkpoint()
        trusted = self._trusted()
        announced: list[bytes] = []
        try:
            head = self._verified(note, trusted)
        except (UntrustedKeyError, KeyValidityError):
            followed = await self._followed(trusted)
            if followed == trusted:
                raise
            head = self._verified(note, followed)
            announced = _announcements(trusted, followed, head.key)
        self._remember(note, head)
        return note, head, announced

    def _remember(self, note: str, head: VerifiedHead) -> None:
        """Keep a head that the log has signed, whatever becomes of this audit: the next may be shown another one."""
        state = self._state
        if state.origin not in (None, head.checkpoint.origin):
            return
        known = [text for text in (state.verified, *state.seen) if text is not None]
        if all(views.of_note(text, OWN).checkpoint != head.checkpoint for text in known):
            state.seen[MOST_SEEN - 1 :] = [note]
            self._save(state)

    def earlier(self, head: VerifiedHead) -> list[View]:
        """Return the heads that this auditor was shown and could not yet find to be in the log."""
        found = [views.of_note(text, OWN) for text in self._state.seen]
        return [view for view in found if view.checkpoint.origin == head.checkpoint.origin]

    def _verified(self, note: str, trusted: Sequence[TrustedKey]) -> VerifiedHead:
        return heads.verify_head(note, trusted, now_ms=self._clock())

    def _trusted(self) -> tuple[TrustedKey, ...]:
        return keys.follow(self._pinned, self.links())

    def links(self, announced: Sequence[bytes] = ()) -> list[TrustedKey]:
        """Return the announcements of keys that were read in the log, and these, as `keys.follow` takes them."""
        return [TrustedKey(b"", succession=leaf) for leaf in (*self._state.progress.successions, *announced)]

    async def _followed(self, trusted: tuple[TrustedKey, ...]) -> tuple[TrustedKey, ...]:
        """Return also the keys that may have been announced since by those that are trusted."""
        published = await self._source.key_set()
        return trusted if published is None else keys.follow(trusted, keys.parse_key_set(published))

    async def require_signed(self, text: str, origin: str) -> list[bytes]:
        """Raise unless the log signed a note that somebody holds; return the leaves that must be in the log for that.

        Without a look at the dates of keys: the head was judged by them when it was new. Of its lines the plain
        signature is enough: that is what a witness keeps, and not always the line that dates the head.
        """
        note, trusted = Note.parse(text), self._trusted()
        try:
            note.verify(_under(trusted, origin))
        except UntrustedKeyError:
            followed = await self._followed(trusted)
            if followed == trusted:
                raise
            signed = note.verify(_under(followed, origin))[0]
        else:
            return []
        return _announcements(trusted, followed, next(k for k in _under(followed, origin) if k.key_id == signed.key_id))


def _under(trusted: Sequence[TrustedKey], origin: str) -> list[VerifierKey]:
    return [key for one in trusted if (key := one.under(origin)) is not None]


def _announcements(trusted: Sequence[TrustedKey], followed: Sequence[TrustedKey], signer: VerifierKey) -> list[bytes]:
    """Return the leaves that lead from a trusted key to the one that signed."""
    given = [key.under(signer.name) for key in trusted]
    announced = {key.under(signer.name): key.succession for key in followed}
    leaves = []
    while signer not in given and (leaf := announced[signer]) is not None:
        leaves.append(leaf)
        signer = cast("KeySuccession", parse(leaf)).predecessor
    return leaves
