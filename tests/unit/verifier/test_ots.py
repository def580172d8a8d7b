"""The .ots parser against files that others published and against the reference library; blocks against their work."""

from hashlib import sha256
from pathlib import Path as File

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentimestamps.core.notary import BitcoinBlockHeaderAttestation, PendingAttestation
from opentimestamps.core.op import OpRIPEMD160
from opentimestamps.core.serialize import BytesDeserializationContext, BytesSerializationContext
from opentimestamps.core.timestamp import DetachedTimestampFile

from kapsel_verifier import ots, ots_paths
from kapsel_verifier.errors import (
    AnchorError,
    MalformedTimestampError,
    TooLargeError,
    UnsupportedProofError,
    VerificationError,
)
from kapsel_verifier.ots import BlockClaim, Promise, Timestamp
from kapsel_verifier.ots_paths import (
    APPEND,
    HEXLIFY,
    KECCAK256,
    PREPEND,
    REVERSE,
    RIPEMD160,
    SHA1,
    SHA256,
    Attestation,
    Path,
    Step,
)

PUBLISHED = File(__file__).parents[2] / "vectors" / "published"
NAMES = sorted(path.stem for path in PUBLISHED.glob("*.ots"))
HELLO = (PUBLISHED / "hello-world.ots").read_bytes()
HEADER = ots.read_header((PUBLISHED / "block-358391.hex").read_bytes())
MINED_MS = 1_432_827_678_000
# That file begins with RIPEMD-160, which is not followed: its path from there on is what a file of today looks like.
RIPEMD = bytes.fromhex("1df8859e60bc679503d16dcb870e6ce91a57e9df")
FROM_THERE = Timestamp(RIPEMD, tuple(path._replace(steps=path.steps[1:]) for path in ots.parse(HELLO).paths))
OLD = 40_000_000_000  # less than the difficulty of the time in which that block was found
DIGEST = sha256(b"checkpoint").digest()

attestations = st.one_of(
    st.builds(ots_paths.bitcoin, st.integers(0, 2**40)),
    st.builds(ots_paths.pending, st.text("abcxyzABC0189-._/:", max_size=40)),
    st.builds(
        Attestation,
        st.binary(min_size=8, max_size=8).filter(lambda tag: tag not in (ots_paths.PENDING, ots_paths.BITCOIN)),
        st.binary(max_size=40),
    ),
)
steps = st.one_of(
    st.builds(Step, st.sampled_from([APPEND, PREPEND]), st.binary(min_size=1, max_size=40)),
    st.sampled_from([Step(SHA256), Step(SHA1), Step(RIPEMD160), Step(KECCAK256), Step(HEXLIFY), Step(REVERSE)]),
)
# Few different steps, so that paths share beginnings.
few = st.sampled_from([Step(SHA256), Step(APPEND, b"a"), Step(APPEND, b"b"), Step(PREPEND, b"a")])
paths = st.builds(Path, st.one_of(st.lists(few, max_size=6), st.lists(steps, max_size=6)).map(tuple), attestations)
timestamps = st.builds(
    Timestamp,
    st.binary(min_size=32, max_size=32),
    st.lists(paths, min_size=1, max_size=8).map(lambda drawn: ots_paths.ordered(drawn, 32)),
)


# What the library thinks of the step that nobody uses.
pytestmark = pytest.mark.filterwarnings("ignore:OpReverse may get removed:PendingDeprecationWarning")


def reference(data: bytes) -> DetachedTimestampFile:
    return DetachedTimestampFile.deserialize(BytesDeserializationContext(data))


def paths_file(tail: bytes) -> bytes:
    """Return a file of DIGEST with this behind the digest."""
    return Timestamp(DIGEST, (Path((), ots_paths.bitcoin(1)),)).encode()[:65] + tail


@pytest.mark.parametrize("name", NAMES)
def test_a_published_file_comes_back_byte_for_byte(name: str) -> None:
    data = (PUBLISHED / f"{name}.ots").read_bytes()
    assert ots.parse(data).encode() == data


