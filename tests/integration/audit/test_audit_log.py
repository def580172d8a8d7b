"""An audit of logs that keep their word, and of logs that break it in each way there is."""

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from nacl.signing import SigningKey
from public_log import START_MS, PublicLog, serving

from kapsel_cli.auditing import views
from kapsel_cli.auditing.continued import Audited
from kapsel_cli.auditing.errors import SplitViewError
from kapsel_cli.auditing.run import MOST_KEYS, PATIENCE, Audit, Demands, Outcome
from kapsel_cli.auditing.source import Opened, Source
from kapsel_cli.auditing.state import State, load, save
from kapsel_cli.auditing.walk import MOST_GAPS
from kapsel_verifier import policy, tiles
from kapsel_verifier.cosignature import WitnessKey, cosign
from kapsel_verifier.keys import TrustedKey, encode_key_set, parse_key_set
from kapsel_verifier.levels import trusted_by
from kapsel_verifier.merkle import leaf_hash
from kapsel_verifier.note import Checkpoint, Note, VerifierKey
from kapsel_verifier.statements import KeySuccession, LogContinuation

Check = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def log() -> PublicLog:
    made = PublicLog()
    made.grow(700)
    made.publish()
    return made


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    return tmp_path / "audit.json"


@pytest.fixture
def check(log: PublicLog, state_file: Path) -> Iterator[Check]:
    """Audit as the command does, going on from the state file."""
    with serving(log) as url:

        async def check(prefix: str = url, patience: float = PATIENCE, **demands: object) -> Outcome:
            wanted = {"trusted": (TrustedKey(log.key.public_key, log.origin),), **demands}
            state = load(state_file)
            async with Opened(4) as session:
                return await Audit(
                    Source(prefix, session),
                    Demands(**wanted),  # type: ignore[arg-type]
                    state,
                    save=lambda now: save(state_file, now),
                    tell=lambda done, size: None,
                    clock=lambda: log.date_ms + 1000,
                    patience=patience,
                ).run()

        yield check


def classes(outcome: Outcome) -> list[str]:
    return [type(finding).__name__ for finding in outcome.findings]


