from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from kapsel_verifier import cosignature
from kapsel_verifier.cosignature import Cosignature, WitnessKey, cosign
from kapsel_verifier.errors import MalformedKeyError, MalformedNoteError, SignatureError, VerificationError
from kapsel_verifier.note import Note, VerifierKey, signature_line

# A head of a public log with the cosignature of a public witness, as they are.
REMORA = "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2"
ARCHE = "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
REAL = (
    "arche2025h1.staging.ct.transparency.dev\n1432088532\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n\n"
    "\u2014 arche2025h1.staging.ct.transparency.dev "
    "ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=\n"
    "\u2014 remora.n621.de "
    "2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==\n"
)
TEXT = "example.com/log\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SECRET = SigningKey(bytes(range(32)))
WITNESS = WitnessKey("witness.example/w1", bytes(SECRET.verify_key))
OTHER = WitnessKey("witness.example/w2", bytes(SigningKey(bytes(32)).verify_key))


def sign(message: bytes) -> bytes:
    return SECRET.sign(message).signature


LINE = cosign(TEXT, 1_700_000_000, WITNESS, sign)


def note(*lines: str) -> Note:
    return Note.parse(f"{TEXT}\n{''.join(lines)}")


def test_the_message_is_header_date_and_the_whole_text() -> None:
    assert cosignature.message(TEXT, 1679315147) == f"cosignature/v1\ntime 1679315147\n{TEXT}".encode()


def test_a_cosignature_is_found_with_its_date() -> None:
    assert cosignature.find(note(LINE), [OTHER, WITNESS]) == (
        Cosignature("witness.example/w1", WITNESS.key_id, 1_700_000_000),
    )


def test_a_cosignature_of_a_public_witness_holds() -> None:
    real = Note.parse(REAL)
    assert cosignature.find(real, [WitnessKey.parse(REMORA)]) == (
        Cosignature("remora.n621.de", bytes.fromhex("da77ade7"), 1779573024),
    )
    assert real.verify([VerifierKey.parse(ARCHE), WitnessKey.parse(REMORA)])
    with pytest.raises(SignatureError):
        cosignature.find(Note.parse(REAL.replace("1432088532", "1432088533")), [WitnessKey.parse(REMORA)])


def test_a_known_vkey_comes_back_as_it_was_read() -> None:
    key = WitnessKey.parse(REMORA)
    assert (key.name, key.key_id.hex(), key.encode()) == ("remora.n621.de", "da77ade7", REMORA)


def test_a_log_s_key_is_no_witness_s_key_and_the_other_way_round() -> None:
    log = VerifierKey(WITNESS.name, WITNESS.public_key)
    assert log.key_id != WITNESS.key_id
    with pytest.raises(MalformedKeyError):
        WitnessKey.parse(log.encode())
    with pytest.raises(MalformedKeyError):
        VerifierKey.parse(WITNESS.encode())


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "witness",
        "+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "remora.n621.de+DA77ADE7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "remora.n621.de+da77ade8+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "remora.n621.dE+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2\n",
        "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw",
        "remora.n621.de+da77ade7+",
        "a b+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "\udcff+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
        "test+5893dc2c+BtMcFiao",  # another kind: ML-DSA-44
    ],
)
def test_a_vkey_has_one_spelling(vkey: str) -> None:
    with pytest.raises(MalformedKeyError):
        WitnessKey.parse(vkey)


def test_lines_by_others_are_ignored() -> None:
    assert cosignature.find(note(LINE), [OTHER]) == ()
    assert cosignature.find(note(VerifierKey("x", bytes(32)).line(bytes(64))), [WITNESS]) == ()


def test_a_plain_signature_by_a_witness_s_key_is_no_cosignature() -> None:
    plain = VerifierKey(WITNESS.name, WITNESS.public_key).line(sign(TEXT.encode()))
    assert cosignature.find(note(plain), [WITNESS]) == ()


def test_of_two_cosignatures_by_one_witness_the_newest_counts_and_both_are_checked() -> None:
    later = cosign(TEXT, 1_700_000_500, WITNESS, sign)
    (found,) = cosignature.find(note(later, LINE), [WITNESS])
    assert found.timestamp == 1_700_000_500
    forged = WITNESS.line(1_600_000_000, bytes(64))
    with pytest.raises(SignatureError):
        cosignature.find(note(later, forged), [WITNESS])


@pytest.mark.parametrize("size", [0, 1, 64, 71, 73, 200])
def test_a_line_of_another_length_is_refused(size: int) -> None:
    line = signature_line(WITNESS.name, WITNESS.key_id, bytes(size) or b"\x00")
    with pytest.raises(MalformedNoteError):
        cosignature.find(note(line), [WITNESS])


def test_a_date_beyond_what_every_reader_can_hold_is_refused() -> None:
    with pytest.raises(MalformedNoteError):
        cosignature.find(note(WITNESS.line(2**53, bytes(64))), [WITNESS])
    with pytest.raises(MalformedNoteError):
        cosign(TEXT, 2**53, WITNESS, sign)


def test_what_a_wrong_key_signed_is_not_given_away() -> None:
    with pytest.raises(SignatureError):
        cosign(TEXT, 1_700_000_000, OTHER, sign)


@settings(deadline=None)
@given(st.data())
def test_a_change_of_any_byte_is_refused(data: st.DataObject) -> None:
    blob = bytearray(note(LINE).signatures[0].signature)
    where = data.draw(st.integers(0, len(blob) - 1))
    blob[where] ^= data.draw(st.integers(1, 255))
    with pytest.raises(VerificationError):
        WITNESS.verify(TEXT, bytes(blob))
    whole = bytearray(TEXT.encode())
    spot = data.draw(st.integers(0, len(whole) - 1))
    whole[spot] ^= data.draw(st.integers(1, 127))
    with pytest.raises(SignatureError):
        WITNESS.verify(whole.decode(errors="replace"), note(LINE).signatures[0].signature)


def test_it_stands_in_the_note_of_a_log_and_harms_none_of_its_lines(log: ModuleType) -> None:
    checkpoint = log.PROOF.checkpoint
    text = Note.parse(checkpoint).text
    cosigned = Note.parse(checkpoint + cosign(text, 1_700_000_000, WITNESS, sign))
    assert cosigned.verify([log.vkey()])
    assert len(cosignature.find(cosigned, [WITNESS])) == 1
