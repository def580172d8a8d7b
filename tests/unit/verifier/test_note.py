from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_verifier.errors import (
    MalformedKeyError,
    MalformedNoteError,
    SignatureError,
    TooLargeError,
    UntrustedKeyError,
    VerificationError,
)
from kapsel_verifier.merkle import EMPTY_ROOT
from kapsel_verifier.note import MAX_NOTE_SIZE, Checkpoint, Note, VerifierKey, signature_line

# Known answers: the keys and signatures that the tests of golang.org/x/mod/sumdb/note publish.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
ENOCH = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ENOCH_LINE = (
    "\u2014 EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)
# The example of C2SP tlog-checkpoint; its key is not published.
EXAMPLE = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
)


def verified(data: str, *vkeys: str) -> list[str]:
    return [signature.name for signature in Note.parse(data).verify(map(VerifierKey.parse, vkeys))]


def test_known_notes_verify_under_known_keys() -> None:
    note = f"{TEXT}\n{PETER_LINE}{ENOCH_LINE}"
    assert verified(note, PETER) == ["PeterNeumann"]
    assert verified(note, PETER, ENOCH) == ["PeterNeumann", "EnochRoot"]
    assert Note.parse(note).text == TEXT


def test_a_note_without_a_known_signature_is_refused() -> None:
    with pytest.raises(UntrustedKeyError):
        verified(f"{TEXT}\n{PETER_LINE}", ENOCH)


def test_one_wrong_signature_by_a_known_key_refuses_the_whole_note() -> None:
    wrong = ENOCH_LINE.replace("rwz+eBzm", "rwz+eBzn")
    assert verified(f"{TEXT}\n{PETER_LINE}{wrong}", PETER) == ["PeterNeumann"]
    with pytest.raises(SignatureError):
        verified(f"{TEXT}\n{PETER_LINE}{wrong}", PETER, ENOCH)


def test_the_last_blank_line_separates_text_and_signatures() -> None:
    assert Note.parse(f"a\n\nb\n\n{PETER_LINE}").text == "a\n\nb\n"


def test_sixteen_signatures_are_accepted_and_sixty_five_are_not() -> None:
    assert len(Note.parse(f"{TEXT}\n{PETER_LINE * 16}").signatures) == 16
    with pytest.raises(MalformedNoteError):
        Note.parse(f"{TEXT}\n{PETER_LINE * 65}")


@pytest.mark.parametrize(
    "data",
    [
        "",
        TEXT,
        f"{TEXT}\n",
        f"{TEXT}\n{PETER_LINE[:-1]}",
        f"\x01{TEXT}\n{PETER_LINE}",
        f"{TEXT}\n\u2014 Bad Name x08go/ZJkuBS\n",
        f"{TEXT}\n\u2014 a+b x08go/ZJkuBS\n",
        f"{TEXT}\n\u2014  x08go/ZJkuBS\n",
        f"{TEXT}\n\u2014 a\u00a0b x08go/ZJkuBS\n",
        f"{TEXT}\n{PETER_LINE}Unexpected line.\n",
        f"{TEXT}\n\u2014 name\n",
        "\ud800",
    ],
)
def test_what_is_no_note_is_refused(data: str) -> None:
    with pytest.raises(MalformedNoteError):
        Note.parse(data)


def test_bytes_that_are_not_utf_8_and_too_many_of_them_are_refused() -> None:
    with pytest.raises(MalformedNoteError):
        Note.parse(b"\xff" + f"{TEXT}\n{PETER_LINE}".encode())
    with pytest.raises(TooLargeError):
        Note.parse(b"a" * (MAX_NOTE_SIZE + 1))


@pytest.mark.parametrize("vkey", [PETER, ENOCH])
def test_a_vkey_comes_back_as_it_was_read(vkey: str) -> None:
    assert VerifierKey.parse(vkey).encode() == vkey