async def test_a_log_that_keeps_its_word_is_found_to_do_so_and_followed(log: PublicLog, check: Check) -> None:
    first = await check()
    assert first.findings == []
    assert (first.origin, first.tree_size, first.read, first.endpoints) == (log.origin, 700, 700, 3)
    log.grow(3)
    log.publish()
    second = await check()
    assert (second.findings, second.tree_size, second.read) == ([], 703, 3)
    log.publish()
    third = await check()
    assert (third.findings, third.read) == ([], 0)


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 511, 512, 65_537])
async def test_every_size_around_the_edges_of_tiles(size: int, state_file: Path) -> None:
    log = PublicLog()
    log.grow(size // 2)
    log.publish()
    with serving(log) as url:
        for count in (0, size - size // 2):
            log.grow(count)
            log.publish()
            state = load(state_file)
            async with Opened(16) as session:
                outcome = await Audit(
                    Source(url, session),
                    Demands(trusted=(TrustedKey(log.key.public_key, log.origin),)),
                    state,
                    save=lambda now: save(state_file, now),
                    tell=lambda done, size: None,
                ).run()
            assert outcome.findings == []
        assert outcome.tree_size == size
        assert outcome.root == log.root()


async def test_erased_leaves_are_counted_and_their_endpoints_go_on(log: PublicLog, check: Check) -> None:
    log.erased |= {0, 1, 2, 5, 8, 100, 300, 699}
    outcome = await check()
    assert outcome.findings == []
    assert outcome.erased == 8
    log.grow(9)
    log.erased.add(701)
    log.publish()
    assert (await check()).findings == []


async def test_all_leaves_of_an_endpoint_may_be_erased(log: PublicLog, check: Check) -> None:
    log.erased |= set(range(300))
    assert (await check()).findings == []


async def test_a_missing_record_is_a_gap_each_time_it_is_looked_for(log: PublicLog, check: Check) -> None:
    log.grow(5, skip=True)
    log.publish()
    for _ in range(2):
        outcome = await check()
        assert classes(outcome) == ["GapError"]
        assert "are not in the log" in str(outcome.findings[0])


async def test_a_gap_is_not_forgotten_when_the_walk_does_not_come_to_its_end(
    log: PublicLog, check: Check, state_file: Path
) -> None:
    log.grow(5, skip=True)
    log.grow(900)
    log.publish()
    log.overrides["tile/entries/006.p/69"] = 403
    assert classes(await check()) == ["SourceError"]
    assert load(state_file).progress.tree.size == 1536
    del log.overrides["tile/entries/006.p/69"]
    for _ in range(2):
        assert classes(await check()) == ["GapError"]


async def test_of_very_many_gaps_some_are_told(log: PublicLog, check: Check) -> None:
    for _ in range(3 * MOST_GAPS):
        log.grow(1, skip=True)
    log.publish()
    assert classes(await check()) == ["GapError"] * MOST_GAPS


async def test_a_gap_is_not_excused_by_erasing_something_else(log: PublicLog, check: Check) -> None:
    log.erased |= {10, 20, 30}
    log.grow(5, skip=True)
    log.publish()
    assert classes(await check()) == ["GapError"]


async def test_a_record_that_does_not_name_the_one_before_it_is_a_gap(log: PublicLog, check: Check) -> None:
    log.grow(1, previous_leaf_hash=bytes(32))
    log.publish()
    assert classes(await check()) == ["GapError"]


async def test_a_doubled_record_is_a_gap(log: PublicLog, check: Check) -> None:
    log.grow(1, endpoint_sequence=5)
    log.publish()
    assert classes(await check()) == ["GapError"]


async def test_a_leaf_that_is_served_differently_is_found(log: PublicLog, check: Check) -> None:
    log.leaves[300] = log.leaves[301]
    assert classes(await check()) == ["InclusionError"]


async def test_leaves_and_tile_changed_together_do_not_make_the_signed_root(log: PublicLog, check: Check) -> None:
    log.leaves[300] = log.leaf(log._endpoints[0], 100, bytes(32))
    tile = log._tiles[tiles.Tile(0, 1)]
    place = (300 - 256) * 32
    log._tiles[tiles.Tile(0, 1)] = tile[:place] + leaf_hash(log.leaves[300]) + tile[place + 32 :]
    assert "InclusionError" in classes(await check())


async def test_a_tile_above_the_leaves_that_does_not_follow_from_them_is_found(log: PublicLog, check: Check) -> None:
    log.overrides["tile/1/000.p/2"] = bytes(64)
    assert classes(await check()) == ["InclusionError"]


async def test_a_leaf_that_is_not_canonical_is_found(log: PublicLog, check: Check) -> None:
    log.add([b'{"type":"kapsel.delivery-attempt","v":1}'])
    log.publish()
    outcome = await check()
    assert classes(outcome) == ["MalformedLeafError"]
    assert "leaf 700" in str(outcome.findings[0])


async def test_a_leaf_dated_after_its_head_is_found(log: PublicLog, check: Check) -> None:
    log.grow(1, timestamp=log.date_ms + 3_600_000)
    log.publish()
    assert classes(await check()) == ["MalformedLeafError"]


async def test_another_root_for_the_audited_size_is_a_split_view_with_evidence(log: PublicLog, check: Check) -> None:
    await check()
    first = log.note
    log.publish(root=bytes(32))
    (finding,) = (await check()).findings
    assert isinstance(finding, SplitViewError)
    assert finding.heads == (first, log.note)
    assert all(Note.parse(head).verify([log.key]) for head in finding.heads)


async def test_a_rewritten_log_is_found_by_whoever_audited_it_before(log: PublicLog, check: Check) -> None:
    await check()
    other = PublicLog(seed=0)
    other._random.seed(99)
    other.grow(900)
    other.publish(after_ms=10_000)
    with serving(other) as url:
        assert classes(await check(prefix=url)) == ["ConsistencyError"]


async def test_a_smaller_head_dated_later_proves_that_the_log_cheats(log: PublicLog, check: Check) -> None:
    await check()
    log.publish(size=600, root=bytes(32))
    (finding,) = (await check()).findings
    assert isinstance(finding, SplitViewError)


async def test_an_older_head_again_is_behind(log: PublicLog, check: Check) -> None:
    older = log.note
    log.grow(10)
    log.publish()
    await check()
    log.note = older
    assert classes(await check()) == ["BehindError"]


async def test_the_same_leaves_under_an_older_head_are_behind(log: PublicLog, check: Check, state_file: Path) -> None:
    older = log.note
    log.publish()
    await check()
    date = load(state_file).verified_ms
    log.note = older
    assert classes(await check()) == ["BehindError"]
    assert load(state_file).verified_ms == date


async def test_two_heads_of_one_size_are_told_though_no_leaf_is_served(log: PublicLog, check: Check) -> None:
    shown = log.note
    kept = log.publish(root=bytes(32))
    log.note = shown
    log.overrides["tile/0/000"] = 403
    outcome = await check(checkpoints=(("kept.txt", kept),), max_age_ms=500)
    assert sorted(classes(outcome)) == ["SourceError", "SplitViewError", "StaleHeadError"]
    (split,) = (finding for finding in outcome.findings if isinstance(finding, SplitViewError))
    assert set(split.heads) == {kept, shown}


async def test_heads_that_two_others_hold_are_compared_with_each_other(log: PublicLog, check: Check) -> None:
    first, second = log.note, log.publish(root=bytes(32))
    log.grow(50)
    log.publish()
    log.overrides["tile/0/000"] = 403
    outcome = await check(checkpoints=(("first.txt", first), ("second.txt", second)))
    assert classes(outcome) == ["SplitViewError", "SourceError"]


async def test_a_head_that_was_shown_is_remembered_though_its_leaves_were_not(log: PublicLog, check: Check) -> None:
    log.overrides["tile/0/000"] = 403
    log.publish(root=bytes(32))
    shown = log.note
    assert classes(await check()) == ["SourceError"]
    log.publish()
    del log.overrides["tile/0/000"]
    for _ in range(2):
        (finding,) = (await check()).findings
        assert isinstance(finding, SplitViewError)
        assert finding.heads == (shown, log.note)
        log.grow(300)
        log.publish()


async def test_heads_that_were_found_to_be_in_the_log_are_remembered_no_more(
    log: PublicLog, check: Check, state_file: Path
) -> None:
    log.overrides["tile/0/000"] = 403
    for _ in range(3):
        assert classes(await check()) == ["SourceError"]
        log.grow(5)
        log.publish()
    assert len(load(state_file).seen) == 3
    del log.overrides["tile/0/000"]
    outcome = await check()
    assert (outcome.findings, outcome.agreed) == ([], [])
    assert load(state_file).seen == []


async def test_a_larger_head_that_is_not_dated_later_is_refused(log: PublicLog, check: Check) -> None:
    await check()
    log.grow(1, timestamp=START_MS)
    log.publish(after_ms=-10)
    assert classes(await check()) == ["ConsistencyError"]


async def test_a_head_by_a_stranger_and_a_forged_one_are_refused(log: PublicLog, check: Check) -> None:
    note = log.note
    log.note = note.replace("\n700\n", "\n701\n")
    assert classes(await check()) == ["SignatureError"]
    stranger = VerifierKey(log.origin, bytes(SigningKey(bytes(32)).verify_key))
    log.note = note
    outcome = await check(trusted=(TrustedKey(stranger.public_key, log.origin),))
    assert classes(outcome) == ["UntrustedKeyError"]


async def test_whoever_pins_the_newest_key_alone_goes_on_from_a_head_by_the_one_before(
    log: PublicLog, check: Check
) -> None:
    await check()
    hand_over(log)
    assert (await check(trusted=(TrustedKey(log.key.public_key, log.origin),))).findings == []


async def test_a_head_that_is_too_old_is_said_and_all_else_checked(log: PublicLog, check: Check) -> None:
    assert (await check(max_age_ms=5_000)).findings == []
    outcome = await check(max_age_ms=500)
    assert classes(outcome) == ["StaleHeadError"]
    assert outcome.tree_size == 700


async def test_an_interrupted_walk_goes_on_where_it_was(log: PublicLog, state_file: Path) -> None:
    log.grow(20_000)
    log.publish()
    trusted = (TrustedKey(log.key.public_key, log.origin),)
    with serving(log) as url:

        def audit(state: State, session: object, tell: Callable[[int, int], None]) -> Audit:
            return Audit(
                Source(url, session),  # type: ignore[arg-type]
                Demands(trusted=trusted),
                state,
                save=lambda now: save(state_file, now),
                tell=tell,
            )

        async with Opened(4) as session:
            reached = asyncio.Event()
            running = asyncio.create_task(
                audit(State(), session, lambda done, size: reached.set() if done > 8000 else None).run()
            )
            await asyncio.wait_for(reached.wait(), 240)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            state = load(state_file)
            assert 8000 < state.progress.tree.size < 20_700
            assert state.verified is None
            before = state.progress.tree.size
            outcome = await audit(state, session, lambda done, size: None).run()
            assert outcome.findings == []
            assert outcome.read == 20_700 - before


async def test_what_a_server_lied_about_in_an_interrupted_walk_is_read_again(
    log: PublicLog, check: Check, state_file: Path
) -> None:
    """The first walk ends early, over leaves that nobody signed; the second finds that, the third reads the truth."""
    honest = dict(log._tiles), list(log.leaves)
    log.leaves[10] = log.leaf(log._endpoints[1], 3, leaf_hash(log.leaves[7]))
    tile = log._tiles[tiles.Tile(0, 0)]
    log._tiles[tiles.Tile(0, 0)] = tile[: 10 * 32] + leaf_hash(log.leaves[10]) + tile[11 * 32 :]
    log.overrides["tile/entries/002.p/188"] = 403
    assert classes(await check()) == ["SourceError"]
    assert load(state_file).progress.tree.size == 512
    del log.overrides["tile/entries/002.p/188"]
    log._tiles, log.leaves = honest
    assert classes(await check()) == ["InclusionError"]
    assert (await check()).findings == []


@pytest.mark.parametrize(
    ("path", "said", "name"),
    [
        ("checkpoint", b"x" * 300_000, "SourceError"),
        ("checkpoint", b"garbage", "MalformedNoteError"),
        ("checkpoint", b"\xff\xfe", "SourceError"),
        ("checkpoint", 404, "SourceError"),
        ("checkpoint", 301, "SourceError"),
        ("tile/0/000", b"x" * 8193, "SourceError"),
        ("tile/0/000", b"x" * 8191, "MalformedTileError"),
        ("tile/0/000", 404, "SourceError"),
        ("tile/entries/000", b"", "MalformedTileError"),
        ("tile/entries/000", b"\x00\x01", "MalformedTileError"),
        ("tile/entries/000", bytes(600), "MalformedTileError"),
        ("tile/entries/000", bytes(512), None),  # all erased: nothing is left to check but hashes
    ],
)
async def test_a_server_that_lies_is_caught_with_its_class(
    log: PublicLog, check: Check, path: str, said: bytes | int, name: str | None
) -> None:
    log.overrides[path] = said
    found = classes(await check())
    assert found == ([] if name is None else [name])


async def test_a_server_cannot_have_itself_asked_without_a_pause(log: PublicLog, check: Check) -> None:
    puts_off = [429] * 4
    log.retry_after = "0"
    log.overrides["tile/entries/001"] = lambda: puts_off.pop() if puts_off else log.truth("tile/entries/001")
    begun = time.monotonic()
    assert (await check()).findings == []
    assert time.monotonic() - begun >= 4
    assert puts_off == []


# Keys that follow each other.


def succession(log: PublicLog, successor: SigningKey) -> KeySuccession:
    made = KeySuccession(
        not_before=log.date_ms,
        origin=log.origin,
        predecessor=log.key,
        predecessor_not_after=log.date_ms + 10_000,
        predecessor_signature=bytes(64),
        salt=bytes(32),
        successor=VerifierKey(log.origin, bytes(successor.verify_key)),
        successor_signature=bytes(64),
        timestamp=log.date_ms,
    )
    message = made.message()
    return made._replace(
        predecessor_signature=log.secret.sign(message).signature,
        successor_signature=successor.sign(message).signature,
    )


def hand_over(log: PublicLog, *, announced: bool = True) -> bytes:
    """Have another key sign from now on; return the leaf that announces it."""
    successor = SigningKey(bytes([9]) * 32)
    leaf = succession(log, successor).encode()
    log.key_set = encode_key_set(
        [
            TrustedKey(log.key.public_key, log.origin),
            TrustedKey(bytes(successor.verify_key), log.origin, succession=leaf),
        ]
    )
    if announced:
        log.add([leaf])
    log.secret, log.key = successor, VerifierKey(log.origin, bytes(successor.verify_key))
    log.publish()
    return leaf


async def test_a_key_that_the_log_announced_is_followed_and_remembered(log: PublicLog, check: Check) -> None:
    pinned = (TrustedKey(log.key.public_key, log.origin),)
    await check(trusted=pinned)
    hand_over(log)
    outcome = await check(trusted=pinned)
    assert outcome.findings == []
    assert log.key.encode() in outcome.statements[0]
    log.grow(4)
    log.key_set = b""
    log.publish()
    assert (await check(trusted=pinned)).findings == []


async def test_a_key_that_was_announced_everywhere_but_in_the_log_is_refused(log: PublicLog, check: Check) -> None:
    pinned = (TrustedKey(log.key.public_key, log.origin),)
    hand_over(log, announced=False)
    assert classes(await check(trusted=pinned)) == ["InclusionError"]


async def test_a_gap_does_not_make_an_announced_key_one_that_was_not(log: PublicLog, check: Check) -> None:
    pinned = (TrustedKey(log.key.public_key, log.origin),)
    await check(trusted=pinned)
    log.grow(1, skip=True)
    hand_over(log)
    assert classes(await check(trusted=pinned)) == ["GapError"]


async def test_keys_of_other_logs_and_keys_that_were_not_needed_are_not_looked_for_in_the_log(
    log: PublicLog, check: Check
) -> None:
    pinned = (TrustedKey(log.key.public_key, log.origin),)
    old = PublicLog("log.example.com/old")
    foreign = succession(old, SigningKey(bytes([8]) * 32))
    hand_over(log)
    not_yet = succession(log, SigningKey(bytes([7]) * 32))
    log.key_set = encode_key_set(
        [
            *parse_key_set(log.key_set),
            TrustedKey(foreign.successor.public_key, old.origin, succession=foreign.encode()),
            TrustedKey(not_yet.successor.public_key, log.origin, succession=not_yet.encode()),
        ]
    )
    assert (await check(trusted=(*pinned, TrustedKey(old.key.public_key, old.origin)))).findings == []


async def test_a_log_that_is_full_of_announcements_is_refused(log: PublicLog, check: Check) -> None:
    stranger = PublicLog(log.origin)
    stranger.secret = SigningKey(bytes([6]) * 32)
    stranger.key = VerifierKey(log.origin, bytes(stranger.secret.verify_key))
    log.add([succession(stranger, SigningKey(bytes([7]) * 32)).encode()] * (MOST_KEYS + 1))
    log.publish()
    assert classes(await check()) == ["MalformedLeafError"]


async def test_an_announcement_that_one_of_the_keys_did_not_sign_is_refused(log: PublicLog, check: Check) -> None:
    forged = succession(log, SigningKey(bytes([9]) * 32))._replace(successor_signature=bytes(64))
    log.add([forged.encode()])
    log.publish()
    assert classes(await check()) == ["SignatureError"]


async def test_a_log_may_say_in_its_first_leaf_alone_that_it_continues_another(
    check: Check, log: PublicLog, state_file: Path
) -> None:
    old = PublicLog("log.example.com/old")
    statement = LogContinuation(
        checkpoint=old.note.encode(), origin=log.origin, reason="moved", salt=bytes(32), timestamp=log.date_ms
    )
    log.add([statement.encode()])
    log.publish()
    assert classes(await check()) == ["MalformedLeafError"]
    state_file.unlink()
    fresh = PublicLog(log.origin)
    fresh.add([statement.encode()])
    fresh.grow(5)
    fresh.publish()
    with serving(fresh) as url:
        outcome = await check(prefix=url)
    assert outcome.findings == []
    (said,) = outcome.statements
    assert said.startswith("leaf 0: the log continues log.example.com/old, which ended with 0 leaves: not checked")


@pytest.mark.parametrize("kind", ["continuation", "succession"])
async def test_a_statement_about_another_log_is_refused(check: Check, kind: str) -> None:
    old, fresh = PublicLog("log.example.com/old"), PublicLog()
    statement: LogContinuation | KeySuccession = succession(old, SigningKey(bytes([8]) * 32))
    if kind == "continuation":
        statement = LogContinuation(
            checkpoint=old.note.encode(), origin="log.example.com/new", reason="moved", salt=bytes(32), timestamp=1
        )
    fresh.add([statement.encode()])
    fresh.publish()
    with serving(fresh) as url:
        outcome = await check(prefix=url)
    assert classes(outcome) == ["MalformedLeafError"]
    assert str(outcome.findings[0]).startswith("leaf 0 is a statement about another log")


def ended(leaves: int) -> PublicLog:
    """Return a log that a new one continues."""
    old = PublicLog("log.example.com/old")
    old.grow(leaves)
    old.publish()
    return old


def continuing(old: PublicLog) -> PublicLog:
    new = PublicLog(seed=1)
    statement = LogContinuation(
        checkpoint=old.note.encode(), origin=new.origin, reason="moved", salt=bytes(32), timestamp=new.date_ms
    )
    new.add([statement.encode()])
    new.publish()
    return new


def keys_of(*logs: PublicLog) -> tuple[TrustedKey, ...]:
    return tuple(TrustedKey(one.key.public_key, one.origin) for one in logs)


async def test_a_log_continues_another_where_the_audit_of_that_one_ended(check: Check) -> None:
    old = ended(7)
    new = continuing(old)
    with serving(new) as url:
        outcome = await check(prefix=url, trusted=keys_of(new, old), continues=Audited(file="old.json", note=old.note))
        assert outcome.findings == []
        assert outcome.statements == [
            "leaf 0: the log continues log.example.com/old, which ended with 7 leaves: as old.json has it"
        ]
        again = await check(prefix=url, trusted=keys_of(new), continues=Audited(file="old.json", note=old.note))
    assert again.findings == []
    assert "was not looked at" in again.statements[0]


@pytest.mark.parametrize(
    ("audited", "finding"),
    [(ended(6), "StaleHeadError"), (ended(8), "ConsistencyError"), (PublicLog("other"), "HeadMismatchError")],
    ids=["less", "more", "another"],
)
async def test_a_log_that_does_not_begin_where_the_other_ended_is_refused(
    check: Check, audited: PublicLog, finding: str
) -> None:
    new = continuing(ended(7))
    with serving(new) as url:
        for _ in range(2):
            outcome = await check(
                prefix=url, trusted=keys_of(new), continues=Audited(file="old.json", note=audited.note)
            )
            assert classes(outcome) == [finding]


async def test_two_ends_of_the_log_before_are_a_split_view_with_both_heads_as_evidence(check: Check) -> None:
    old, fork = ended(7), PublicLog("log.example.com/old")
    fork.grow(7, outcome="refused")
    fork.publish()
    new = continuing(old)
    with serving(new) as url:
        outcome = await check(prefix=url, trusted=keys_of(new), continues=Audited(file="old.json", note=fork.note))
    (found,) = outcome.findings
    assert isinstance(found, SplitViewError)
    assert found.heads == (fork.note, old.note)


async def test_the_end_of_the_log_before_is_signed_by_its_key_if_that_is_trusted(
    check: Check, state_file: Path
) -> None:
    old = ended(7)
    new, forged = continuing(old), ended(7)
    with serving(new) as url:
        (said,) = (await check(prefix=url, trusted=keys_of(new, old))).statements
    assert "signed by a key that you trust" in said
    # The last line is the small head's; the plain signature before it is cut by one byte's value.
    text, _, signatures = forged.note.partition("\n\n")
    first, rest = signatures.split("\n", 1)
    raw = bytearray(base64.b64decode(first.rpartition(" ")[2]))
    raw[-1] ^= 1
    forged.note = f"{text}\n\n{first.rpartition(' ')[0]} {base64.b64encode(raw).decode()}\n{rest}"
    other = continuing(forged)
    state_file.unlink()
    with serving(other) as url:
        assert classes(await check(prefix=url, trusted=keys_of(other, forged))) == ["SignatureError"]


# What others hold.


@pytest.fixture
def witness() -> Iterator[tuple[PublicLog, str]]:
    """A server of views: its overrides are what it shows."""
    views = PublicLog("views")
    with serving(views) as url:
        yield views, url


def view_path(log: PublicLog) -> str:
    return f"{sha256(log.origin.encode()).hexdigest()}/checkpoint"


async def test_a_witness_that_saw_the_same_log_agrees(
    log: PublicLog, check: Check, witness: tuple[PublicLog, str]
) -> None:
    views, url = witness
    views.overrides[view_path(log)] = log.note.encode()
    log.grow(1000)
    log.publish()
    outcome = await check(witnesses=(("one", url),))
    assert outcome.findings == []
    assert outcome.agreed == [("the witness one", 700)]
    log.grow(100)
    log.publish()
    outcome = await check(witnesses=(("one", url),))  # its head lies before where this audit begins to read
    assert (outcome.findings, outcome.agreed) == ([], [("the witness one", 700)])


@pytest.mark.parametrize(("said", "name"), [(bytes(8192), "InclusionError"), (bytes(8191), "MalformedTileError")])
async def test_a_tile_that_is_wrong_proves_nothing_against_the_log(
    log: PublicLog, check: Check, said: bytes, name: str
) -> None:
    kept = log.note
    log.grow(300)
    log.publish()
    assert (await check()).findings == []
    log.grow(5)
    log.publish()
    log.overrides["tile/0/002"] = said  # read in the first audit, and not in the second
    assert classes(await check(checkpoints=(("kept.txt", kept),))) == [name]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 512, 699, 768, 1024])
