"""One audit of a log, from its newest head to what is remembered of it.

 1. The newest head is signed by a key that the auditor trusts, or by one that such a key announced in the log; it is
    not of the future, and, by the auditor's policy, cosigned by a quorum.
 2. It is not smaller than the one that was audited last, nor another of the same size, nor dated before it. No head
    that the auditor has, or was shown at a look that came to no end, is of the same size and has another root.
 3. Every leaf since then has its hash in the tiles, is canonical, continues its endpoint's records, and is not dated
    after the head. Statements of the log about its keys are signed by both keys; if it continues another log, that one
    ended as the auditor has it.
 4. The tree over all leaves has the root that was signed: it continues the audited one, whose edge it grew from.
 5. What witnesses saw, and checkpoints that people kept, are the beginning of it, and they saw no more than it shows
    within half a minute.
 6. The head is not older than a log may be silent.

What makes going on senseless (1 to 4) ends the audit; the rest is collected. Every finding has its exit code.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from kapsel_cli.auditing import bundle, continued, views
from kapsel_cli.auditing.bundle import Read
from kapsel_cli.auditing.continued import Audited
from kapsel_cli.auditing.errors import BehindError, GapError, SourceError, SplitViewError
from kapsel_cli.auditing.shown import OWN, Shown
from kapsel_cli.auditing.source import Source
from kapsel_cli.auditing.state import State
from kapsel_cli.auditing.views import View
from kapsel_cli.auditing.walk import Walk
from kapsel_verifier import keys, levels
from kapsel_verifier.errors import (
    ConsistencyError,
    HeadMismatchError,
    InclusionError,
    MalformedLeafError,
    StaleHeadError,
    VerificationError,
)
from kapsel_verifier.heads import MAX_SKEW_MS, VerifiedHead
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.note import Checkpoint, Note, VerifierKey
from kapsel_verifier.policy import LogLine, Policy
from kapsel_verifier.statements import KeySuccession, LogContinuation

AHEAD = 16  # bundles that are fetched and read before it is their turn
FEW = 20_000  # leaves that are not worth other processes
MOST_KEYS = 1000  # announcements of keys in one log
SAVE = 5.0  # seconds between two notes of how far a walk has come
PATIENCE = 30.0  # seconds for the log to publish a head that witnesses have: it may still wait for others of them
ASK_AGAIN = 0.5  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What the auditor trusts and wants to know."""

    trusted: tuple[TrustedKey, ...]
    policy: Policy | None = None
    witnesses: tuple[tuple[str, str], ...] = ()  # name for people, monitoring prefix
    checkpoints: tuple[tuple[str, str], ...] = ()  # name for people, signed note
    max_age_ms: int | None = None
    continues: Audited | None = None  # the log that this one continues


@dataclass(slots=True)
class Outcome:
    """What an audit found."""

    origin: str = ""
    tree_size: int = 0
    root: bytes = b""
    head_ms: int = 0
    read: int = 0  # leaves, in this audit
    erased: int = 0  # of all leaves
    endpoints: int = 0
    witnessed_at: int | None = None  # seconds: by then a quorum of the policy had cosigned
    agreed: list[tuple[str, int]] = field(default_factory=list)  # who else holds a head that is the same log, its size
    statements: list[str] = field(default_factory=list)
    findings: list[VerificationError] = field(default_factory=list)


def now_ms() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


