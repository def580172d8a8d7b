from base64 import urlsafe_b64decode
from hashlib import sha256
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from kapsel_verifier import acknowledgement, ed25519
from kapsel_verifier.acknowledgement import COMPONENTS, Exchange, Offer, check, digest_field, offered, signature_base
from kapsel_verifier.errors import AcknowledgementError, MalformedKeyError, SignatureError, VerificationError
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.strict import to_base64
from kapsel_verifier.structured_fields import dictionary, encode, inner_list

DESTINATION = SigningKey(b"the destination's own seed......")
KEY = bytes(DESTINATION.verify_key)
STRANGER = SigningKey(b"somebody else's seed............")
EVENT = "01930f4e-93a2-7d3c-9f00-5f6d7a8b9c0d"
CREATED = 1_732_190_401
EXCHANGE = Exchange(
    status=200,
    response_digest=sha256(b"thanks").digest(),
    webhook_id=EVENT,
    payload_hash=sha256(b'{"order":1}').digest(),
    timestamp=CREATED * 1000 - 700,
)
INPUT = f'({" ".join(COMPONENTS)});created={CREATED};keyid="main";alg="ed25519";tag="kapsel-ack"'


def base_by_hand(parameters: str = INPUT) -> bytes:
    """The base as RFC 9421 describes it, without any of our code."""
    return (
        '"@status": 200\n'
        f'"content-digest": {digest_field(EXCHANGE.response_digest)}\n'
        f'"webhook-id";req: {EVENT}\n'
        f'"content-digest";req: {digest_field(EXCHANGE.payload_hash)}\n'
        f'"@signature-params": {parameters}'
    ).encode()


def fields(parameters: str = INPUT, base: bytes | None = None, signer: SigningKey = DESTINATION) -> dict[str, str]:
    signature = signer.sign(base or base_by_hand(parameters)).signature
    return {
        "content-digest": digest_field(EXCHANGE.response_digest),
        "signature-input": f"sig1={parameters}",
        "signature": f"sig1=:{to_base64(signature)}:",
    }


def acknowledged(leaf: Leaf, **changed: Any) -> Leaf:
    """A leaf of the exchange above, with its acknowledgement."""
    return leaf._replace(**{
        "event_id": EVENT,
        "payload_hash": EXCHANGE.payload_hash,
        "response_status": 200,
        "response_digest": EXCHANGE.response_digest,
        "timestamp": EXCHANGE.timestamp,
        "acknowledgement_base": base_by_hand(),
        "acknowledgement_key": KEY,
        "acknowledgement_signature": DESTINATION.sign(base_by_hand()).signature,
        **changed,
    })  # fmt: skip


@pytest.fixture(scope="session")
def leaf(log: ModuleType) -> Leaf:
    found: Leaf = Leaf.parse(log.LEAVES[0])
    return acknowledged(found)


def test_the_ed25519_vector_of_rfc_9421_holds_and_its_parameters_are_written_back_as_they_are() -> None:
    # Appendix B.2.6, key of B.1.4.
    parameters = (
        '("date" "@method" "@path" "@authority" "content-type" "content-length")'
        ';created=1618884473;keyid="test-key-ed25519"'
    )
    base = (
        '"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@method": POST\n"@path": /foo\n"@authority": example.com\n'
        f'"content-type": application/json\n"content-length": 18\n"@signature-params": {parameters}'
    )
    signature = dictionary(
        "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw==:",
        "the Signature",
        AcknowledgementError,
    )["sig-b26"]
    key = urlsafe_b64decode("JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs=")
    ed25519.verify(key, base.encode(), signature.value, "the signature")  # type: ignore[union-attr, arg-type]
    read = inner_list(parameters, "the parameters", AcknowledgementError)
    assert encode(read) == parameters
    with pytest.raises(AcknowledgementError, match="does not cover exactly"):
        offered({"signature-input": f'x={parameters};tag="kapsel-ack"', "signature": "x=:AA==:", **digest()}, EXCHANGE)


def digest() -> dict[str, str]:
    return {"content-digest": digest_field(EXCHANGE.response_digest)}