async def test_heads_of_all_sizes_are_compared_by_tiles(size: int, state_file: Path) -> None:
    log, other = PublicLog(), PublicLog()
    other._random.seed(99)
    for one in (log, other):
        one.grow(size)
    kept, forked = log.publish(), other.publish()
    log.grow(1100 - size)
    log.publish()
    head = Checkpoint.parse(Note.parse(log.note).text)
    with serving(log) as url:
        async with Opened(4) as session:
            source = Source(url, session)
            await views.compare_older(source, views.of_note(kept, "kept"), log.note, head)
            if size:
                with pytest.raises(SplitViewError):
                    await views.compare_older(source, views.of_note(forked, "forked"), log.note, head)


@pytest.mark.parametrize("audited_before", [False, True])
async def test_a_witness_that_saw_another_log_proves_the_split_view(
    log: PublicLog, check: Check, witness: tuple[PublicLog, str], audited_before: bool
) -> None:
    views, url = witness
    if audited_before:
        log.grow(100)
        log.publish()
        await check()
    other = PublicLog()
    other._random.seed(99)
    other.grow(650)
    other.publish()
    views.overrides[view_path(log)] = other.note.encode()
    log.grow(5)
    log.publish()
    outcome = await check(witnesses=(("one", url),))
    (finding,) = outcome.findings
    assert isinstance(finding, SplitViewError)
    assert finding.heads == (other.note, log.note)


