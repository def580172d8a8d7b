"""What a log says of the one that it continues, held against what the auditor knows of that one.

Pure; `run` calls it when the first leaf is read. Of a log that the auditor knows nothing of, what was said is told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kapsel_cli.auditing.errors import SplitViewError
from kapsel_verifier.errors import ConsistencyError, HeadMismatchError, StaleHeadError, UntrustedKeyError
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.note import Checkpoint, Note
from kapsel_verifier.statements import LogContinuation


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """The newest head of another log of which every leaf was checked, and the file that remembers it."""

    file: str
    note: str


def judge(found: LogContinuation, trusted: Sequence[TrustedKey], before: Audited | None) -> str:
    """Return what is to be said of a continuation; raise a VerificationError if the old log did not end like that."""
    old = found.predecessor()
    said = f"leaf 0: the log continues {old.origin}, which ended with {old.tree_size} leaves: "
    is_signed = _is_signed(found, trusted, old)
    if before is not None:
        _require_end(found, old, before)
        return said + f"as {before.file} has it" + ("" if is_signed else "; you trust no key of that log")
    if is_signed:
        return said + "signed by a key that you trust; whether that was its end, --continues checks"
    return said + "not checked, for you trust no key of that log, and gave no audit of it with --continues"


def _is_signed(found: LogContinuation, trusted: Sequence[TrustedKey], old: Checkpoint) -> bool:
    """Say whether a trusted key of the old log has signed the checkpoint; raise SignatureError if only its name did."""
    try:
        Note.parse(found.checkpoint).verify([key for one in trusted if (key := one.under(old.origin)) is not None])
    except UntrustedKeyError:
        return False
    return True


def _require_end(found: LogContinuation, old: Checkpoint, before: Audited) -> None:
    audited = Checkpoint.parse(Note.parse(before.note).text)  # judged when it was new
    if audited.origin != old.origin:
        raise HeadMismatchError(f"the log continues {old.origin}, and {before.file} is of {audited.origin}")
    if audited.tree_size < old.tree_size:
        raise StaleHeadError(
            f"{old.origin} ended with {old.tree_size} leaves, and {before.file} has {audited.tree_size}: "
            "audit that log to its end first"
        )
    if audited.tree_size > old.tree_size:
        raise ConsistencyError(
            f"the log continues {old.origin} after {old.tree_size} leaves, and {before.file} has {audited.tree_size}: "
            "what came between was lost, or left out"
        )
    if audited.root_hash != old.root_hash:
        raise SplitViewError(
            f"the log continues {old.origin} with another root for {old.tree_size} leaves than {before.file} has",
            (before.note, found.checkpoint.decode()),
        )