@given(st.data())
def test_a_vkey_with_any_part_cut_or_changed_is_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(PETER) - 1))
    end = data.draw(st.integers(start + 1, len(PETER)).filter(lambda end: (start, end) != (0, len(PETER))))
    where = data.draw(st.integers(0, len(PETER) - 1))
    for bad in (PETER[start:end], PETER[:where] + chr(ord(PETER[where]) + 1) + PETER[where + 1 :]):
        with pytest.raises(MalformedKeyError):
            VerifierKey.parse(bad)


@pytest.mark.parametrize(
    "vkey",
    [
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",  # a key of another length
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",  # an unknown type
        "\udcff+28c16885+AZsfhHkc/HZjBFhU04netcqVRJ2HXydqg4QLBgqznPxx",  # a byte of a command line that is no UTF-8
    ],
)
def test_a_vkey_of_another_kind_is_refused_though_its_id_fits(vkey: str) -> None:
    with pytest.raises(MalformedKeyError):
        VerifierKey.parse(vkey)


def test_two_different_keys_under_one_identity_are_refused() -> None:
    class Impostor(VerifierKey):
        @property
        def key_id(self) -> bytes:
            return VerifierKey.parse(PETER).key_id

    with pytest.raises(MalformedKeyError):
        Note.parse(f"{TEXT}\n{PETER_LINE}").verify([VerifierKey.parse(PETER), Impostor("PeterNeumann", bytes(32))])


def test_a_key_of_wrong_size_is_refused_when_used() -> None:
    with pytest.raises(MalformedKeyError):
        VerifierKey("name", bytes(31)).verify("text\n", bytes(64))


def test_no_line_is_written_under_a_name_that_cannot_be_read_back() -> None:
    for name in ("", "a b", "a+b", "a\nb", "x" * 1025):
        with pytest.raises(MalformedKeyError):
            signature_line(name, bytes(4), bytes(64))


def test_the_example_of_the_specification_is_a_checkpoint() -> None:
    note = Note.parse(EXAMPLE)
    checkpoint = Checkpoint.parse(note.text)
    assert (checkpoint.origin, checkpoint.tree_size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text() == note.text
    assert signature_line(note.signatures[0].name, note.signatures[0].key_id, note.signatures[0].signature) in EXAMPLE


lines = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


@given(lines, st.integers(1, 2**53 - 1), st.binary(min_size=32, max_size=32), st.lists(lines, max_size=3))
def test_a_checkpoint_comes_back_as_it_was_written(origin: str, size: int, root: bytes, more: list[str]) -> None:
    checkpoint = Checkpoint(origin=origin, tree_size=size, root_hash=root, extensions=tuple(more))
    assert Checkpoint.parse(checkpoint.text()) == checkpoint


def test_the_empty_tree_has_one_root() -> None:
    empty = Checkpoint(origin="log", tree_size=0, root_hash=EMPTY_ROOT)
    assert Checkpoint.parse(empty.text()) == empty
    with pytest.raises(MalformedNoteError):
        empty._replace(root_hash=bytes(32)).text()


@pytest.mark.parametrize(
    "change", [{"origin": ""}, {"origin": "a\nb"}, {"tree_size": -1}, {"tree_size": 2**53}, {"root_hash": b""}], ids=str
)
def test_a_checkpoint_that_could_not_be_read_back_is_not_written(change: dict[str, object]) -> None:
    with pytest.raises(MalformedNoteError):
        Checkpoint(origin="log", tree_size=1, root_hash=bytes(32))._replace(**change).text()  # type: ignore[arg-type]


@given(st.data())
def test_a_note_with_any_byte_changed_does_not_verify_as_another(log: ModuleType, data: st.DataObject) -> None:
    original = log.PROOF.checkpoint.encode()
    where = data.draw(st.integers(0, len(original) - 1))
    value = data.draw(st.integers(0, 255).filter(lambda value: value != original[where]))
    try:
        note = Note.parse(original[:where] + bytes([value]) + original[where + 1 :])
        note.verify([log.vkey()])
    except VerificationError:
        return
    # What may change unnoticed is a line by a key that was not asked about; the text never.
    assert note.text == Note.parse(original).text