def test_the_base_is_the_one_that_the_rfc_describes() -> None:
    assert signature_base(EXCHANGE, inner_list(INPUT, "the parameters", AcknowledgementError)) == base_by_hand()


def test_an_offer_is_read_from_a_response_and_judged_by_the_key() -> None:
    (offer,) = offered(fields(), EXCHANGE)
    assert offer == Offer(base_by_hand(), DESTINATION.sign(base_by_hand()).signature, CREATED, "main")
    assert offer.is_by(KEY)
    assert not offer.is_by(bytes(STRANGER.verify_key))


def test_an_acknowledged_leaf_is_acknowledged_by_the_key_of_the_destination_alone(leaf: Leaf) -> None:
    assert check(Leaf.parse(leaf.encode()), KEY) == acknowledgement.Acknowledgement(KEY, CREATED, "main")
    with pytest.raises(AcknowledgementError, match="another key than the one you gave"):
        check(leaf, bytes(STRANGER.verify_key))
    with pytest.raises(MalformedKeyError):
        check(leaf._replace(acknowledgement_key=b"short"), b"short")


def test_components_may_stand_in_any_order_and_parameters_too() -> None:
    parameters = (
        f'("content-digest";req "@status" "webhook-id";req "content-digest");tag="kapsel-ack";created={CREATED}'
    )
    read = inner_list(parameters, "the parameters", AcknowledgementError)
    base = signature_base(EXCHANGE, read)
    (offer,) = offered(fields(parameters, base), EXCHANGE)
    assert offer.is_by(KEY)
    assert offer.key_id is None
    assert base.splitlines()[0].startswith(b'"content-digest";req: ')


def test_white_space_that_is_no_part_of_the_value_is_not_signed() -> None:
    loose = {**fields(), "signature-input": f'other=("date"), sig1={INPUT.replace(" ", "  ").replace(";c", "; c", 1)}'}
    assert offered(loose, EXCHANGE)[0].base == base_by_hand()


@pytest.mark.parametrize("untagged", ["", 'x=("@status");created=1', 'x=();tag="web-bot-auth"', 'x=1;tag="kapsel-ac"'])
def test_a_response_without_a_tagged_signature_offers_nothing(untagged: str) -> None:
    assert offered({"signature-input": untagged, "signature": "x=:AA==:"}, EXCHANGE) == []
    assert offered({}, EXCHANGE) == []