class Audit:
    """One look at one log."""

    def __init__(
        self,
        source: Source,
        demands: Demands,
        state: State,
        *,
        save: Callable[[State], None],
        tell: Callable[[int, int], None],
        executor: Executor | None = None,
        clock: Callable[[], int] = now_ms,
        patience: float = PATIENCE,
    ) -> None:
        """Go on from `state`, which is kept by `save`; `tell` hears of leaves read, and of how many there are.

        `patience` is how many seconds the log has to show what others hold of it already.
        """
        self._source = source
        self._demands = demands
        self._state = state
        self._save = save
        self._tell = tell
        self._executor = executor
        self._clock = clock
        self._patience = patience
        self._shown = Shown(source, demands.trusted, state, save, clock)
        self._saved_at = time.monotonic()
        self.outcome = Outcome()

    async def run(self) -> Outcome:
        """Audit; what is wrong is among the findings, and no VerificationError leaves."""
        try:
            await self._run()
        except VerificationError as error:
            self.outcome.findings.append(error)
        return self.outcome

    async def _run(self) -> None:
        note, head, announced = await self._shown.newest()
        seen = await self._views(head)
        most = max((view.checkpoint.tree_size for view in seen), default=0)
        until = time.monotonic() + self._patience
        while head.checkpoint.tree_size < most:
            # Witnesses see a head before the log publishes it: what it does not show for a while, it withholds.
            note, head, announced = await self._shown.newest()
            if head.checkpoint.tree_size < most:
                if time.monotonic() >= until:
                    break
                await asyncio.sleep(ASK_AGAIN)
        self._note_head(head)
        self._check_policy(note, announced)
        self._check_age(head)
        seen = self._compare_now([*self._shown.earlier(head), *seen], note, head)
        self._check_against_verified(note, head)
        walk = await self._walk(note, head, seen)
        for view in seen:
            await self._compare(view, note, head, walk.roots)
        self._save(self._state)
        self._check_announced([*announced, *(link for view in seen for link in view.links)], walk)

    def _note_head(self, head: VerifiedHead) -> None:
        outcome = self.outcome
        outcome.origin, outcome.tree_size = head.checkpoint.origin, head.checkpoint.tree_size
        outcome.root, outcome.head_ms = head.checkpoint.root_hash, head.sth.timestamp_ms

    def _check_policy(self, note: str, announced: Sequence[bytes]) -> None:
        policy = self._demands.policy
        if policy is None:
            return
        try:
            # A log that the policy lists goes on under the keys that it announced.
            listed = keys.follow(levels.trusted_by(policy), self._shown.links(announced))
            signers = [VerifierKey(one.name, one.public_key) for one in listed if one.name is not None]
            policy = policy._replace(logs=tuple(map(LogLine, signers)))
            self.outcome.witnessed_at = policy.judge(Note.parse(note)).witnessed_at
        except VerificationError as error:
            self.outcome.findings.append(error)

    def _check_against_verified(self, note: str, head: VerifiedHead) -> None:
        """Compare the head with the one that was audited last, and with where the leaves were read to."""
        state, new = self._state, head.checkpoint
        if state.origin not in (None, new.origin):
            raise HeadMismatchError(f"the log is {new.origin}, and the state file is of {state.origin}")
        state.origin = new.origin
        if state.verified is None:
            return
        old = Checkpoint.parse(Note.parse(state.verified).text)  # judged when it was new
        if new.tree_size == old.tree_size and new.root_hash != old.root_hash:
            raise SplitViewError(f"another root for {old.tree_size} leaves than was audited", (state.verified, note))
        if new.tree_size == old.tree_size and head.sth.timestamp_ms < state.verified_ms:
            raise BehindError(f"the head of {new.tree_size} leaves is older than the one that was audited")
        if new.tree_size < old.tree_size:
            if head.sth.timestamp_ms > state.verified_ms:
                words = f"the log shows {new.tree_size} leaves, dated later than the {old.tree_size} that were audited"
                raise SplitViewError(words, (state.verified, note))
            raise BehindError(f"the log shows {new.tree_size} leaves, and {old.tree_size} were audited")
        if new.tree_size > old.tree_size and head.sth.timestamp_ms <= state.verified_ms:
            raise ConsistencyError("the head is larger than the one that was audited, and not dated later")

    async def _walk(self, note: str, head: VerifiedHead, seen: Sequence[View]) -> Walk:
        state, new = self._state, head.checkpoint
        if state.progress.tree.size > new.tree_size:
            state.progress = state.verified_progress.copy()  # it was on its way to a head that is not shown any more
        start = state.progress.tree.size
        if start and self._demands.continues is not None:
            self.outcome.statements.append("--continues was not looked at: the first leaf was read by an earlier audit")
        executor = self._executor if new.tree_size - start > FEW else None
        walk = Walk(self._source, state.progress, new.tree_size, executor, AHEAD)

        def step(read: Read, first: int) -> None:
            self._take(read, first, head)
            self.outcome.read = state.progress.tree.size - start
            self._tell(state.progress.tree.size, new.tree_size)
            if time.monotonic() - self._saved_at > SAVE:
                self._save(state)
                self._saved_at = time.monotonic()

        self._tell(start, new.tree_size)
        try:
            await walk.go({view.checkpoint.tree_size for view in seen}, step)
            if state.progress.tree.root() != new.root_hash:
                words = f"the {new.tree_size} leaves that are served do not make the root that was signed"
                raise InclusionError(words) if state.verified is None else ConsistencyError(words)
        except (asyncio.CancelledError, SourceError):
            self._save(state)
            raise
        except VerificationError:
            # What was read since the audited head is not what was signed: it counts for nothing.
            state.progress = state.verified_progress.copy()
            self._save(state)
            raise
        self.outcome.erased = state.progress.erasures
        self.outcome.endpoints = len(state.progress.chains.last)
        if state.progress.gaps:
            # The head is not taken for audited, so that the next audit finds them again.
            self.outcome.findings += map(GapError, state.progress.gaps)
            state.progress = state.verified_progress.copy()
        else:
            state.verified, state.verified_ms = note, head.sth.timestamp_ms
            state.verified_progress = state.progress.copy()
        self._save(state)
        return walk

    def _take(self, read: Read, first: int, head: VerifiedHead) -> None:
        if read.newest_ms > head.sth.timestamp_ms + MAX_SKEW_MS:
            raise MalformedLeafError(f"a leaf from {first} on is dated after the head that covers it")
        for index, data in read.statements:
            found = bundle.statement(index, data)
            if found.origin != head.checkpoint.origin:
                raise MalformedLeafError(f"leaf {index} is a statement about another log, {found.origin}")
            if isinstance(found, KeySuccession):
                if len(self._state.progress.successions) >= MOST_KEYS:
                    raise MalformedLeafError(f"leaf {index} announces a key after {MOST_KEYS} others")
                self._state.progress.successions.append(data)
                self.outcome.statements.append(f"leaf {index}: the key {found.successor.encode()} is announced")
            elif isinstance(found, LogContinuation):
                if index:
                    raise MalformedLeafError(f"leaf {index} says that the log continues another, and is not the first")
                self.outcome.statements.append(continued.judge(found, self._demands.trusted, self._demands.continues))

    async def _views(self, head: VerifiedHead) -> list[View]:
        """Return what others hold of the log, as far as the log itself signed it."""
        origin = head.checkpoint.origin
        found = [await self._view(text, name, origin) for name, text in self._demands.checkpoints]
        asked = (self._source.view(url, origin) for _, url in self._demands.witnesses)
        for (name, _), told in zip(
            self._demands.witnesses, await asyncio.gather(*asked, return_exceptions=True), strict=True
        ):
            if isinstance(told, VerificationError):
                self.outcome.findings.append(told)
            elif isinstance(told, BaseException):
                raise told
            elif told is None:
                self.outcome.findings.append(SourceError(f"the witness {name} has cosigned no head of {origin}"))
            else:
                found.append(await self._view(told, f"the witness {name}", origin))
        return [view for view in found if view is not None]

    async def _view(self, text: str, holder: str, origin: str) -> View | None:
        try:
            links = await self._shown.require_signed(text, origin)
            view = views.of_note(text, holder, tuple(links))
            if view.checkpoint.origin != origin:
                raise HeadMismatchError(f"it is of the log {view.checkpoint.origin}")
        except SourceError as error:
            self.outcome.findings.append(error)  # nobody can tell whether the log signed it
            return None
        except VerificationError as error:
            error.args = (f"{holder} shows what the log did not sign: {error}",)
            self.outcome.findings.append(error)
            return None
        return view

    def _compare_now(self, held: Sequence[View], note: str, head: VerifiedHead) -> list[View]:
        """Tell what needs no leaf to be read, so that no server can put it off; return the views that are left."""
        by_size = {head.checkpoint.tree_size: View(holder="the log", note=note, checkpoint=head.checkpoint)}
        left = []
        for view in held:
            try:
                views.require_same(view, by_size.setdefault(view.checkpoint.tree_size, view))
                views.require_seen(view, head.checkpoint)
            except VerificationError as error:
                self.outcome.findings.append(error)
            else:
                left.append(view)
        return left

    async def _compare(self, view: View, note: str, head: VerifiedHead, roots: dict[int, bytes]) -> None:
        size = view.checkpoint.tree_size
        try:
            if size in roots:
                views.compare(view, note, head.checkpoint, roots[size])
            else:
                await views.compare_older(self._source, view, note, head.checkpoint)
        except VerificationError as error:
            self.outcome.findings.append(error)
            return
        if view.holder != OWN:
            self.outcome.agreed.append((view.holder, size))
        elif view.checkpoint != head.checkpoint or self._state.verified == note:
            self._state.seen.remove(view.note)

    def _check_announced(self, links: Sequence[bytes], walk: Walk) -> None:
        """A key that is trusted because the log announced it must have been announced in the log."""
        if not set(walk.progress.successions).issuperset(links):
            raise InclusionError("a key signs the log by an announcement that is not in the log")

    def _check_age(self, head: VerifiedHead) -> None:
        allowed = self._demands.max_age_ms
        age = self._clock() - head.sth.timestamp_ms
        if allowed is not None and age > allowed:
            self.outcome.findings.append(
                StaleHeadError(f"the newest head is {age // 1000} s old, and {allowed // 1000} s are allowed")
            )