async def test_a_log_that_shows_less_than_a_witness_saw_withholds_it(
    log: PublicLog, check: Check, witness: tuple[PublicLog, str]
) -> None:
    views, url = witness
    older = log.note
    log.grow(50)
    views.overrides[view_path(log)] = log.publish().encode()
    log.note = older
    assert classes(await check(witnesses=(("one", url),), patience=0)) == ["BehindError"]


async def test_a_log_that_publishes_what_a_witness_saw_a_while_later_withholds_nothing(
    log: PublicLog, check: Check, witness: tuple[PublicLog, str]
) -> None:
    views, url = witness
    shown = [log.note.encode()] * 3
    log.grow(50)
    views.overrides[view_path(log)] = log.publish().encode()
    log.overrides["checkpoint"] = lambda: shown.pop() if shown else log.note.encode()
    outcome = await check(witnesses=(("one", url),))
    assert (outcome.findings, outcome.tree_size, shown) == ([], 750, [])


async def test_a_log_that_has_grown_since_the_witness_was_asked_is_looked_at_again(
    log: PublicLog, check: Check, witness: tuple[PublicLog, str]
) -> None:
    views, url = witness

    def see() -> bytes:
        log.grow(50)
        return log.publish().encode()

    views.overrides[view_path(log)] = see
    outcome = await check(witnesses=(("one", url),))
    assert outcome.findings == []
    assert outcome.agreed == [("the witness one", 750)]