def test_two_signatures_are_both_offered_and_five_are_refused() -> None:
    two = {**fields(), "signature-input": f"a={INPUT}, b={INPUT}", "signature": f"a=:{'A' * 86}==:, b=:{'A' * 86}==:"}
    assert len(offered(two, EXCHANGE)) == 2
    many = ", ".join(f"s{i}={INPUT}" for i in range(5))
    with pytest.raises(AcknowledgementError, match="more than 4"):
        offered({**two, "signature-input": many}, EXCHANGE)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        (INPUT.replace('"@status" ', ""), "does not cover exactly"),
        (INPUT.replace("(", '("content-type" '), "does not cover exactly"),
        (INPUT.replace("(", '("@status" '), "does not cover exactly"),
        (INPUT.replace(";req", ""), "does not cover exactly"),
        (INPUT.replace('"webhook-id";req', '"webhook-id";req;sf'), "does not cover exactly"),
        (INPUT.replace(f";created={CREATED}", ""), "does not say when"),
        (INPUT.replace(f"={CREATED}", f'="{CREATED}"'), "created is not an integer"),
        (INPUT.replace(f"={CREATED}", f"={CREATED + 301}"), "s after the try"),
        (INPUT.replace(f"={CREATED}", f"={CREATED - 301}"), "s before the try"),
        (INPUT.replace(f"={CREATED}", "=-999999999999999"), "s before the try"),
        (INPUT.replace('alg="ed25519"', 'alg="hmac-sha256"'), "alg is not ed25519"),
        (INPUT.replace('alg="ed25519"', "alg=ed25519"), "alg is not a string"),
        (INPUT.replace('tag="kapsel-ack"', "tag=kapsel-ack"), "tag is not a string"),
        (INPUT + ";sealed", "may not have"),
        (INPUT + f";expires={CREATED - 1}", "expired"),
        (INPUT + ";nonce=1", "nonce is not a string"),
        (INPUT + ";nonce=?1", "nonce is not a string"),
        (INPUT + f';nonce="{"n" * 8000}"', "larger than|longer than"),
        ('1;tag="kapsel-ack"', "do not begin with a list"),
    ],
)
def test_a_signature_with_other_claims_is_refused_before_a_key_is_asked(parameters: str, says: str) -> None:
    with pytest.raises(AcknowledgementError, match=says):
        offered(fields(parameters, b"whatever"), EXCHANGE)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"content-digest": digest_field(bytes(32))}, "Content-Digest"),
        ({"content-digest": ""}, "Content-Digest"),
        ({"content-digest": digest_field(EXCHANGE.response_digest) + ", sha-512=:AA==:"}, "Content-Digest"),
        ({"signature": ""}, "missing"),
        ({"signature": "sig1=(1)"}, "no byte sequence"),
        ({"signature": 'sig1="text"'}, "no byte sequence"),
        ({"signature": "sig1=:AA==:"}, "64 bytes"),
        ({"signature": "sig1=:A:"}, "not base64"),
        ({"signature-input": f"sig1={INPUT}, sig1={INPUT}"}, "twice"),
    ],
)
def test_a_response_whose_headers_do_not_belong_together_is_refused(changed: dict[str, str], says: str) -> None:
    with pytest.raises(AcknowledgementError, match=says):
        offered({**fields(), **changed}, EXCHANGE)


