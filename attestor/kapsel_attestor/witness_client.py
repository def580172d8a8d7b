"""Asks one witness for its cosignature over one head: a request, and after a 409 one more (C2SP tlog-witness).

`witnesses` decides whom to ask and when, and bounds the time. What comes back is a value: a cosignature that was
checked, or why there is none. A witness is somebody else's server: it is believed nothing that it has not signed.
"""

from dataclasses import dataclass
from typing import Final, Literal

import aiohttp

from kapsel_attestor.publisher import Prove
from kapsel_tlog.errors import DamagedTreeError
from kapsel_verifier import add_checkpoint, cosignature
from kapsel_verifier.add_checkpoint import SIZE_TYPE, AddCheckpoint
from kapsel_verifier.cosignature import WitnessKey
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.note import Checkpoint, Note, signature_line

LARGEST_ANSWER: Final = 65_536  # bytes: many times what any cosignature takes
AHEAD: Final = "it has cosigned a larger tree than this log has: another attestor signs, or the log was set back"
LATEST: Final = 253_402_300_799  # seconds: the last of the year 9999, after which nobody has a calendar
Why = Literal["unreachable", "timeout", "refused", "conflict", "ahead", "invalid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosigned:
    """The witness has seen the head; `line` is a checked signature line with its newline."""

    line: str
    timestamp: int  # seconds since the epoch, by the witness's clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """There is no cosignature: the label of the metric, and words for people that do not change from head to head."""

    why: Why
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is put before the witnesses."""

    checkpoint: str  # the signed note
    size: int

    @classmethod
    def of(cls, checkpoint: str) -> "Head":
        """Return the head of a signed note that this attestor made."""
        return cls(checkpoint=checkpoint, size=Checkpoint.parse(Note.parse(checkpoint).text).tree_size)


class Witness:
    """One witness and what it is known to have cosigned last; it may have seen more from another attestor."""

    def __init__(self, url: str, key: WitnessKey) -> None:
        self.key = key
        self._url = f"{url}/{add_checkpoint.PATH}"
        self._size = 0  # leaves of the last head that it cosigned, as far as is known; a 409 tells

    async def ask(self, session: aiohttp.ClientSession, head: Head, prove: Prove) -> Cosigned | Failed:
        """Ask for a cosignature over the head."""
        if self._size > head.size:
            self._size = 0  # this attestor was told another size before; the witness will say which it is
        try:
            told = await self._once(session, head, prove)
            if isinstance(told, int):
                if told > head.size:
                    return Failed(why="ahead", words=AHEAD)
                self._size = told
                told = await self._once(session, head, prove)
        except (aiohttp.ClientError, OSError) as error:
            return Failed(why="unreachable", words=f"it cannot be reached ({type(error).__name__})")
        except DamagedTreeError:
            return Failed(why="invalid", words="no consistency proof could be made for it")
        if isinstance(told, int):
            return Failed(why="conflict", words="it tells another size each time")
        if isinstance(told, Cosigned):
            self._size = head.size
        return told

    async def _once(self, session: aiohttp.ClientSession, head: Head, prove: Prove) -> Cosigned | Failed | int:
        """Make one request; return the size that the witness knows if it is another than was thought."""
        body = AddCheckpoint(self._size, tuple(await prove(self._size)), head.checkpoint).encode()
        headers = {"Content-Type": "text/plain; charset=utf-8"}
        async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
            said = await _read(answer)
            if said is None:
                return Failed(why="invalid", words=f"its answer has more than {LARGEST_ANSWER} bytes")
            if answer.status == 409 and answer.headers.get("Content-Type") == SIZE_TYPE:
                return self._told(said)
            if answer.status != 200:
                return Failed(why="refused", words=f"it answers {answer.status}")
            return self._checked(head, said)

    def _told(self, said: bytes) -> int | Failed:
        try:
            return add_checkpoint.parse_size(said.decode("ascii", "replace"))
        except VerificationError:
            return Failed(why="invalid", words="it answers 409 without a size")

    def _checked(self, head: Head, said: bytes) -> Cosigned | Failed:
        try:
            note = Note.parse(head.checkpoint.encode() + said)
            found = cosignature.find(note, [self.key])
        except VerificationError as error:
            return Failed(why="invalid", words=f"its answer is wrong ({type(error).__name__})")
        if note.text != Note.parse(head.checkpoint).text:
            # A blank line in the answer moves the end of the text: what it signs is not what will be published.
            return Failed(why="invalid", words="its answer is more than signature lines")
        if not found:
            return Failed(why="invalid", words="its answer holds no cosignature by its key")
        if found[0].timestamp > LATEST:
            return Failed(why="invalid", words="its cosignature is dated beyond the year 9999: dates are in seconds")
        lines = {
            int.from_bytes(one.signature[:8], "big"): signature_line(one.name, one.key_id, one.signature)
            for one in note.signatures
            if (one.name, one.key_id) == (self.key.name, self.key.key_id)
        }
        return Cosigned(line=lines[found[0].timestamp], timestamp=found[0].timestamp)


async def _read(answer: aiohttp.ClientResponse) -> bytes | None:
    """Return the body, None if it is too large; no more than that is read."""
    said = b""
    while chunk := await answer.content.read(LARGEST_ANSWER + 1 - len(said)):
        said += chunk
        if len(said) > LARGEST_ANSWER:
            return None
    return said