def test_a_published_file_says_which_calendars_promise() -> None:
    promises = ots.parse((PUBLISHED / "two-calendars.ots").read_bytes()).promises()
    assert [promise.uri for promise in promises] == [
        "https://alice.btc.calendar.opentimestamps.org",
        "https://bob.btc.calendar.opentimestamps.org",
    ]
    # What the calendars were asked about, as they number it: four bytes of time, a hash and eight bytes of theirs.
    assert [len(promise.message) for promise in promises] == [44, 44]


def test_an_attestation_of_an_unknown_kind_is_kept_and_says_nothing() -> None:
    timestamp = ots.parse((PUBLISHED / "known-and-unknown.ots").read_bytes())
    assert [path.attestation.tag.hex() for path in timestamp.paths] == ["83dfe30d2ef90c8e", "0102030405060708"]
    assert len(timestamp.promises()) == 1
    assert timestamp.blocks() == []


def test_the_first_timestamp_of_all_holds_against_its_block() -> None:
    assert ots.of_file(HELLO, b"Hello World!\n").paths[0].steps[0] == Step(RIPEMD160)
    assert OpRIPEMD160()(sha256(b"Hello World!\n").digest()) == RIPEMD
    assert [claim.height for claim in FROM_THERE.blocks()] == [358391]
    assert (
        FROM_THERE.blocks()[0].merkle_root[::-1].hex()
        == "8a1b66ecb7cbd07d8139a7e7d7f2c41aab1f5009b8364aaf61d03ad245e47e00"
    )

    anchor = ots.check(FROM_THERE, HEADER, not_before_ms=MINED_MS, min_difficulty=OLD)

    assert (anchor.height, anchor.day, anchor.time) == (358391, "2015-05-28", 1432827678)
    assert anchor.block_hash.hex() == "000000000000000003e892881a8cdcdc117c06d444057c98b6f04a9ee75a2319"


def test_a_timestamp_of_another_file_is_refused() -> None:
    with pytest.raises(AnchorError, match="of another file"):
        ots.of_file(HELLO, b"Hello World!")


def test_a_block_that_was_easier_to_make_than_it_may_be_is_refused() -> None:
    with pytest.raises(AnchorError, match="too easy"):
        ots.check(FROM_THERE, HEADER)
    with pytest.raises(AnchorError, match="too easy"):
        ots.check(FROM_THERE, HEADER, min_difficulty=50_000_000_000)
    assert ots.check(FROM_THERE, HEADER, min_difficulty=48_807_487_244).height == 358391