def test_only_a_success_can_be_acknowledged(leaf: Leaf) -> None:
    with pytest.raises(AcknowledgementError, match="503 is not a success"):
        offered(fields(), EXCHANGE._replace(status=503))
    with pytest.raises(AcknowledgementError, match="500 is not a success"):
        check(leaf._replace(response_status=500), KEY)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"event_id": "01930f4e-93a2-7d3c-9f00-5f6d7a8b9c0e"}, '"webhook-id";req'),
        ({"payload_hash": bytes(32)}, '"content-digest";req'),
        ({"response_digest": bytes(32)}, '"content-digest" is'),
        ({"response_status": 201}, '"@status"'),
        ({"response_status": None}, "no response"),
        ({"response_digest": None}, "no response"),
        ({"timestamp": EXCHANGE.timestamp + 400_000}, "before the try"),
        ({"timestamp": 0}, "after the try"),
        ({"acknowledgement_signature": STRANGER.sign(base_by_hand()).signature}, "signature is wrong"),
        ({"acknowledgement_base": b"\xff" + base_by_hand()}, "not ASCII"),
        ({"acknowledgement_base": base_by_hand() + b"\n"}, "does not end in its parameters"),
        ({"acknowledgement_base": base_by_hand().replace(b'("@st', b'( "@st')}, '"@signature-params"'),
        ({"acknowledgement_base": b'"date": now\n' + base_by_hand()}, '"@status"'),
        (
            dict.fromkeys(("acknowledgement_base", "acknowledgement_key", "acknowledgement_signature")),
            "has no acknowledgement",
        ),
    ],
)
def test_a_leaf_that_says_something_else_is_not_acknowledged(leaf: Leaf, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(AcknowledgementError) as caught:
        check(leaf._replace(**changed), KEY)
    assert says in str(caught.value)
    assert caught.value.exit_code == 25


@pytest.mark.parametrize("tag", ['tag="web-bot-auth"', 'nonce="x"'])
def test_what_the_destination_signed_for_another_purpose_is_no_acknowledgement(leaf: Leaf, tag: str) -> None:
    base = base_by_hand(INPUT.replace('tag="kapsel-ack"', tag))
    other = acknowledged(leaf, acknowledgement_base=base, acknowledgement_signature=DESTINATION.sign(base).signature)
    with pytest.raises(AcknowledgementError, match="tag is not kapsel-ack"):
        check(other, KEY)


def test_the_operator_cannot_acknowledge_with_a_key_of_its_own(leaf: Leaf) -> None:
    forged = leaf._replace(
        acknowledgement_key=bytes(STRANGER.verify_key),
        acknowledgement_signature=STRANGER.sign(base_by_hand()).signature,
    )
    assert check(forged, bytes(STRANGER.verify_key)).key != KEY  # right in itself, and worth nothing to an auditor
    with pytest.raises(AcknowledgementError, match="another key"):
        check(forged, KEY)
    with pytest.raises(AcknowledgementError, match="signature is wrong"):
        check(forged._replace(acknowledgement_key=KEY), KEY)


@given(st.data())
def test_one_changed_bit_of_what_was_signed_or_of_the_signature_is_refused(leaf: Leaf, data: st.DataObject) -> None:
    name = data.draw(
        st.sampled_from(["acknowledgement_base", "acknowledgement_signature", "acknowledgement_key", "payload_hash",
                         "response_digest"])
    )  # fmt: skip
    value = bytearray(getattr(leaf, name))
    place = data.draw(st.integers(0, len(value) - 1))
    value[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(AcknowledgementError):
        check(acknowledged(leaf, **{name: bytes(value)}), KEY)


@given(
    base=st.binary(max_size=300) | st.text(max_size=100).map(str.encode), signature=st.binary(min_size=64, max_size=64)
)
def test_no_base_makes_another_kind_of_error(leaf: Leaf, base: bytes, signature: bytes) -> None:
    with pytest.raises(VerificationError):
        check(leaf._replace(acknowledgement_base=base, acknowledgement_signature=signature), KEY)


def test_a_wrong_signature_is_no_error_of_the_offer_and_a_wrong_key_is() -> None:
    (offer,) = offered(fields(signer=STRANGER), EXCHANGE)
    assert not offer.is_by(KEY)
    with pytest.raises(SignatureError):
        ed25519.verify(KEY, offer.base, offer.signature, "the signature")


def holds(headers: dict[str, str], exchange: Exchange) -> bool:
    """Whether a response is acknowledged by the destination's key."""
    try:
        return any(offer.is_by(KEY) for offer in offered(headers, exchange))
    except AcknowledgementError:
        return False


@given(st.data())
def test_one_changed_character_of_a_header_makes_a_response_unacknowledged(data: st.DataObject) -> None:
    headers = fields()
    assert holds(headers, EXCHANGE)
    name = data.draw(st.sampled_from(sorted(headers)))
    value = headers[name]
    place = data.draw(st.integers(0, len(value) - 1))
    other = data.draw(st.characters(min_codepoint=0, max_codepoint=0x17F).filter(lambda one: one != value[place]))
    assert not holds({**headers, name: value[:place] + other + value[place + 1 :]}, EXCHANGE)
    assert not holds({**headers, name: value[:place] + value[place + 1 :]}, EXCHANGE)


@given(
    status=st.integers(0, 999),
    answer=st.binary(max_size=20),
    webhook_id=st.text("0123456789abcdef-", min_size=1, max_size=36),
    body=st.binary(max_size=20),
    moved=st.integers(-(10**6), 10**6),
)
def test_it_holds_for_the_exchange_that_was_signed_and_for_no_other(
    status: int, answer: bytes, webhook_id: str, body: bytes, moved: int
) -> None:
    others = [
        EXCHANGE._replace(status=status),
        EXCHANGE._replace(response_digest=sha256(answer).digest()),
        EXCHANGE._replace(webhook_id=webhook_id),
        EXCHANGE._replace(payload_hash=sha256(body).digest()),
    ]
    # The header follows the answer, as a forger's would: the signature does not.
    held = [holds({**fields(), "content-digest": digest_field(one.response_digest)}, one) for one in others]
    assert held == [one == EXCHANGE for one in others]
    near = abs(CREATED * 1000 - EXCHANGE.timestamp - moved) <= 300_000
    assert holds(fields(), EXCHANGE._replace(timestamp=EXCHANGE.timestamp + moved)) == near
