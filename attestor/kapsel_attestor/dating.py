"""What is to be asked about one anchored head, what its answers make of it, and when to ask again. Pure.

`anchors` asks and stores. An anchor is an OpenTimestamps file of a checkpoint's bytes: each calendar first promises,
and later adds the way from its promise to a block. An answer only ever adds to the file, and each calendar stands in it
for itself, so one that lies or forgets takes nothing away from what the others say.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Final, Literal

from kapsel_attestor.status_report import Condition
from kapsel_store.anchors import DueAnchor, Newest, Pending
from kapsel_store.rows import Anchoring
from kapsel_verifier import ots, ots_paths
from kapsel_verifier.errors import VerificationError
from kapsel_verifier.merkle import HASH_SIZE
from kapsel_verifier.ots import Timestamp
from kapsel_verifier.ots_paths import APPEND, BITCOIN, PENDING, SHA256, Path, Step

PATIENCE: Final = timedelta(days=7)  # after that the calendars that have confirmed are enough
LATE: Final = timedelta(hours=24)  # a head that is in no block by then is told of; blocks take hours
UNIT: Final = timedelta(seconds=30)
MOST_PATHS: Final = 4  # of one answer, which has one or two: a file has room for few hundred in all


@dataclass(frozen=True, slots=True)
class Question:
    """One message for one calendar: to date it, or, if `promised`, to say what has become of it."""

    calendar: str
    message: bytes
    steps: tuple[Step, ...]  # from the file's digest to the message
    promised: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where the file of one anchor stands."""

    promised: frozenset[str]  # declared calendars that have promised
    fulfilled: frozenset[str]  # those whose promise leads to a block
    height: int | None  # of the first block


def begun(anchor: DueAnchor) -> Timestamp:
    """Return the file of an anchor as it is known, without paths if nobody has answered yet.

    Raises VerificationError if what is stored was damaged.
    """
    if anchor.ots is not None:
        return ots.parse(anchor.ots)
    return Timestamp(sha256(anchor.checkpoint.encode()).digest(), ())


def progress(timestamp: Timestamp, calendars: Sequence[str]) -> Progress:
    """Say which of these calendars have promised, and which have kept their word."""
    blocks = [path.steps for path in timestamp.paths if _is_block(timestamp.digest, path)]
    promises = list(_promises(timestamp, calendars))
    fulfilled = {url for url, steps in promises if any(way[: len(steps)] == steps for way in blocks)}
    return Progress(
        promised=frozenset(url for url, _ in promises),
        fulfilled=frozenset(fulfilled),
        height=min((claim.height for claim in timestamp.blocks()), default=None),
    )


def questions(anchor: DueAnchor, timestamp: Timestamp, declared: Anchoring) -> list[Question]:
    """Return what is to be asked about an anchor now.

    Every declared calendar is asked in the first round, and as long as too few have promised those that have not.
    """
    known = progress(timestamp, declared.calendars)
    start = (Step(APPEND, anchor.nonce), Step(SHA256))
    asked = []
    if len(known.promised) < declared.minimum:
        salted = sha256(timestamp.digest + anchor.nonce).digest()
        asked = [Question(url, salted, start, False) for url in declared.calendars if url not in known.promised]
    for url, steps in _promises(timestamp, declared.calendars):
        message = ots_paths.follow(timestamp.digest, steps)
        if url not in known.fulfilled and message is not None:
            asked.append(Question(url, message, steps, True))
    return asked


def unfit(question: Question, paths: Sequence[Path], calendars: Sequence[str]) -> str | None:
    """Return why an answer is of no use, or None.

    One that has many paths would leave no room for what other calendars say. Nobody but declared calendars is ever
    asked, so a promise by another one would never be followed up.
    """
    if len(paths) > MOST_PATHS:
        return f"answers with {len(paths)} ways to date it, and {MOST_PATHS} are the most"
    promisers = [ots_paths.pending_uri(path.attestation) for path in paths if path.attestation.tag == PENDING]
    if any(_is_block(question.message, path) for path in paths):
        return None
    if question.promised:
        return "answers with a timestamp that leads to no block"
    if any(uri.rstrip("/") in calendars for uri in promisers):
        return None
    named = ", ".join(promisers) or "nobody"
    return f"answers for {named}, which is not among the calendars: name that one instead"


def absorb(timestamp: Timestamp, question: Question, paths: Iterable[Path]) -> Timestamp:
    """Return the file with an answer added; raises VerificationError if it would be no file any more."""
    added = [Path((*question.steps, *path.steps), path.attestation) for path in paths]
    return timestamp._replace(paths=ots_paths.ordered([*timestamp.paths, *added], len(timestamp.digest)))


def is_complete(known: Progress, declared: Anchoring, age: timedelta) -> bool:
    """Say whether nothing more is to be asked: enough calendars have led to a block, or one has and time is up."""
    return known.height is not None and (len(known.fulfilled) >= declared.minimum or age > PATIENCE)


def rest(known: Progress, declared: Anchoring, age: timedelta, tries: int) -> timedelta:
    """Return when to ask again: soon while calendars are missing, then as patiently as blocks are slow."""
    step: timedelta = unit(declared)
    if len(known.promised) < declared.minimum:
        return step * min(1 << tries, 30)
    return max(step * 20, min(age / 2, step * 720))


def unit(declared: Anchoring) -> timedelta:
    """Return what all waits are multiples of: half a minute, or less where heads are dated more often than hourly."""
    return min(UNIT, declared.interval / 120)


def condition(
    declared: Anchoring, newest: Newest | None, confirmed: Newest | None, pending: Pending, failures: Iterable[str]
) -> Condition:
    """Return what the status of the AttestationLog says of its anchors."""
    if newest is None:
        return _condition("Unknown", "NoHead", "no head with leaves was published yet")
    try:
        promised = 0 if newest.ots is None else len(progress(ots.parse(newest.ots), declared.calendars).promised)
    except VerificationError as error:
        return _condition("False", "Damaged", f"the stored timestamp of the newest dated head cannot be read: {error}")
    if newest.height is None and promised < declared.minimum and newest.tries >= 3:
        words = "; ".join(sorted(failures)) or "the others refuse"
        need = f"{promised} of the {declared.minimum} calendars that are needed"
        return _condition("False", "CalendarsAway", f"{need} have promised to date the newest head: {words}")
    if pending.oldest is not None and pending.oldest > LATE:
        return _condition("False", "Late", "a head that calendars have promised to date is in no block after a day")
    if confirmed is None:
        return _condition("False", "Promised", "calendars were asked to date the first heads; a block takes hours")
    message = f"calendars say that block {confirmed.height} of Bitcoin dates the head of {confirmed.tree_size} leaves"
    return _condition("True", "Dated", message)


def _condition(status: Literal["True", "False", "Unknown"], reason: str, message: str) -> Condition:
    return Condition(type="Anchored", status=status, reason=reason, message=message)


def _is_block(message: bytes, path: Path) -> bool:
    """Say whether a path leads from the message to what can be the Merkle root of a block."""
    if path.attestation.tag != BITCOIN:
        return False
    root = ots_paths.follow(message, path.steps)
    return root is not None and len(root) == HASH_SIZE


def _promises(timestamp: Timestamp, calendars: Sequence[str]) -> Iterable[tuple[str, tuple[Step, ...]]]:
    for path in timestamp.paths:
        if path.attestation.tag == PENDING:
            url = ots_paths.pending_uri(path.attestation).rstrip("/")
            if url in calendars:
                yield url, path.steps
