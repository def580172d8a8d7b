"""What a witness says to a head: cosign it, or refuse with the status that C2SP tlog-witness gives the reason.

Pure. The app gathers what is known of the log and does what is decided. The order of the checks is that of the
specification, so that a log learns the first thing that is wrong. Of the two statuses that its versions give to another
root for the same size, 422 is the newer one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from kapsel_verifier.add_checkpoint import AddCheckpoint
from kapsel_verifier.errors import ConsistencyError, MalformedNoteError, SignatureError, UntrustedKeyError
from kapsel_verifier.merkle import EMPTY_ROOT, verify_consistency
from kapsel_verifier.note import Checkpoint, Note, Signature, VerifierKey

NOTHING: Final = Checkpoint(origin="", tree_size=0, root_hash=EMPTY_ROOT)  # of a log that was never cosigned

Logs = Mapping[str, Sequence[VerifierKey]]  # origin -> the keys that may sign its heads


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """The head extends what was cosigned last."""

    checkpoint: Checkpoint
    text: str  # what is cosigned
    signatures: tuple[Signature, ...]  # of the log, checked


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The head is not cosigned."""

    status: int
    result: str  # the label of the metric
    reason: str
    known_size: int | None = None  # what a log needs to ask again
    forked: bool = False  # its log signed it although it contradicts the one that was cosigned: both together prove it


def judge(request: AddCheckpoint, logs: Logs, known: Mapping[str, Checkpoint]) -> Agreed | Refused:
    """Decide about one request; `known` holds the newest head that was cosigned of each log."""
    try:
        note = Note.parse(request.checkpoint)
    except MalformedNoteError as error:
        return Refused(status=400, result="malformed", reason=str(error))
    origin = note.text.partition("\n")[0]
    keys = logs.get(origin)
    if keys is None:
        return Refused(status=404, result="unknown_log", reason="this witness does not know a log of this origin")
    try:
        signatures = note.verify(keys)
    except (SignatureError, UntrustedKeyError) as error:
        return Refused(status=403, result="untrusted", reason=str(error))
    try:
        checkpoint = Checkpoint.parse(note.text)
    except MalformedNoteError as error:
        # A tree of no leaves has one root. Who signs another made a mistake in the tree, not in the form.
        status = 422 if note.text.split("\n")[1:2] == ["0"] else 400
        return Refused(status=status, result="malformed", reason=str(error))
    return _against(known.get(origin, NOTHING), request, checkpoint) or Agreed(
        checkpoint=checkpoint, text=note.text, signatures=signatures
    )


def _against(known: Checkpoint, request: AddCheckpoint, new: Checkpoint) -> Refused | None:
    """Return what is wrong with a head that its log signed, or None."""
    forked = new.tree_size == known.tree_size and new.root_hash != known.root_hash
    if request.old_size > new.tree_size:
        return Refused(status=400, result="malformed", reason="the old size is larger than that of the checkpoint")
    if request.old_size != known.tree_size:
        reason = f"the last head that was cosigned has {known.tree_size} leaves"
        return Refused(status=409, result="stale", reason=reason, known_size=known.tree_size, forked=forked)
    if forked:
        reason = f"another root was cosigned for {known.tree_size} leaves"
        return Refused(status=422, result="forked", reason=reason, forked=True)
    try:
        verify_consistency(known.tree_size, new.tree_size, request.proof, known.root_hash, new.root_hash)
    except ConsistencyError as error:
        return Refused(status=422, result="inconsistent", reason=str(error))
    return None
