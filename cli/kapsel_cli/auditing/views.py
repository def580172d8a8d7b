"""Compares heads of one log: what it shows to the auditor, to witnesses, and to whoever kept a checkpoint.

A head that somebody else holds is worth comparing if the log itself signed it. Its root is then either that of the
first so many leaves that the auditor has read, or the log has two histories.
"""

from dataclasses import dataclass
from typing import Final

from kapsel_cli.auditing.errors import BehindError, SplitViewError
from kapsel_cli.auditing.source import Source
from kapsel_tlog import tiles
from kapsel_tlog.prover import consistency_spans, resolve
from kapsel_tlog.tiles import Span
from kapsel_verifier import strict
from kapsel_verifier.errors import InclusionError, MalformedNoteError
from kapsel_verifier.merkle import node_hash
from kapsel_verifier.note import Checkpoint, Note
from kapsel_verifier.tiles import parse_tile, width

_BASE64: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A head as somebody else has it, signed by the log."""

    holder: str  # for people: the witness, or the file
    note: str  # the signed note
    checkpoint: Checkpoint
    links: tuple[bytes, ...] = ()  # leaves that must be in the log, because the key that signed is trusted by them


def read_note(data: bytes) -> str:
    """Return a note that somebody kept, as it is or in base64, as deliveries carry it; raises MalformedNoteError."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedNoteError("the checkpoint is not UTF-8") from None
    packed = text.strip()
    if packed and _BASE64.issuperset(packed):
        return strict.base64(packed, "the checkpoint", MalformedNoteError).decode("utf-8", "replace")
    return text


def compare(view: View, note: str, head: Checkpoint, root: bytes) -> None:
    """Raise SplitViewError unless the view's root is `root`, that of the first so many leaves of the audited head."""
    if view.checkpoint.root_hash != root:
        raise SplitViewError(
            f"{view.holder} holds a head of {view.checkpoint.tree_size} leaves that is not the beginning of the "
            f"{head.tree_size} that are shown here",
            (view.note, note),
        )


def require_same(view: View, other: View) -> None:
    """Raise SplitViewError if two heads of one size have two roots: that is proven without a look at a leaf."""
    if view.checkpoint.root_hash != other.checkpoint.root_hash:
        raise SplitViewError(
            f"{view.holder} and {other.holder} hold heads of {view.checkpoint.tree_size} leaves with different roots",
            (view.note, other.note),
        )


def require_seen(view: View, head: Checkpoint) -> None:
    """Raise BehindError if the view is of a larger tree than the log shows."""
    if view.checkpoint.tree_size > head.tree_size:
        raise BehindError(
            f"{view.holder} has seen {view.checkpoint.tree_size} leaves, and the log shows {head.tree_size}"
        )


async def compare_older(source: Source, view: View, note: str, head: Checkpoint) -> None:
    """Compare a view that lies before where the leaves are read, by the log's own tiles.

    Raises SplitViewError only if the tiles make the root that is shown here: else it is the server that is wrong, and
    MalformedTileError or InclusionError say so.
    """
    size = view.checkpoint.tree_size
    if size == 0:
        return  # it is the beginning of everything
    spans = consistency_spans(size, head.tree_size)
    if spans[0].end != size:
        spans.insert(0, Span(0, size))  # a subtree, which a consistency proof leaves out
    stored: dict[tuple[int, int], bytes] = {}
    for tile in tiles.needed(spans):
        hashes = width(tile, head.tree_size)
        stored[tile] = await source.tile(tile, hashes)
        parse_tile(stored[tile], hashes)
    old, new = _roots(spans, resolve(spans, stored))
    if new != head.root_hash:
        raise InclusionError(f"the tiles that are served do not make the root over {head.tree_size} leaves")
    compare(view, note, head, old)


def _roots(spans: list[Span], hashes: list[bytes]) -> tuple[bytes, bytes]:
    """Return the roots of the old tree and of the new one, out of the subtrees beside the edge of the old one."""
    old = new = hashes[0]
    for span, digest in zip(spans[1:], hashes[1:], strict=True):
        if span.begin < spans[0].begin:
            old, new = node_hash(digest, old), node_hash(digest, new)
        else:
            new = node_hash(new, digest)
    return old, new


def of_note(text: str, holder: str, links: tuple[bytes, ...] = ()) -> View:
    """Return the view that a note is, whose signatures were checked; raises VerificationError."""
    return View(holder=holder, note=text, checkpoint=Checkpoint.parse(Note.parse(text).text), links=links)