@given(st.integers(0, 639))
def test_a_header_with_any_bit_flipped_is_refused(bit: int) -> None:
    flipped = bytearray(HEADER)
    flipped[bit // 8] ^= 1 << bit % 8
    with pytest.raises(AnchorError):
        ots.check(FROM_THERE, bytes(flipped), min_difficulty=1)


@pytest.mark.parametrize("size", [0, 79, 81, 160])
def test_a_header_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(AnchorError, match="80 bytes"):
        ots.check(FROM_THERE, bytes(size))


@pytest.mark.parametrize("bits", ["00000000", "ffffff00", "00008003", "ffff8020", "ffff7fff", "ffffff23", "01000002"])
def test_a_target_that_is_none_is_refused(bits: str) -> None:
    with pytest.raises(AnchorError, match="is none"):
        ots.check(FROM_THERE, HEADER[:72] + bytes.fromhex(bits) + HEADER[76:])


def test_a_block_of_another_timestamp_is_refused() -> None:
    other = Timestamp(DIGEST, (Path((Step(SHA256),), ots_paths.bitcoin(358391)),))
    with pytest.raises(AnchorError, match="names 358391"):
        ots.check(other, HEADER, min_difficulty=OLD)


def test_a_timestamp_that_only_promises_is_not_anchored() -> None:
    incomplete = ots.parse((PUBLISHED / "incomplete.ots").read_bytes())
    with pytest.raises(AnchorError, match="no block of Bitcoin yet"):
        ots.check(incomplete, HEADER, min_difficulty=OLD)


def test_what_claims_to_be_made_a_day_after_the_block_is_refused() -> None:
    day = ots.DAY * 1000
    assert ots.check(FROM_THERE, HEADER, not_before_ms=MINED_MS + day, min_difficulty=OLD).height == 358391
    with pytest.raises(AnchorError, match="a day older"):
        ots.check(FROM_THERE, HEADER, not_before_ms=MINED_MS + day + 1, min_difficulty=OLD)


def test_a_path_over_a_hash_that_is_not_followed_says_nothing() -> None:
    assert ots.parse(HELLO).blocks() == []
    for tag in (SHA1, RIPEMD160, KECCAK256):
        promise = Timestamp(DIGEST, (Path((Step(tag), Step(SHA256)), ots_paths.pending("a")),))
        assert ots.parse(promise.encode()) == promise
        assert promise.promises() == []


def test_a_block_must_hold_32_bytes() -> None:
    timestamp = Timestamp(DIGEST, (Path((Step(HEXLIFY),), ots_paths.bitcoin(1)), Path((), ots_paths.bitcoin(2))))
    assert timestamp.blocks() == [BlockClaim(2, DIGEST)]


def test_every_step_does_what_its_name_says() -> None:
    assert ots_paths.follow(b"\x01\x02", [Step(APPEND, b"\x03")]) == b"\x01\x02\x03"
    assert ots_paths.follow(b"\x01\x02", [Step(PREPEND, b"\x03")]) == b"\x03\x01\x02"
    assert ots_paths.follow(b"\x01\x02", [Step(REVERSE)]) == b"\x02\x01"
    assert ots_paths.follow(b"\x01\x0a", [Step(HEXLIFY)]) == b"010a"
    assert ots_paths.follow(b"\x01\x02", [Step(SHA256)]) == sha256(b"\x01\x02").digest()


@given(timestamps)
def test_what_is_written_is_read_again(timestamp: Timestamp) -> None:
    assert ots.parse(timestamp.encode()) == timestamp


@given(timestamps)
def test_the_reference_library_reads_the_same(timestamp: Timestamp) -> None:
    read = reference(timestamp.encode())
    assert read.file_digest == timestamp.digest
    theirs = list(read.timestamp.all_attestations())
    promises = [Promise(one.uri, message) for message, one in theirs if type(one) is PendingAttestation]
    claims = [(one.height, message) for message, one in theirs if type(one) is BitcoinBlockHeaderAttestation]
    # It follows every hash, and calls attestations of one kind at one message the same however one gets there.
    assert set(timestamp.promises()) <= set(promises)
    assert {(claim.height, claim.merkle_root) for claim in timestamp.blocks()} <= set(claims)
    if all(step.tag not in (SHA1, RIPEMD160, KECCAK256) for path in timestamp.paths for step in path.steps):
        assert set(timestamp.promises()) == set(promises)
        assert len(timestamp.paths) == len(theirs)


@given(timestamps)
def test_what_the_reference_library_writes_is_read(timestamp: Timestamp) -> None:
    context = BytesSerializationContext()
    reference(timestamp.encode()).serialize(context)
    assert set(ots.parse(context.getbytes()).paths) == set(timestamp.paths)


@given(timestamps, st.data())
def test_a_file_with_any_byte_changed_is_refused_or_says_something_else(
    timestamp: Timestamp, data: st.DataObject
) -> None:
    encoded = timestamp.encode()
    at = data.draw(st.integers(0, len(encoded) - 1))
    changed = bytearray(encoded)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        assert ots.parse(bytes(changed)) != timestamp
    except VerificationError:
        pass


@given(timestamps, st.data())
def test_a_file_that_is_cut_or_longer_is_refused(timestamp: Timestamp, data: st.DataObject) -> None:
    encoded = timestamp.encode()
    cut = encoded[: data.draw(st.integers(0, len(encoded) - 1))]
    longer = encoded + data.draw(st.binary(min_size=1, max_size=4))
    with pytest.raises(MalformedTimestampError):
        ots.parse(cut)
    with pytest.raises(MalformedTimestampError, match="bytes after its end"):
        ots.parse(longer)


@given(st.binary(max_size=300))
def test_noise_is_refused_by_its_class_alone(noise: bytes) -> None:
    try:
        ots.parse(paths_file(noise))
    except MalformedTimestampError:
        pass


BLOCK = bytes.fromhex("000588960d73d719010101")  # the attestation of block 1


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b"", "ends too early"),
        (b"\xff" + BLOCK + BLOCK, "twice"),
        (b"\xff\x08" + BLOCK + b"\x08" + BLOCK[:-1] + b"\x02", "twice"),
        (b"\xff\xff" + BLOCK + BLOCK, "unknown kind ff"),
        (b"\x09" + BLOCK, "unknown kind 09"),
        (b"\xf0\x00" + BLOCK, "adds nothing"),
        (b"\xf0\x81\x00a" + BLOCK, "written longer"),
        (b"\xf0\x81\x80\x80\x80\x80\x80\x80\x80\x80\x01a" + BLOCK, "too large"),
        (b"\xf0\x81\x20" + bytes(4097) + BLOCK, "longer than 4096"),
        (b"\xf0\x80\x20" + bytes(4096) + BLOCK, "message of the timestamp is longer"),
        (b"\xf3" * 8 + BLOCK, "message of the timestamp is longer"),
        (b"\x08" * 256 + BLOCK, "more than 255 steps"),
        (BLOCK[:9] + b"\x02\x01\x00", "followed by more"),
        (b"\x00" + ots_paths.PENDING + b"\x04\x03a?b", "of the form it must have"),
        (b"\x00" + ots_paths.PENDING + b"\x04\x02abc", "of the form it must have"),
        (b"\x00" + ots_paths.PENDING + b"\x02\x03a", "ends too early"),
        (b"\x00" + bytes(8) + b"\x81\x40" + bytes(8193), "longer than 8192"),
        (b"\xff" * 1 + b"".join(b"\x00" + bytes(8) + b"\x02" + i.to_bytes(2, "big") + b"\xff" for i in range(256)),
         "more than 256 paths"),
    ],
)  # fmt: skip
def test_what_breaks_the_form_is_refused(tail: bytes, message: str) -> None:
    with pytest.raises(MalformedTimestampError, match=message):
        ots.parse(paths_file(tail))