async def test_a_view_that_the_log_did_not_sign_and_one_that_is_not_there_are_said(
    log: PublicLog, check: Check, witness: tuple[PublicLog, str]
) -> None:
    views, url = witness
    assert classes(await check(witnesses=(("one", url),))) == ["SourceError"]
    views.overrides[view_path(log)] = log.note.replace("\n700\n", "\n701\n").encode()
    outcome = await check(witnesses=(("one", url),))
    assert classes(outcome) == ["SignatureError"]
    assert "the witness one shows what the log did not sign" in str(outcome.findings[0])
    views.overrides[view_path(log)] = PublicLog("another.example").note.encode()
    assert classes(await check(witnesses=(("one", url),))) == ["UntrustedKeyError"]


@pytest.mark.parametrize("shown_by_both", [False, True])
async def test_what_others_hold_may_be_signed_by_a_key_that_was_announced_since_the_last_audit(
    log: PublicLog, check: Check, witness: tuple[PublicLog, str], shown_by_both: bool
) -> None:
    views, url = witness
    old = log.key, log.secret
    pinned = (TrustedKey(log.key.public_key, log.origin),)
    await check(trusted=pinned)
    hand_over(log)
    log.grow(5)
    held = log.publish()
    views.overrides[view_path(log)] = held.encode()
    if shown_by_both:  # so that nobody has to follow it for the newest head
        log.key, log.secret = old
        by_the_old_one = Note.parse(log.publish(after_ms=0))
        assert by_the_old_one.text == Note.parse(held).text
        log.note += held.partition("\n\n")[2]
    outcome = await check(trusted=pinned, witnesses=(("one", url),), checkpoints=(("kept.txt", held),))
    assert outcome.findings == []
    assert outcome.agreed == [("kept.txt", 706), ("the witness one", 706)]