def test_limits_can_be_reached() -> None:
    for tail in (b"\x08" * 255 + BLOCK, b"\xf3" * 7 + BLOCK, b"\xf0\xe0\x1f" + bytes(4064) + BLOCK):
        assert ots.parse(paths_file(tail)).encode() == paths_file(tail)
    many = tuple(Path((Step(APPEND, bytes([i])),), ots_paths.bitcoin(i)) for i in range(256))
    assert ots.parse(Timestamp(DIGEST, many).encode()).paths == many


def test_files_of_another_kind_are_refused() -> None:
    with pytest.raises(UnsupportedProofError, match="version"):
        ots.parse(HELLO[:31] + b"\x02" + HELLO[32:])
    with pytest.raises(UnsupportedProofError, match="SHA-256"):
        ots.parse(HELLO[:32] + b"\x02" + HELLO[33:])
    with pytest.raises(TooLargeError):
        ots.parse(HELLO + bytes(ots.MAX_FILE_SIZE))
    with pytest.raises(TooLargeError):
        ots_paths.parse(bytes(ots_paths.MAX_SIZE + 1), 32)


def test_a_header_is_read_as_bytes_or_as_digits() -> None:
    assert ots.read_header(HEADER) == HEADER
    assert ots.read_header(b" " + HEADER.hex().upper().encode() + b"\r\n") == HEADER
    for wrong in (b"", HEADER[1:], HEADER.hex().encode()[1:], b"g" * 160):
        with pytest.raises(AnchorError):
            ots.read_header(wrong)