async def test_a_key_that_signed_what_a_witness_saw_must_be_announced_in_the_log(
    log: PublicLog, check: Check, witness: tuple[PublicLog, str]
) -> None:
    views, url = witness
    old = log.key, log.secret
    pinned = (TrustedKey(log.key.public_key, log.origin),)
    hand_over(log, announced=False)
    views.overrides[view_path(log)] = log.note.encode()
    log.key, log.secret = old
    log.publish()
    assert classes(await check(trusted=pinned, witnesses=(("one", url),))) == ["InclusionError"]


async def test_a_checkpoint_that_somebody_kept_is_compared(log: PublicLog, check: Check) -> None:
    kept = log.note
    log.grow(9)
    log.publish()
    assert (await check(checkpoints=(("kept.txt", kept),))).agreed == [("kept.txt", 700)]
    other = PublicLog()
    other._random.seed(99)
    other.grow(700)
    forked = other.publish()
    assert classes(await check(checkpoints=(("kept.txt", forked),))) == ["SplitViewError"]


async def test_a_policy_that_lists_a_log_lists_the_keys_that_this_one_announced(log: PublicLog, check: Check) -> None:
    pinned = policy.parse(f"log {log.key.encode()}\nquorum none\n")
    trusted = tuple(trusted_by(pinned))
    hand_over(log)
    assert (await check(trusted=trusted, policy=pinned)).findings == []
    log.key_set = b""
    log.grow(4)
    log.publish()
    assert (await check(trusted=trusted, policy=pinned)).findings == []  # the state remembers the announcement
    stranger = PublicLog(log.origin, seed=1).key
    other = policy.parse(f"log {stranger.encode()}\nquorum none\n")
    assert classes(await check(trusted=trusted, policy=other)) == ["UntrustedKeyError"]


async def test_a_policy_s_quorum_is_demanded_of_the_head(log: PublicLog, check: Check) -> None:
    secret = SigningKey(bytes([3]) * 32)
    key = WitnessKey("witness.example/w", bytes(secret.verify_key))
    pinned = policy.parse(f"log {log.key.encode()}\nwitness w {key.encode()}\nquorum w\n")
    assert classes(await check(policy=pinned)) == ["QuorumError"]
    text = Note.parse(log.note).text
    log.note += cosign(text, 1_767_225_700, key, lambda message: secret.sign(message).signature)
    outcome = await check(policy=pinned)
    assert outcome.findings == []
    assert outcome.witnessed_at == 1_767_225_700
