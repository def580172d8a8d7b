"""Makes the test vectors beside this file: for each way a proof can be wrong, a file and the refusal it must get.

Run `python tests/vectors/generate.py` after a change of format; a test holds the committed files equal to its output.
Everything follows from fixed seeds, nothing from the clock or from chance. docs/proof-format.md says how to read them.
"""

import json
import re
from collections.abc import Callable, Iterator
from hashlib import sha256, sha512
from hmac import digest as hmac_digest
from pathlib import Path
from typing import Any

from nacl.bindings import crypto_core_ed25519_add, crypto_scalarmult_ed25519_base_noclamp
from nacl.signing import SigningKey

from kapsel_verifier import (
    acknowledgement,
    errors,
    leaf_hash,
    node_hash,
    ots,
    ots_paths,
    root_from_leaves,
    strict,
    tiles,
)
from kapsel_verifier.acknowledgement import Exchange
from kapsel_verifier.consistency import ConsistencyProof
from kapsel_verifier.cosignature import WitnessKey, cosign
from kapsel_verifier.keys import TrustedKey, encode_key_set
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.note import Checkpoint, VerifierKey, signature_line
from kapsel_verifier.ots_paths import Attestation, Step
from kapsel_verifier.proof import Proof, build
from kapsel_verifier.statements import KeySuccession, LogContinuation, Statement
from kapsel_verifier.sth import SignedHead, SignedTreeHead, STHVerifier, sign_head, sth_message
from kapsel_verifier.structured_fields import InnerList, Item
from kapsel_verifier.tlog_proof import TlogProof

HERE = Path(__file__).parent
ORIGIN = "log.example.com/shop"
HEAD_MS = 1_767_225_601_000  # 2026-01-01 00:00:01 UTC
INDEX = 5
ACKNOWLEDGED = 11  # the leaf that the destination has acknowledged
SIZE = 13
BODY = b'{"order":42,"total":"19.90"}'
SENT = b'{"order":7}'  # what a transform made of it
EVENT_SALT = sha256(b"event salt").digest()

Case = dict[str, Any]
Json = dict[str, Any]


def files() -> dict[str, bytes]:
    """Return every vector file by its path relative to this folder."""
    made: dict[str, Json | list[Json]] = {f"proof/{name}.json": case for name, case in proof_cases()}
    made |= {"merkle.json": merkle(), "ed25519.json": ed25519(), "note.json": notes(), "tiles.json": tile_forms()}
    return {path: json.dumps(value, indent=1).encode() + b"\n" for path, value in made.items()}


# A log of thirteen attempts on one endpoint, and its key.


def signer(seed: str) -> SigningKey:
    return SigningKey(sha256(seed.encode()).digest())


def vkey(seed: str = "log", origin: str = ORIGIN) -> VerifierKey:
    return VerifierKey(origin, bytes(signer(seed).verify_key))


def trusted() -> TrustedKey:
    return TrustedKey(vkey().public_key, ORIGIN)


def sign(seed: str = "log") -> Callable[[bytes], bytes]:
    return lambda message: signer(seed).sign(message).signature


def uuid(label: str) -> str:
    digits = sha256(label.encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def make_leaf(sequence: int, previous: bytes | None) -> Leaf:
    delivered = sequence % 3 == 2
    leaf = Leaf(
        attempt=sequence % 3 + 1,
        delivery_attempt_id=uuid(f"attempt {sequence}"),
        delivery_id=uuid(f"delivery {sequence // 3}"),
        destination="billing",
        endpoint="shop/orders",
        endpoint_id=uuid("endpoint"),
        endpoint_sequence=sequence,
        endpoint_url="https://billing.example.com/hooks?to=billing",
        event_id=uuid(f"event {sequence // 3}"),
        outcome="delivered" if delivered else "refused",
        payload_commitment=hmac_digest(EVENT_SALT, BODY, "sha256") if sequence != 1 else None,
        payload_hash=sha256(BODY).digest(),
        previous_leaf_hash=previous,
        reason="status_200" if delivered else "status_500",
        response_digest=sha256(b"ok").digest() if delivered else None,
        response_status=200 if delivered else 500,
        salt=sha256(f"salt {sequence}".encode()).digest(),
        signature_digest=sha256(b"v1a,signature").digest(),
        timestamp=HEAD_MS - 1000 + sequence,
    )
    return acknowledged(leaf) if sequence == ACKNOWLEDGED else leaf


def acknowledged(leaf: Leaf, seed: str = "destination", **changes: Any) -> Leaf:
    """Return the leaf with an acknowledgement; `changes` are what the destination gets wrong."""
    exchange = Exchange(
        status=changes.pop("status", leaf.response_status),
        response_digest=changes.pop("response_digest", leaf.response_digest),
        webhook_id=changes.pop("webhook_id", leaf.event_id),
        payload_hash=changes.pop("payload_hash", leaf.sent),
        timestamp=leaf.timestamp,
    )
    components = changes.pop("components", acknowledgement.COMPONENTS)
    given = {"created": leaf.timestamp // 1000 + 1, "alg": "ed25519", "keyid": "billing-1", "tag": "kapsel-ack"}
    parameters = {name: value for name, value in (given | changes).items() if value is not None}
    items = tuple(
        Item(name.strip('"').partition('"')[0], {"req": True} if ";req" in name else {}) for name in components
    )
    base = acknowledgement.signature_base(exchange, InnerList(items, parameters))
    return leaf._replace(
        acknowledgement_base=base,
        acknowledgement_key=bytes(signer(seed).verify_key),
        acknowledgement_signature=sign(seed)(base),
    )


def make_leaves() -> list[bytes]:
    leaves: list[bytes] = []
    for sequence in range(SIZE):
        leaves.append(make_leaf(sequence, leaf_hash(leaves[-1]) if leaves else None).encode())
    return leaves


def path(index: int, hashes: list[bytes]) -> list[bytes]:
    """Return the inclusion path by the recursive definition of RFC 6962 2.1.1."""
    if len(hashes) == 1:
        return []
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    if index < split:
        return [*path(index, hashes[:split]), root_from_leaves(hashes[split:])]
    return [*path(index - split, hashes[split:]), root_from_leaves(hashes[:split])]


def consistency(old_size: int, hashes: list[bytes], complete: bool = True) -> list[bytes]:
    """Return the consistency proof by the recursive definition of RFC 6962 2.1.2."""
    if old_size == len(hashes):
        return [] if complete else [root_from_leaves(hashes)]
    split = 1 << ((len(hashes) - 1).bit_length() - 1)
    if old_size <= split:
        return [*consistency(old_size, hashes[:split], complete), root_from_leaves(hashes[split:])]
    return [*consistency(old_size - split, hashes[split:], False), root_from_leaves(hashes[:split])]


def make_head(
    leaves: list[bytes], key: VerifierKey | None = None, timestamp_ms: int = HEAD_MS, seed: str = "log"
) -> SignedHead:
    key = key or vkey()
    root = root_from_leaves([leaf_hash(leaf) for leaf in leaves])
    checkpoint = Checkpoint(origin=key.name, tree_size=len(leaves), root_hash=root)
    return sign_head(checkpoint, timestamp_ms, key, sign(seed))


def make_proof(leaves: list[bytes], index: int, key: VerifierKey | None = None, timestamp_ms: int = HEAD_MS) -> Proof:
    head = make_head(leaves, key, timestamp_ms)
    return build(
        leaf=leaves[index],
        leaf_index=index,
        inclusion_proof=path(index, [leaf_hash(leaf) for leaf in leaves]),
        checkpoint=head.checkpoint,
        keys=[key or vkey()],
    )


LEAVES = make_leaves()
assert len(LEAVES[INDEX]) % 3, "its base64 must have padding to be wrong in"
PROOF = make_proof(LEAVES, INDEX)


# Cases: a proof file, what the verifier is given beside it, and the refusal, if any.


def case(description: str, proof: Proof | Json | str | bytes, error: type | None, **given: Any) -> Case:
    if isinstance(proof, Proof):
        proof = proof.encode()
    elif isinstance(proof, dict):
        proof = json.dumps(proof, separators=(",", ":"))
    content = member("proof", proof.encode() if isinstance(proof, str) else proof)
    outcome = {"error": error.__name__ if error else None, "exit_code": getattr(error, "exit_code", 0)}
    if error is None:
        shown = {"claimed": "established", "witnessed": "absent", "anchored": "absent", "acknowledged": "absent"}
        given["levels"] = shown | given.get("levels", {})
    return {"description": description, **outcome, "keys": [vkey().encode()], **given, **content}


def member(name: str, data: bytes) -> Json:
    """Return the member of a case that holds the content of a file."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_hex": data.hex()}


def shortened(made: Case, name: str, text: str) -> Case:
    """Return the case with the longest run of `text` in a member written once, and how often it is to be repeated."""
    run = max(re.findall(f"(?:{re.escape(text)})+", made[name]), key=len)
    short = made[name].replace(run, text)
    assert short.replace(text, run, 1) == made[name], "what is to be repeated stands somewhere before"
    return {**made, name: short, "repeat": {"member": name, "text": text, "times": len(run) // len(text)}}


def with_(**changes: Any) -> Json:
    return {**json.loads(PROOF.encode()), **changes}


def with_sth(**changes: Any) -> Json:
    value = json.loads(PROOF.encode())
    return {**value, "sth": {**value["sth"], **changes}}


def without(name: str) -> Json:
    return {key: value for key, value in json.loads(PROOF.encode()).items() if key != name}


def raw(old: str, new: str) -> str:
    text = PROOF.encode().decode()
    assert old in text, old
    return text.replace(old, new, 1)


def with_checkpoint(old: str, new: str) -> Json:
    assert old in PROOF.checkpoint, old
    return with_(checkpoint=PROOF.checkpoint.replace(old, new, 1))


def resigned(text: str, seed: str = "log", key: VerifierKey | None = None) -> Json:
    """Return the proof with another checkpoint text, signed as the log signs, though no log would."""
    key = key or vkey()
    return with_(checkpoint=f"{text}\n{key.line(sign(seed)(text.encode()))}{PROOF.sth.line(vkey())}")


def flip(data: bytes, position: int = 0) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def successor_lines(timestamp_ms: int) -> str:
    """Return both signature lines of the log's next key under the head of the proof."""
    checkpoint = Checkpoint(origin=ORIGIN, tree_size=SIZE, root_hash=PROOF.sth.root_hash)
    return sign_head(checkpoint, timestamp_ms, vkey("successor"), sign("successor")).checkpoint.partition("\n\n")[2]


def proof_cases() -> Iterator[tuple[str, Case]]:
    for cases in (
        accepted, malformed, unsupported, too_large, tlog, leaves, heads, keys, successors, mismatches, inclusion,
        asked, statements, known_heads, witnesses, policies, anchors, timestamps, acknowledgements, repeated,
    ):  # fmt: skip
        yield from cases()


def accepted() -> Iterator[tuple[str, Case]]:
    yield "valid", case("A proof as the console serves it.", PROOF, None)
    value = json.loads(PROOF.encode())
    text = json.dumps(value, indent=4, sort_keys=True, ensure_ascii=False) + "\n"
    yield "valid-laid-out", case("White space, order of members and JSON escapes are free.", text, None)
    yield "valid-bare-key", case("A key without a name.", PROOF, None, keys=[vkey().public_key.hex()])
    yield "valid-one-leaf", case("A tree of one leaf has an empty path.", make_proof(LEAVES[:1], 0), None)
    yield "valid-lone-right", case("The last leaf of an odd tree is promoted.", make_proof(LEAVES, 12), None)
    yield "valid-first", case("The first leaf has no previous leaf hash.", make_proof(LEAVES, 0), None)
    stranger = signature_line("witness.example.org", b"\1\2\3\4", bytes(73))
    known = with_(checkpoint=PROOF.checkpoint + stranger)
    yield "valid-unknown-signature", case("A signature by an unknown key is ignored.", known, None)
    old, new = vkey().encode(), vkey("successor").encode()
    both = with_(checkpoint=PROOF.checkpoint + successor_lines(HEAD_MS))
    yield "valid-rotation", case("Signed by the old and the new key, both trusted.", both, None, keys=[new, old])
    yield "valid-rotation-old", case("The same for who trusts the old key alone.", both, None, keys=[old])
    yield "valid-rotation-new", case("And the new one alone; the sth is by the old one.", both, None, keys=[new])
    yield "valid-key-set", case("Within the key's validity.", PROOF, None, keys=[], key_set=key_set(0, 0))
    yield "valid-payload", case(
        "The body has the hash, and with its salt opens the commitment.",
        PROOF, None, payload=BODY.hex(), payload_salt=EVENT_SALT.hex(),
    )  # fmt: skip
    sent = signed_leaf(Leaf.parse(LEAVES[INDEX])._replace(sent_hash=sha256(SENT).digest()))
    yield "valid-transformed", case("A transform made another body: the one that came.", sent, None, payload=BODY.hex())
    yield "valid-transformed-sent", case("The same: the one that was sent.", sent, None, payload=SENT.hex())
    meets = {"event_id": uuid("event 1"), "response_status": "200", "attempt": "3"}
    yield "valid-expected", case("The leaf meets what was expected.", PROOF, None, expected=meets)
    yield "valid-now", case("Dated later than now by the skew exactly.", PROOF, None, now_ms=HEAD_MS - 300_000)
    aged = {"now_ms": HEAD_MS + 60_000, "max_age_ms": 60_000}
    yield "valid-max-age", case("As old as is allowed exactly.", PROOF, None, **aged)


LISTED = {"name": "witness.example.org/a", "key_id": "00000000", "timestamp_s": 1}
SHOWN = {"base_b64": "AAAA", "key": "00" * 32, "signature": "00" * 64}


def malformed() -> Iterator[tuple[str, Case]]:
    refused = errors.MalformedProofError
    text = PROOF.encode().decode()
    leaf = json.loads(text)["leaf_b64"]
    for name, description, content in (
        ("empty", "An empty file.", ""),
        ("not-json", "Not JSON.", "proof"),
        ("truncated", "Cut off in the middle.", text[: len(text) // 2]),
        ("trailing", "Something follows the object.", text + "{}"),
        ("not-an-object", "A list.", f"[{text}]"),
        ("not-utf-8", "A byte that is not UTF-8.", text.encode().replace(b"claimed", b"\xff")),
        ("byte-order-mark", "A byte order mark.", "\ufeff" + text),
        ("deep-nesting", "Lists in lists without end.", "[" * 100_000),
        ("duplicate-member", "A member twice: readers disagree on which counts.", "{" + '"leaf_index":5,' + text[1:]),
        ("duplicate-in-sth", "A member of sth twice.", raw('"sth":{', '"sth":{"tree_size":13,')),
        ("nan", "NaN is not JSON.", raw('"leaf_index":5', '"leaf_index":NaN')),
        ("float", "A float, though it is whole.", raw('"leaf_index":5', '"leaf_index":5.0')),
        ("exponent", "An integer in exponent form.", raw('"leaf_index":5', '"leaf_index":5e0')),
        ("leading-zero", "A decimal with a leading zero.", raw('"leaf_index":5', '"leaf_index":05')),
        ("negative", "A negative index.", raw('"leaf_index":5', '"leaf_index":-5')),
        ("huge-integer", "An integer with five thousand digits.", raw('"leaf_index":5', '"leaf_index":' + "9" * 5000)),
        ("integer-beyond-53-bits", "2^53.", with_(leaf_index=2**53)),
        ("index-as-text", "The index is a string.", with_(leaf_index="5")),
        ("index-boolean", "The index is true.", with_(leaf_index=True)),
        ("unknown-member", "A member that version 1 does not have.", with_(note="hello")),
        ("missing-member", "No checkpoint.", without("checkpoint")),
        ("missing-sth-member", "No timestamp_ms.", {**with_(), "sth": {**PROOF.sth.to_json(), "timestamp_ms": None}}),
        ("no-type", "No type.", without("type")),
        ("other-type", "Another type.", with_(type="kapsel.proof")),
        ("base64-unpadded", "Base64 without padding.", with_(leaf_b64=leaf.rstrip("="))),
        ("base64-loose-bits", "Bits behind the end of the base64 data are set.", with_(leaf_b64=loose(leaf))),
        ("base64-newline", "A newline within base64.", with_(leaf_b64=leaf[:76] + "\n" + leaf[76:])),
        ("base64-url-alphabet", "The URL alphabet of base64.", with_(leaf_b64="-_" + leaf[2:])),
        ("hex-upper-case", "Hex in upper case.", with_sth(root_hash=PROOF.sth.root_hash.hex().upper())),
        ("hex-short", "A hash of 31 bytes.", with_(inclusion_proof=["00" * 31])),
        ("path-too-long", "Fifty-four hashes.", with_(inclusion_proof=["00" * 32] * 54)),
        ("path-not-a-list", "The path is a string.", with_(inclusion_proof="00" * 32)),
        ("sth-not-an-object", "The sth is a list.", with_(sth=[])),
        ("checkpoint-null", "The checkpoint is null.", with_(checkpoint=None)),
        ("cosignatures-null", "The cosignatures are null.", with_(cosignatures=None)),
        ("cosignatures-many", "Sixty-five cosignatures.", with_(cosignatures=[dict(LISTED)] * 65)),
        ("cosignature-text", "A cosignature is a string.", with_(cosignatures=["w"])),
        ("cosignature-member", "A cosignature with a member too many.", with_(cosignatures=[{**LISTED, "date": 1}])),
        ("cosignature-time", "A time that is no integer.", with_(cosignatures=[{**LISTED, "timestamp_s": "1"}])),
        ("cosignature-key-id", "A key id of 3 bytes.", with_(cosignatures=[{**LISTED, "key_id": "000000"}])),
        ("ots-missing", "No ots.", without("ots")),
        ("ots-base64", "The ots is not base64.", with_(ots="AAA")),
        ("ots-number", "The ots is a number.", with_(ots=0)),
        ("acknowledgement-list", "The acknowledgement is a list.", with_(acknowledgement=[])),
        ("acknowledgement-member", "An acknowledgement without key.", with_(acknowledgement={"base_b64": "AAAA"})),
        ("acknowledgement-key", "A key of 31 bytes.", with_(acknowledgement={**SHOWN, "key": "00" * 31})),
        ("acknowledgement-base", "A base that is not base64.", with_(acknowledgement={**SHOWN, "base_b64": "?"})),
    ):
        yield f"malformed-{name}", case(description, content, refused)


def loose(text: str) -> str:
    """Return base64 that lenient readers take for the same bytes, with bits set behind the last of them."""
    assert text.endswith("=")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    body, padding = text.rstrip("="), text[len(text.rstrip("=")) :]
    return body[:-1] + alphabet[alphabet.index(body[-1]) + 1] + padding


def unsupported() -> Iterator[tuple[str, Case]]:
    refused = errors.UnsupportedProofError
    yield "unsupported-version", case("Version 2.", with_(version=2), refused)
    yield (
        "unsupported-version-boolean",
        case("Version true, which some languages take for 1.", with_(version=True), refused),
    )
    yield (
        "unsupported-assurance",
        case("An assurance that version 1 does not know.", with_(assurance="notarised"), refused),
    )
    yield "unsupported-algorithm", case("Another signature algorithm.", with_sth(alg="ML-DSA-44"), refused)
    yield "unsupported-sth-version", case("Another version of sth.", with_sth(version=2), refused)
    key = vkey("attacker")
    brought = with_(public_key=key.public_key.hex())
    yield "embedded-key", case("The proof brings a key.", brought, errors.EmbeddedKeyError)
    inside = with_sth(vkey=key.encode())
    yield "embedded-key-in-sth", case("The sth brings a key.", inside, errors.EmbeddedKeyError)
    listed = with_(cosignatures=[{"name": "w", "key_id": "00000000", "timestamp_s": 1, "Public_Key": "00" * 32}])
    yield "embedded-key-in-cosignature", case("A cosignature brings a key.", listed, errors.EmbeddedKeyError)
    mistyped = {"require": ["notarised"]}
    yield "unsupported-level", case("A level is required that version 1 does not know.", PROOF, refused, **mistyped)


def too_large() -> Iterator[tuple[str, Case]]:
    """Files one byte beyond their limits that are in order otherwise, where that can be."""
    refused = errors.TooLargeError
    large = with_(leaf_b64=make_b64(b"x" * 65_536))
    yield "too-large-leaf", shortened(case("A leaf of 65,536 bytes.", large, refused), "proof", "eHh4")
    text = PROOF.encode().decode()
    for name, description, error, size in (
        ("too-large-proof", "A proof of 1,048,577 bytes.", refused, 2**20 + 1),
        ("valid-largest-proof", "A proof of 1,048,576 bytes.", None, 2**20),
    ):
        yield name, shortened(case(description, text + "\n" * (size - len(text)), error), "proof", "\n")
    tlog_form = TlogProof.of(PROOF)
    extended = tlog_form._replace(checkpoint=tlog_form.checkpoint + "#" * (2**20 + 1 - len(tlog_form.encode())))
    yield (
        "too-large-tlog-proof",
        shortened(case("A .tlog-proof of 1,048,577 bytes.", extended.encode(), refused), "proof", "#"),
    )
    long = tlog_form._replace(leaf=b"x" * 65_538)
    yield (
        "too-large-tlog-leaf",
        shortened(case("A leaf of 65,538 bytes as a .tlog-proof.", long.encode(), refused), "proof", "eHh4"),
    )
    bare = PROOF.checkpoint.partition("\n\n")[0] + "\n"
    for name, description, error, size in (
        ("too-large-note", "A known checkpoint of 262,145 bytes.", refused, 2**18 + 1),
        ("known-valid-largest", "A known checkpoint of 262,144 bytes.", None, 2**18),
    ):
        held = signed_note(bare + "#" * (size - len(signed_note(bare + "\n").encode())) + "\n")
        yield name, shortened(case(description, PROOF, error, known_checkpoint=held), "known_checkpoint", "#")
    lines = vkey().encode() + "\n#~"
    for name, description, given, content, limit in (
        ("key-set", "A key set", "key_set", lines, 2**18),
        ("successors", "A set of successors", "successors", lines, 2**18),
        ("policy", "A policy", "policy", policy("quorum none\n#~"), 2**18),
        ("directory", "A key directory", "destination_key_set", directory().replace(" ", "") + "\n", 2**18),
        ("consistency", "A consistency proof", "consistency", between(7, SIZE) + "\n", 2**16),
    ):
        beside = {"known_checkpoint": make_head(LEAVES[:7]).checkpoint} if given == "consistency" else {}
        for which, error, size in (("too-large", refused, limit + 1), ("valid-largest", None, limit)):
            last, end = content[-1], "\n" if content[-1] == "~" else ""
            whole = content + last * (size - len(content) - len(end)) + end
            made = case(f"{description} of {size:,} bytes.", PROOF, error, **beside, **{given: whole})
            yield f"{which}-{name}", shortened(made, given, last)
    data = timestamp_of(PROOF.checkpoint, in_block())
    data += bytes(65_537 - len(data))
    timed = case("A timestamp of 65,537 bytes.", PROOF._replace(ots=data, assurance="anchored"), refused)
    yield "too-large-timestamp", shortened(timed, "proof", "AAAA")
    leaf = succession_set(b"x" * 65_538)
    made = case("A succession of 65,538 bytes.", PROOF, refused, successors=leaf)
    yield "too-large-succession", shortened(made, "successors", "eHh4")


def signed_note(text: str) -> str:
    """Return a note with both lines of the log's key, whatever else is in the text."""
    head = make_head(LEAVES)
    return f"{text}\n{vkey().line(sign()(text.encode()))}{head.sth.line(vkey())}"


def tlog() -> Iterator[tuple[str, Case]]:
    text = TlogProof.of(PROOF).encode().decode()
    refused = errors.MalformedProofError
    yield "tlog-valid", case("The same proof as a .tlog-proof file.", text, None)
    one = TlogProof.of(make_proof(LEAVES[:1], 0)).encode()
    yield "tlog-valid-one-leaf", case("An empty path as a .tlog-proof file.", one, None)
    for name, description, content in (
        ("no-extra", "Without the leaf.", "\n".join(line for line in text.split("\n") if line[:6] != "extra ")),
        ("leading-zero", "An index with a leading zero.", text.replace("index 5", "index 05")),
        ("index-sign", "An index with a sign.", text.replace("index 5", "index +5")),
        ("version", "Another version of the format.", text.replace("@v1", "@v2", 1)),
        ("no-checkpoint", "Without a checkpoint.", text.partition("\n\n")[0] + "\n"),
        ("hash-short", "A hash of 3 bytes.", text.replace("index 5\n", "index 5\nAAAA\n")),
    ):
        yield f"tlog-{name}", case(description, content, refused)
    lines, _, checkpoint = text.partition("\n\n")
    lines = lines.partition("\nindex 5")[0]
    for name, description, data in (
        ("extra-alone", "No index line.", f"{lines}\n\n{checkpoint}"),
        ("first-line-alone", "Neither extra nor index line.", f"{text.partition(chr(10))[0]}\n\n{checkpoint}"),
        ("path-too-long", "Fifty-four hashes.", f"{lines}\nindex 5\n{('A' * 43 + '=' + chr(10)) * 54}\n{checkpoint}"),
        ("not-utf-8", "A byte that is not UTF-8.", text.encode().replace(b"shop\n", b"shop\xff\n", 1)),
    ):
        yield f"tlog-{name}", case(description, data, refused)
    padded = text.replace("index 5\n", "index 5\n" + "A" * 43 + "=\n")
    yield "tlog-padded-path", case("A path with one hash too many.", padded, errors.InclusionError)


def leaves() -> Iterator[tuple[str, Case]]:
    """Leaves that a log really signed and that no canonical encoder makes."""
    leaf = LEAVES[INDEX].decode()
    first, _, rest = leaf[1:].partition(",")
    for name, description, bad in (
        ("white-space", "A space.", leaf.replace(":", ": ", 1)),
        ("order", "Members in another order.", "{" + rest[:-1] + "," + first + "}"),
        ("duplicate-member", "A member twice.", "{" + first + "," + leaf[1:]),
        ("unknown-member", "A member that version 1 does not have.", leaf[:-1] + ',"w":1}'),
        ("missing-member", "No attempt.", "{" + rest),
        ("float", "A float.", leaf.replace('"attempt":3', '"attempt":3.0')),
        ("attempt-zero", "Attempts count from 1.", leaf.replace('"attempt":3', '"attempt":0')),
        ("boolean", "True for 1.", leaf.replace('"v":1', '"v":true')),
        ("version", "Another version.", leaf.replace('"v":1', '"v":2')),
        ("type", "Another type.", leaf.replace("kapsel.delivery-attempt", "kapsel.delivery")),
        ("escape", "A character escaped that need not be.", leaf.replace("billing", "\\u0062illing", 1)),
        ("not-ascii", "A character outside ASCII.", leaf.replace("billing", "bïlling", 1)),
        (
            "hash-upper-case",
            "A hash in upper case.",
            leaf.replace(sha256(BODY).hexdigest(), sha256(BODY).hexdigest().upper()),
        ),
        ("id-upper-case", "An id in upper case.", leaf.replace(uuid("endpoint"), uuid("endpoint").upper())),
        ("null", "Null where there must be a value.", leaf.replace('"delivered"', "null", 1)),
        ("endpoint", "An endpoint without namespace.", leaf.replace("shop/orders", "orders")),
        (
            "sequence",
            "A previous leaf hash for sequence 0.",
            leaf.replace('"endpoint_sequence":5', '"endpoint_sequence":0'),
        ),
        ("empty-text", "No destination.", leaf.replace('"billing"', '""')),
        ("status", "A status of four digits.", leaf.replace('"response_status":200', '"response_status":2000')),
        ("not-json", "Not JSON.", "hello"),
        (
            "sent-null",
            "A sent_hash of null.",
            leaf.replace(',"signature_digest"', ',"sent_hash":null,"signature_digest"'),
        ),
        (
            "sent-order",
            "A sent_hash in another place.",
            leaf.replace(',"timestamp"', f',"sent_hash":"{"00" * 32}","timestamp"'),
        ),
        (
            "sent-short",
            "A sent_hash of 31 bytes.",
            leaf.replace(',"signature_digest"', f',"sent_hash":"{"00" * 31}","signature_digest"'),
        ),
        ("acknowledgement-part", "A key without a signature.", leaf.replace(*ACK_KEY)),
        ("acknowledgement-empty", "An empty signature base.", ACK_LEAF.replace(ack_base(), '""')),
        ("acknowledgement-base64", "A base that is not canonical base64.", ACK_LEAF.replace(ack_base(), '"AB=="')),
        ("acknowledgement-short", "A signature of 63 bytes.", ACK_LEAF.replace(ack_signature(), ack_signature()[2:])),
    ):
        assert bad not in (leaf, ACK_LEAF), name
        signed = of_a_log_with(bad.encode())
        yield f"leaf-{name}", case(description, signed, errors.MalformedLeafError)

    made = Leaf.parse(LEAVES[INDEX])
    longest = made._replace(destination="d" * 253, endpoint_url="u" * 8192, reason="r" * 253)
    yield "valid-longest-texts", case("Texts as long as they may be.", of_a_log_with(longest.encode()), None)
    for name, text, long in (
        ("destination", made.destination, "d" * 254),
        ("url", made.endpoint_url, "u" * 8193),
        ("outcome", made.outcome, "o" * 254),
        ("reason", made.reason, "r" * 254),
    ):
        signed = of_a_log_with(leaf.replace(json.dumps(text), json.dumps(long), 1).encode())
        yield f"leaf-long-{name}", case(f"A text of {len(long):,} characters.", signed, errors.MalformedLeafError)


ACK_LEAF = LEAVES[ACKNOWLEDGED].decode()
ACK_KEY = ('"acknowledgement_key":null', f'"acknowledgement_key":"{"00" * 32}"')


def ack_base() -> str:
    return json.dumps(json.loads(ACK_LEAF)["acknowledgement_base"])


def ack_signature() -> str:
    return str(json.loads(ACK_LEAF)["acknowledgement_signature"])


def of_a_log_with(leaf: bytes) -> Proof:
    """Return the proof of a log that recorded these bytes in place of the leaf, whatever they are."""
    leaves = [*LEAVES[:INDEX], leaf, *LEAVES[INDEX + 1 :]]
    head = make_head(leaves)
    return PROOF._replace(
        leaf=leaf,
        inclusion_proof=tuple(path(INDEX, [leaf_hash(one) for one in leaves])),
        sth=head.sth,
        checkpoint=head.checkpoint,
    )


def heads() -> Iterator[tuple[str, Case]]:
    """Checkpoints that are no notes, and notes that are no checkpoints of this log."""
    refused = errors.MalformedNoteError
    text, _, lines = PROOF.checkpoint.partition("\n\n")
    text += "\n"
    root = text.split("\n")[2]
    for name, description, content in (
        ("no-blank-line", "No blank line before the signatures.", with_checkpoint("\n\n", "\n")),
        ("no-signature", "No signature.", with_(checkpoint=text + "\n")),
        ("no-last-newline", "The last line does not end.", with_(checkpoint=PROOF.checkpoint[:-1])),
        ("hyphen", "A hyphen for the em dash.", with_checkpoint("\u2014", "-")),
        ("control-character", "A carriage return.", with_checkpoint("\n13\n", "\n13\r\n")),
        ("surrogate", "Half a surrogate pair.", raw("log.example.com/shop\\n", "log.example.com/shop\\ud800\\n")),
        ("signature-base64", "A signature that is not base64.", with_(checkpoint=PROOF.checkpoint[:-2] + "\n")),
        (
            "signature-short",
            "A signature with a key id alone.",
            with_(checkpoint=f"{text}\n\u2014 {ORIGIN} AAAAAA==\n"),
        ),
        ("key-name", "A key name with a plus sign.", with_checkpoint(f"\u2014 {ORIGIN}", f"\u2014 {ORIGIN}+")),
        (
            "many-signatures",
            "Sixty-five signatures.",
            with_(checkpoint=PROOF.checkpoint + lines.split("\n")[0] + ("\n" + lines.split("\n")[0]) * 62 + "\n"),
        ),
        ("origin-space", "An origin that cannot be a key name.", resigned(text.replace("/shop", "/ shop"))),
        ("empty-line", "An empty line behind the root.", resigned(text + "\nmore\n")),
        ("two-lines", "Only origin and size.", resigned(f"{ORIGIN}\n13\n")),
        ("size-leading-zero", "A size with a leading zero.", resigned(text.replace("\n13\n", "\n013\n"))),
        ("size-sign", "A size with a sign.", resigned(text.replace("\n13\n", "\n+13\n"))),
        ("size-beyond-53-bits", "A size of 2^53.", resigned(text.replace("\n13\n", f"\n{2**53}\n"))),
        ("root-short", "A root of 30 bytes.", resigned(text.replace(root, root[:40]))),
        ("root-loose-bits", "Bits behind the end of the root are set.", resigned(text.replace(root, loose(root)))),
        ("empty-tree", "An empty tree with another root.", resigned(text.replace("\n13\n", "\n0\n"))),
    ):
        yield f"note-{name}", case(description, content, refused)
    wrong = errors.SignatureError
    yield "signature-size", case("The size was changed.", with_checkpoint("\n13\n", "\n14\n"), wrong)
    yield "signature-root", case("The root was changed.", with_checkpoint(root, "A" + root[1:]), wrong)
    yield "signature-extension", case("A line was added.", with_checkpoint("\n\n", "\nmore\n\n"), wrong)
    yield (
        "signature-other-signer",
        case("Signed by another key under the id of the trusted one.", resigned(text, seed="attacker"), wrong),
    )
    altered = SignedTreeHead(*PROOF.sth)._replace(signature=flip(PROOF.sth.signature))
    yield "signature-sth", case("The small form's signature was changed in both places.", with_head(altered), wrong)
    later = PROOF.sth._replace(timestamp_ms=HEAD_MS + 1)
    yield "signature-sth-date", case("The date was changed in both places.", with_head(later), wrong)
    unlike = vkey().line(bytes(64))
    yield (
        "signature-second-wrong",
        case("One right and one wrong signature by the same key.", with_(checkpoint=PROOF.checkpoint + unlike), wrong),
    )
    short = with_(checkpoint=PROOF.checkpoint + vkey().line(bytes(63)))
    yield "signature-short", case("A signature of 63 bytes.", short, wrong)
    yield (
        "future",
        case("Dated one millisecond beyond the skew.", PROOF, errors.FutureHeadError, now_ms=HEAD_MS - 300_001),
    )
    aged = {"now_ms": HEAD_MS + 60_001, "max_age_ms": 60_000}
    yield "stale", case("One millisecond older than is allowed.", PROOF, errors.StaleHeadError, **aged)


def with_head(sth: SignedTreeHead) -> Json:
    """Return the proof with another small form, in the note and in sth."""
    checkpoint = PROOF.checkpoint.replace(PROOF.sth.line(vkey()), sth.line(vkey()))
    return with_(checkpoint=checkpoint, sth=sth.to_json())


def key_set(before: int, after: int) -> str:
    """Return a key set whose key is valid from `before` to `after` milliseconds around the head's date."""
    key = TrustedKey(
        public_key=vkey().public_key, name=ORIGIN, not_before_ms=HEAD_MS + before, not_after_ms=HEAD_MS + after
    )
    return encode_key_set([key]).decode()


def keys() -> Iterator[tuple[str, Case]]:
    untrusted = errors.UntrustedKeyError
    yield "untrusted-key", case("Another key is trusted.", PROOF, untrusted, keys=[vkey("other").encode()])
    elsewhere = vkey(origin="log.example.com/bank").encode()
    yield "untrusted-origin", case("The key is trusted for another log.", PROOF, untrusted, keys=[elsewhere])
    yield "untrusted-bare-key", case("Another bare key is trusted.", PROOF, untrusted, keys=["00" * 32])
    yield "untrusted-none", case("No key is trusted.", PROOF, untrusted, keys=[])
    renamed = with_checkpoint(vkey().line(b"")[:-6], vkey("other").line(b"")[:-6])
    yield "untrusted-key-id", case("The signature has the id of another key.", renamed, untrusted)
    invalid = errors.KeyValidityError
    yield "validity-too-early", case("Dated before the key was valid.", PROOF, invalid, keys=[], key_set=key_set(1, 2))
    yield "validity-too-late", case("Dated after the key was valid.", PROOF, invalid, keys=[], key_set=key_set(-2, -1))
    refused = errors.MalformedKeyError
    good, half = vkey().encode(), vkey(origin="\ufffd").encode().replace("\ufffd", "\\ud800")
    for name, description, text in (
        ("hex-short", "Sixty-two hex digits.", "00" * 31),
        ("id", "A key id that does not fit.", good.replace(vkey().key_id.hex(), "00000000")),
        ("name", "Another name than the id was made for.", "x" + good),
        ("type", "A key type that is not Ed25519.", f"{ORIGIN}+00000000+" + "BAAA" + "A" * 40),
        ("base64", "Not base64.", good[:-1]),
        ("empty", "Nothing.", ""),
    ):
        yield f"key-{name}", case(description, PROOF, refused, keys=[text])
    # Found by trying: two keys out of a hundred thousand whose ids are alike.
    alike = [vkey(f"alike {number}").encode() for number in (95_106, 99_806)]
    yield "key-ids-alike", case("Two trusted keys share name and key id.", PROOF, refused, keys=alike)
    for name, description, text in (
        ("empty", "A key set without keys.", '{"keys":[]}'),
        ("comments-alone", "A key set of comments.", "# none\n\n"),
        ("unknown-member", "A key with a member it may not have.", f'{{"keys":[{{"vkey":"{good}","alg":"x"}}]}}'),
        ("duplicate-member", "A key with a member twice.", f'{{"keys":[{{"vkey":"{good}","vkey":"{good}"}}]}}'),
        ("no-list", "The keys are an object.", '{"keys":{}}'),
        ("no-object", "A key is a string.", f'{{"keys":["{good}"]}}'),
        ("time", "A time that is no integer.", f'{{"keys":[{{"vkey":"{good}","not_after_ms":"1"}}]}}'),
        (
            "surrogate",
            "A name that is no Unicode text, with the id of the text that a reader may take it for.",
            f'{{"keys":[{{"vkey":"{half}"}}]}}',
        ),
    ):
        yield f"key-set-{name}", case(description, PROOF, refused, keys=[], key_set=text)
    latin = member("key_set", vkey(origin="caf\u00e9").encode().encode("latin-1"))
    yield "key-set-not-utf-8", case("A byte that is not UTF-8.", PROOF, refused, keys=[], **latin)


def succession_set(*leaves: bytes, seed: str = "successor", **dates: int) -> str:
    """Return a key set that nobody has to trust: a key of the log, with the leaves in which it was announced."""
    keys = [TrustedKey(vkey(seed).public_key, ORIGIN, succession=leaf, **dates) for leaf in leaves]
    return encode_key_set(keys or [TrustedKey(vkey(seed).public_key, ORIGIN, **dates)]).decode()


def linked(old: str, new: str, **changes: Any) -> KeySuccession:
    """Return the announcement of one key by another, of a second before the head that the second signs."""
    made = succession(
        predecessor=vkey(old), successor=vkey(new), timestamp=HEAD_MS - 2000, not_before=HEAD_MS - 1000,
        predecessor_not_after=HEAD_MS + 2000,
    )._replace(**{name: value for name, value in changes.items() if not name.endswith("_signature")})  # fmt: skip
    message = made.message()
    signed = {"predecessor_signature": sign(old)(message), "successor_signature": sign(new)(message)}
    return made._replace(**{**signed, **changes})


def signed_by(seed: str, timestamp_ms: int = HEAD_MS) -> Proof:
    """Return the proof under a head that one key of the log signed alone."""
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    return build(
        leaf=LEAVES[INDEX],
        leaf_index=INDEX,
        inclusion_proof=path(INDEX, hashes),
        checkpoint=make_head(LEAVES, vkey(seed), timestamp_ms, seed).checkpoint,
        keys=[vkey(seed)],
    )


def successors() -> Iterator[tuple[str, Case]]:
    """Key sets that the auditor does not trust, and what follows from them all the same."""
    proof, third, link = signed_by("successor"), signed_by("third"), linked("log", "successor")
    bare, endless = vkey().public_key.hex(), linked("log", "successor", predecessor_not_after=2**53 - 1)
    further = linked("successor", "third", timestamp=HEAD_MS - 1000, not_before=HEAD_MS)
    chain = succession_set(further.encode(), link.encode())
    valid, offered = {"keys": [vkey().encode()]}, succession_set(link.encode())
    for name, description, shown, given in (
        ("valid", "The trusted key announced the one that signed.", proof, {"successors": offered}),
        ("valid-bare-key", "The same for a bare key.", proof, {"keys": [bare], "successors": offered}),
        ("valid-links", "Two links, the second one first.", third, {"successors": chain}),
        ("valid-dates", "The dates beside an announced key count for nothing.", proof,
         {"successors": succession_set(link.encode(), not_before_ms=HEAD_MS + 1, not_after_ms=HEAD_MS + 2)}),
        ("valid-last", "The predecessor signs for the last time.", signed_by("log", HEAD_MS + 2000),
         {"successors": offered}),
        ("valid-first", "The successor signs for the first time.", signed_by("successor", HEAD_MS - 1000),
         {"successors": offered}),
        ("valid-endless", "Nobody has said yet when the predecessor ends.", signed_by("log", HEAD_MS + 10**9),
         {"successors": succession_set(endless.encode())}),
        ("valid-other-statement", "What announces no key is passed over.", PROOF,
         {"successors": succession_set(continuation().encode())}),
        ("valid-strange-link", "A link that begins at no trusted key is not judged.", PROOF,
         {"successors": succession_set(linked("x", "successor", predecessor_signature=bytes(64)).encode())}),
    ):  # fmt: skip
        yield f"successors-{name}", case(description, shown, None, **(valid | given))
    untrusted, invalid, forged = errors.UntrustedKeyError, errors.KeyValidityError, errors.SignatureError
    late = linked("log", "successor", timestamp=HEAD_MS - 1)
    for name, description, shown, error, given in (
        ("none", "The successor signed and nobody says who that is.", proof, untrusted, {}),
        ("unannounced", "The set has the key and no announcement.", proof, untrusted,
         {"successors": succession_set()}),
        ("strange", "It was announced by a key that is not trusted.", proof, untrusted,
         {"successors": succession_set(linked("x", "successor").encode())}),
        ("gap", "The link in the middle is missing.", third, untrusted,
         {"successors": succession_set(further.encode(), seed="third")}),
        ("other-key", "The announcement is of another key than the one that stands beside it.", proof, untrusted,
         {"successors": succession_set(linked("log", "other").encode())}),
        ("other-log", "The key is trusted for another log.", proof, untrusted,
         {"keys": [vkey(origin="log.example.com/bank").encode()], "successors": offered}),
        ("expired", "The key was valid no more when it announced the other.", proof, untrusted,
         {"keys": [], "key_set": key_set(-9000, -2), "successors": succession_set(late.encode())}),
        ("early", "The successor signed before its time.", signed_by("successor", HEAD_MS - 1001), invalid,
         {"successors": offered}),
        ("late", "The predecessor signed after its time.", signed_by("log", HEAD_MS + 2001), invalid,
         {"successors": offered}),
        ("late-twice-trusted", "A predecessor that is trusted in two ways did.", signed_by("log", HEAD_MS + 2001),
         invalid, {"keys": [bare, vkey().encode()], "successors": offered}),
        ("predecessor-signature", "The predecessor has not signed the announcement.", PROOF, forged,
         {"successors": succession_set(linked("log", "successor", predecessor_signature=bytes(64)).encode())}),
        ("successor-signature", "The successor has not.", PROOF, forged,
         {"successors": succession_set(linked("log", "successor", successor_signature=bytes(64)).encode())}),
        ("no-leaf", "A succession that is no leaf.", PROOF, errors.MalformedLeafError,
         {"successors": succession_set(b"{}")}),
        ("attempt", "A succession that is the leaf of an attempt.", PROOF, errors.MalformedLeafError,
         {"successors": succession_set(LEAVES[0])}),
        ("base64", "A succession that is not base64.", PROOF, errors.MalformedKeyError,
         {"successors": offered.replace('"succession": "', '"succession": "-')}),
        ("empty", "A set without keys.", PROOF, errors.MalformedKeyError, {"successors": '{"keys":[]}'}),
    ):  # fmt: skip
        yield f"successors-{name}", case(description, shown, error, **(valid | given))


def mismatches() -> Iterator[tuple[str, Case]]:
    refused = errors.HeadMismatchError
    sth = PROOF.sth
    for name, change in (
        ("origin", {"origin": "log.example.com/bank"}),
        ("log-id", {"log_id": flip(sth.log_id).hex()}),
        ("key-id", {"key_id": flip(sth.key_id).hex()}),
        ("tree-size", {"tree_size": 14}),
        ("timestamp", {"timestamp_ms": HEAD_MS + 1}),
        ("root-hash", {"root_hash": flip(sth.root_hash).hex()}),
        ("signature", {"signature": flip(sth.signature).hex()}),
    ):
        yield f"head-{name}", case(f"The sth has another {name} than the checkpoint.", with_sth(**change), refused)
    older = make_proof(LEAVES[:8], INDEX)
    yield "head-stale", case("The sth is of an older tree.", with_(sth=older.sth.to_json()), refused)
    bare = with_(checkpoint=PROOF.checkpoint.replace(sth.line(vkey()), ""))
    yield "head-no-line", case("The checkpoint lacks the tree head line.", bare, refused)
    both, successor = PROOF.checkpoint + successor_lines(HEAD_MS), [vkey("successor").encode()]
    alone = PROOF.checkpoint.partition("\n\n")[0] + "\n\n" + successor_lines(HEAD_MS)
    later = PROOF.checkpoint + successor_lines(HEAD_MS + 1)
    for name, description, content in (
        ("absent", "The sth is by a key that did not sign the checkpoint.", with_(checkpoint=alone)),
        ("date", "The sth is by the old key, which dates the head otherwise.", with_(checkpoint=later)),
        (
            "signature",
            "The sth is by the old key, with another signature than in its line.",
            with_(checkpoint=both, sth={**sth.to_json(), "signature": flip(sth.signature).hex()}),
        ),
        (
            "tree-size",
            "The sth is by the old key, and of another size.",
            with_(checkpoint=both, sth={**sth.to_json(), "tree_size": 14}),
        ),
    ):
        yield f"head-rotation-{name}", case(description, content, refused, keys=successor)
    line = signature_line(ORIGIN, flip(STHVerifier(vkey()).key_id), HEAD_MS.to_bytes(8, "big") + sth.signature)
    unknown = with_(checkpoint=PROOF.checkpoint.replace(sth.line(vkey()), line))
    yield "head-line-id", case("The tree head line has another id.", unknown, refused)
    line = signature_line(ORIGIN, STHVerifier(vkey()).key_id, sth.signature)
    undated = with_(checkpoint=PROOF.checkpoint.replace(sth.line(vkey()), line))
    yield "note-sth-line-size", case("The tree head line has no date.", undated, errors.MalformedNoteError)


def inclusion() -> Iterator[tuple[str, Case]]:
    nodes = [node.hex() for node in PROOF.inclusion_proof]
    leaf = LEAVES[INDEX]
    for name, description, content in (
        ("index", "Another index.", with_(leaf_index=4)),
        ("index-beyond", "An index beyond the tree.", with_(leaf_index=13)),
        (
            "path-altered",
            "A bit of the path was changed.",
            with_(inclusion_proof=[flip(bytes.fromhex(nodes[0])).hex(), *nodes[1:]]),
        ),
        ("path-cut", "The last hash is missing.", with_(inclusion_proof=nodes[:-1])),
        ("path-padded", "A hash too many.", with_(inclusion_proof=[*nodes, "00" * 32])),
        ("path-empty", "No hash at all.", with_(inclusion_proof=[])),
        ("path-order", "Two hashes swapped.", with_(inclusion_proof=[nodes[1], nodes[0], *nodes[2:]])),
        ("other-leaf", "Another leaf of the same log.", with_(leaf_b64=make_b64(LEAVES[4]))),
        (
            "leaf-altered",
            "The outcome was changed.",
            with_(leaf_b64=make_b64(leaf.replace(b"status_200", b"status_201"))),
        ),
        ("node-as-leaf", "The children of an inner node given as a leaf.", node_as_leaf()),
    ):
        yield f"inclusion-{name}", case(description, content, errors.InclusionError)


def node_as_leaf() -> Json:
    """Return a forgery that works in trees whose leaves and nodes are hashed alike."""
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    return with_(
        leaf_b64=make_b64(hashes[4] + hashes[5]),
        leaf_index=2,
        inclusion_proof=[n.hex() for n in PROOF.inclusion_proof[1:]],
    )


def make_b64(data: bytes) -> str:
    value = json.loads(PROOF._replace(leaf=data).encode())
    return str(value["leaf_b64"])


def asked() -> Iterator[tuple[str, Case]]:
    refused = errors.PayloadMismatchError
    yield "payload-other", case("Another body.", PROOF, refused, payload=(BODY + b" ").hex())
    yield (
        "payload-other-salt",
        case("The salt does not open the commitment.", PROOF, refused, payload=BODY.hex(), payload_salt="00" * 32),
    )
    yield "payload-no-commitment", case(
        "A salt for a leaf without commitment.",
        make_proof(LEAVES, 1), refused, payload=BODY.hex(), payload_salt=EVENT_SALT.hex(),
    )  # fmt: skip
    unmet = errors.ExpectationError
    yield "expected-event", case("About another event.", PROOF, unmet, expected={"event_id": uuid("event 0")})
    yield "expected-null", case("There was a response.", PROOF, unmet, expected={"response_status": "null"})
    yield "expected-unknown", case("No such member.", PROOF, unmet, expected={"colour": "red"})


# What a log says about itself, and other heads of it.


def succession(**changes: Any) -> KeySuccession:
    made = KeySuccession(
        not_before=HEAD_MS + 1000,
        origin=ORIGIN,
        predecessor=vkey(),
        predecessor_not_after=HEAD_MS + 2000,
        predecessor_signature=bytes(64),
        salt=sha256(b"salt of a statement").digest(),
        successor=vkey("successor"),
        successor_signature=bytes(64),
        timestamp=HEAD_MS - 1,
    )._replace(**changes)
    message = made.message()
    signed = {"predecessor_signature": sign()(message), "successor_signature": sign("successor")(message)}
    return made._replace(**{**signed, **changes})


def continuation() -> LogContinuation:
    return LogContinuation(
        checkpoint=make_head(LEAVES[:8], vkey("old", "log.example.com/old"), seed="old").checkpoint.encode(),
        origin=ORIGIN,
        reason="the database was restored from a backup",
        salt=sha256(b"salt of a statement").digest(),
        timestamp=HEAD_MS - 1,
    )


def statements() -> Iterator[tuple[str, Case]]:
    made: list[tuple[str, Statement]] = [("continuation", continuation()), ("succession", succession())]
    for name, statement in made:
        proof = of_a_log_with(statement.encode())
        meets = {"type": str(statement.members()["type"]), "timestamp": str(HEAD_MS - 1)}
        yield f"statement-valid-{name}", case(f"The leaf is a {name}.", proof, None, expected=meets)
        yield (
            f"statement-payload-{name}",
            case("A body for a leaf that is no attempt.", proof, errors.PayloadMismatchError, payload=BODY.hex()),
        )
    wrong = errors.SignatureError
    for name in ("predecessor", "successor"):
        forged = succession(**{f"{name}_signature": sign("attacker")(succession().message())})
        signed = of_a_log_with(forged.encode())
        yield f"statement-{name}-signature", case(f"The {name} has not signed the succession.", signed, wrong)
    text, other = succession().encode().decode(), continuation().encode().decode()
    late, early = f'"not_before":{HEAD_MS + 1000}', f'"not_before":{HEAD_MS + 2001}'
    old = make_head(LEAVES[:8], vkey("old", "log.example.com/old"), seed="old").checkpoint
    for name, description, bad in (
        ("type", "A type that nobody knows.", other.replace("log-continuation", "log-conclusion")),
        ("version", "Another version.", other.replace('"v":1', '"v":2')),
        ("order", "Members in another order.", '{"v":1,' + other[1:].replace(',"v":1', "")),
        ("gap", "No key signs between the two dates.", text.replace(late, early)),
        ("same-key", "A key that succeeds itself.", text.replace(vkey("successor").encode(), vkey().encode())),
        ("other-name", "A key named otherwise than the log.", text.replace(vkey().encode(), vkey(origin="x").encode())),
        ("key-id", "A key whose id does not fit.", text.replace(vkey().key_id.hex(), "00000000")),
        ("surrogate", "A key name that is no text.", text.replace(vkey().encode(), "\\ud800" + vkey().encode())),
        ("same-origin", "A log that continues itself.", other.replace(f'"{ORIGIN}"', '"log.example.com/old"')),
        ("checkpoint", "A checkpoint that is none.", other.replace(b64(old.encode()), b64(b"13\n"))),
        ("origin", "An origin that cannot be a key name.", other.replace(f'"{ORIGIN}"', '"log example"')),
        ("reason", "No reason.", other.replace(continuation().reason, "")),
        ("missing-member", "No salt.", text.replace(f'"salt":"{succession().salt.hex()}",', "")),
    ):
        assert bad not in (text, other), name
        yield f"leaf-statement-{name}", case(description, of_a_log_with(bad.encode()), errors.MalformedLeafError)


def b64(data: bytes) -> str:
    value = json.loads(PROOF._replace(leaf=data).encode())
    return str(value["leaf_b64"])


def between(old: int, new: int, **changes: Any) -> str:
    """Return the consistency proof file between two sizes of the log."""
    nodes = consistency(old, [leaf_hash(leaf) for leaf in LEAVES[:new]])
    return ConsistencyProof(ORIGIN, old, new, tuple(nodes))._replace(**changes).encode().decode()


def known_heads() -> Iterator[tuple[str, Case]]:
    """Heads that the auditor holds of the same log."""
    older, same, newer = (make_head(LEAVES[:size]).checkpoint for size in (7, SIZE, SIZE))
    of_eight = make_proof(LEAVES[:8], INDEX)
    empty = make_head([]).checkpoint
    for name, description, proof, given in (
        ("same", "The head that is known is the head of the proof.", PROOF, {"known_checkpoint": same}),
        ("older", "The proof's head extends the known one.", PROOF,
         {"known_checkpoint": older, "consistency": between(7, SIZE)}),
        ("newer", "The known head extends that of the proof.", of_eight,
         {"known_checkpoint": newer, "consistency": between(8, SIZE)}),
        ("empty", "The known head is of an empty tree.", PROOF, {"known_checkpoint": empty}),
        ("same-sizes", "A consistency proof between equal sizes, which is empty.", PROOF,
         {"known_checkpoint": same, "consistency": between(SIZE, SIZE)}),
    ):  # fmt: skip
        yield f"known-valid-{name}", case(description, proof, None, **given)
    lost, mixed = errors.ConsistencyError, errors.HeadMismatchError
    rewritten = [make_leaf(0, None)._replace(reason="rewritten").encode(), *LEAVES[1:]]
    last = [*LEAVES[:12], make_leaf(12, leaf_hash(LEAVES[11]))._replace(reason="rewritten").encode()]
    grown = {"known_checkpoint": older, "consistency": between(7, SIZE)}
    yield (
        "known-newer-root",
        case("The proof leads to the older root and not to the newer.", make_proof(last, INDEX), lost, **grown),
    )
    hashes = [leaf_hash(leaf) for leaf in LEAVES]
    cut = tuple(consistency(7, hashes)[:-1])
    padded = (*consistency(7, hashes), bytes(32))
    for name, description, checkpoint, proof, error in (
        ("unconnected", "Nothing connects the two heads.", older, None, lost),
        ("rewritten", "The log was rewritten.", make_head(rewritten[:7]).checkpoint, between(7, SIZE), lost),
        ("two-roots", "Two roots for one size.", make_head(rewritten).checkpoint, None, lost),
        ("path-altered", "A hash was changed.", older, between(7, SIZE, proof=(bytes(32), *cut)), lost),
        ("path-cut", "The last hash is missing.", older, between(7, SIZE, proof=cut), lost),
        ("path-padded", "A hash too many.", older, between(7, SIZE, proof=padded), lost),
        ("path-empty", "No hash at all.", older, between(7, SIZE, proof=()), lost),
        ("same-padded", "A hash between equal sizes.", same, between(SIZE, SIZE, proof=(bytes(32),)), lost),
        ("empty-padded", "A hash from the empty tree.", empty,
         ConsistencyProof(ORIGIN, 0, SIZE, (bytes(32),)).encode().decode(), lost),
        ("other-sizes", "A consistency proof between other sizes.", older, between(8, SIZE), mixed),
        ("other-log", "A consistency proof of another log.", older, between(7, SIZE, origin="x"), mixed),
        ("untrusted", "The known head is signed by somebody else.",
         make_head(LEAVES[:7], vkey("x"), seed="x").checkpoint, between(7, SIZE), errors.UntrustedKeyError),
        ("signature", "The known head was changed.", older.replace("\n7\n", "\n8\n"), between(8, SIZE),
         errors.SignatureError),
        ("note", "The known head is no note.", "hello", None, errors.MalformedNoteError),
        ("not-json", "The consistency proof is no JSON.", older, "{", errors.MalformedProofError),
        ("member", "The consistency proof has a member too many.", older, between(7, SIZE).replace("{", '{"a":1,'),
         errors.MalformedProofError),
        ("hash", "A hash of 31 bytes.", older, between(7, SIZE, proof=(bytes(31),)), errors.MalformedProofError),
        ("hashes", "Fifty-five hashes.", older, between(7, SIZE, proof=(bytes(32),) * 55), errors.MalformedProofError),
    ):  # fmt: skip
        given = {"known_checkpoint": checkpoint} | ({} if proof is None else {"consistency": proof})
        yield f"known-{name}", case(description, PROOF, error, **given)
    bank = make_head(LEAVES, vkey(origin="log.example.com/bank")).checkpoint
    both = {"keys": [vkey().public_key.hex()], "known_checkpoint": bank}
    yield "known-other-origin", case("The known head is of another log with the same key.", PROOF, mixed, **both)


# Witnesses and policies.

WITNESSED_S = HEAD_MS // 1000 + 2


def witness(name: str) -> WitnessKey:
    return WitnessKey(f"witness.example.org/{name}", bytes(signer(f"witness {name}").verify_key))


def cosigned(*names: str, text: str | None = None) -> str:
    """Return cosignature lines over the proof's checkpoint, the second a second later than the first, and so on."""
    text = text or PROOF.checkpoint.partition("\n\n")[0] + "\n"
    return "".join(
        cosign(text, WITNESSED_S + late, witness(name), sign(f"witness {name}")) for late, name in enumerate(names)
    )


def rebuilt(checkpoint: str, timestamp: bytes | None = None, leaf: int = INDEX) -> Proof:
    """Return the proof under a checkpoint with other signature lines, and with a timestamp file."""
    hashes = [leaf_hash(one) for one in LEAVES]
    return build(
        leaf=LEAVES[leaf],
        leaf_index=leaf,
        inclusion_proof=path(leaf, hashes),
        checkpoint=checkpoint,
        keys=[vkey()],
        ots=timestamp,
    )


def policy(quorum: str = "group two 2 a b c\nquorum two\n", log: str = "") -> str:
    lines = "".join(f"witness {name} {witness(name).encode()}\n" for name in "abc")
    return f"# who may vouch for a head\nlog {log or vkey().encode()}\n\n{lines}{quorum}"


def witnesses() -> Iterator[tuple[str, Case]]:
    two = rebuilt(PROOF.checkpoint + cosigned("a", "c"))
    shown = {"witnessed": "established"}
    yield "witnessed-valid", case("Two of three witnesses.", two, None, policy=policy(), levels=shown)
    yield (
        "witnessed-valid-policy-alone",
        case("The policy lists the log, no other key is given.", two, None, keys=[], policy=policy(), levels=shown),
    )
    yield (
        "witnessed-valid-required",
        case("It is required.", two, None, policy=policy(), require=["witnessed"], levels=shown),
    )
    nested = "group ab any a b\ngroup both all ab c\nquorum both\n"
    yield "witnessed-valid-groups", case("A group of groups.", two, None, policy=policy(nested), levels=shown)
    one = "quorum c\n"
    yield "witnessed-valid-one", case("A witness alone is the quorum.", two, None, policy=policy(one), levels=shown)
    unchecked = {"witnessed": "unchecked"}
    yield "witnessed-valid-unchecked", case("Nobody says which witnesses count.", two, None, levels=unchecked)
    none = policy("quorum none\n")
    yield "witnessed-valid-no-quorum", case("A policy without quorum.", two, None, policy=none, levels=unchecked)
    stranger = rebuilt(PROOF.checkpoint + cosigned("a", "z", "b"))
    yield "witnessed-valid-stranger", case("A stranger among them.", stranger, None, policy=policy(), levels=shown)
    twice = rebuilt(PROOF.checkpoint + cosigned("a", "a", "b"))
    yield "witnessed-valid-twice", case("A witness twice.", twice, None, policy=policy(), levels=shown)
    tlog_form = TlogProof.of(two).encode()
    yield "witnessed-valid-tlog", case("As a .tlog-proof.", tlog_form, None, policy=policy(), levels=shown)
    few = errors.QuorumError
    for name, description, lines in (
        ("none", "No witness.", ""),
        ("few", "One witness where two are needed.", cosigned("b")),
        ("twice", "One witness twice where two are needed.", cosigned("b", "b")),
        ("strangers", "Two that the policy does not list.", cosigned("y", "z")),
    ):
        yield f"quorum-{name}", case(description, rebuilt(PROOF.checkpoint + lines), few, policy=policy())
    yield (
        "quorum-nested",
        case("One of the groups is missing.", two, few, policy=policy("group ab all a b\nquorum ab\n")),
    )
    yield "quorum-required", case("Required, and no policy says who counts.", two, few, require=["witnessed"])
    required = {"policy": none, "require": ["witnessed"]}
    yield "quorum-required-none", case("Required, and the policy has no quorum.", two, few, **required)
    wrong = errors.SignatureError
    line = cosigned("a")
    blob = line.rpartition(" ")[2].rstrip("\n")
    for name, description, bad, error in (
        ("signature", "The cosignature was changed.", line.replace(blob, blob[:-8] + "AAAAAA=="), wrong),
        ("date", "The date of the cosignature was changed.", line.replace(blob, blob[:14] + "B" + blob[15:]), wrong),
        ("other-head", "The cosignature is of another head.", cosigned("a", text=f"{ORIGIN}\n12\n{ROOT}\n"), wrong),
        ("plain", "A plain signature under the witness's key id.",
         witness("a").line(WITNESSED_S, sign("witness a")(TEXT)), wrong),
        ("size", "A cosignature without date.", signature_line(witness("a").name, witness("a").key_id, bytes(64)),
         errors.MalformedNoteError),
    ):  # fmt: skip
        signed = rebuilt(PROOF.checkpoint + bad + cosigned("b", "c"))
        yield f"witness-{name}", case(description, signed, error, policy=policy())
    other = policy(log=vkey(origin="log.example.com/bank").encode())
    yield "policy-other-log", case("The policy lists another log.", two, errors.UntrustedKeyError, policy=other)


ROOT = PROOF.checkpoint.split("\n")[2]
TEXT = (PROOF.checkpoint.partition("\n\n")[0] + "\n").encode()


def policies() -> Iterator[tuple[str, Case]]:
    key = witness("a").encode()
    log_as_witness = WitnessKey("witness.example.com/d", vkey().public_key).encode()
    witness_as_log = VerifierKey("log.example.com/bank", witness("a").public_key).encode()
    # Found by trying, as those of a log.
    alike = [WitnessKey("witness.example.com/w1", vkey(f"alike {number}").public_key) for number in (45_480, 46_263)]
    twins = "".join(f"witness d{place} {one.encode()}\n" for place, one in enumerate(alike))
    for name, description, text in (
        ("empty", "Nothing.", ""),
        ("no-quorum", "No quorum line.", policy("")),
        ("two-quorums", "Two quorum lines.", policy("quorum a\nquorum b\n")),
        ("unknown-quorum", "A quorum that no line defines.", policy("quorum two\n")),
        ("unknown-member", "A member that no line defines.", policy("group g 1 a d\nquorum g\n")),
        ("later-member", "A member that a later line defines.", policy("group g 1 h\ngroup h 1 a\nquorum g\n")),
        ("member-twice", "A witness in two groups.", policy("group g 1 a\ngroup h 1 a\nquorum g\n")),
        ("threshold-zero", "None of three.", policy("group g 0 a b c\nquorum g\n")),
        ("threshold-large", "Four of three.", policy("group g 4 a b c\nquorum g\n")),
        ("threshold-text", "Most of three.", policy("group g most a b c\nquorum g\n")),
        ("threshold-zeros", "A threshold with a leading zero.", policy("group g 02 a b c\nquorum g\n")),
        ("empty-group", "A group of nobody.", policy("group g 1\nquorum none\n")),
        ("name-twice", "Two witnesses of one name.", policy(f"witness a {witness('d').encode()}\nquorum a\n")),
        ("key-twice", "One witness under two names.", policy(f"witness d {key}\nquorum d\n")),
        ("key-ids-alike", "Two witnesses share key name and key id.", policy(f"{twins}quorum d0\n")),
        ("log-as-witness", "The log is its own witness.", policy(f"witness d {log_as_witness}\nquorum d\n")),
        ("witness-as-log", "A witness's key is a second log's, below it.", policy(f"log {witness_as_log}\nquorum a\n")),
        ("none-as-name", "A witness called none.", policy(f"witness none {witness('d').encode()}\nquorum a\n")),
        ("log-twice", "One log twice.", policy(f"log {vkey().encode()}\nquorum none\n")),
        (
            "key-name",
            "A witness without a name.",
            policy(f"witness d {WitnessKey('', bytes(32)).encode()}\nquorum d\n"),
        ),
        ("keyword", "A line of another kind.", policy("mirror a\nquorum a\n")),
        ("words", "A quorum line with a word too many.", policy("quorum a b\n")),
        ("key-type", "A log's key for a witness.", policy(f"witness d {vkey('d').encode()}\nquorum a\n")),
        ("log-key-type", "A witness's key for a log.", policy(log=key)),
        ("key-id", "A key id that does not fit.", policy().replace(witness("b").key_id.hex(), "00000000")),
        ("no-last-newline", "The last line does not end.", policy()[:-1]),
        ("control-character", "A carriage return.", policy().replace("\nquorum", "\r\nquorum")),
    ):
        yield f"policy-{name}", case(description, PROOF, errors.MalformedPolicyError, policy=text)
    # An id that fits the name as it may be read: what is wrong with it is that it is none.
    read = WitnessKey("caf\ufffd", bytes(32)).encode()
    latin = policy(f"witness d {read}\nquorum none\n").encode()
    content = member("policy", latin.replace("\ufffd".encode(), b"\xe9"))
    yield (
        "policy-not-utf-8",
        case("A key whose name is not UTF-8.", PROOF, errors.MalformedPolicyError, **content),
    )


# Timestamps and blocks.

EASIEST = bytes.fromhex("ffff7f20")  # the target of test chains: every second header is below it
NONCE = Step(ots_paths.APPEND, sha256(b"nonce of a timestamp").digest()[:16])
HASHED = Step(ots_paths.SHA256)


def timestamp_of(checkpoint: str, *paths: ots_paths.Path) -> bytes:
    return ots.Timestamp(sha256(checkpoint.encode()).digest(), paths).encode()


def in_block(height: int = 930_000) -> ots_paths.Path:
    return ots_paths.Path((NONCE, HASHED, HASHED), ots_paths.bitcoin(height))


def block(checkpoint: str, time_s: int = HEAD_MS // 1000 + 5000, works: bool = True) -> bytes:
    """Return the header of a block that commits to the checkpoint as `in_block` says; if it is not to, without work."""
    root = ots_paths.follow(sha256(checkpoint.encode()).digest(), in_block().steps)
    assert root is not None
    for nonce in range(1000):
        header = bytes(4) + sha256(b"previous block").digest() + root + time_s.to_bytes(4, "little") + EASIEST
        header += nonce.to_bytes(4, "little")
        if (sha256(sha256(header).digest()).digest()[-1] < 0x7F) == works:
            return header
    raise AssertionError("no nonce found")


def anchors() -> Iterator[tuple[str, Case]]:
    checkpoint = PROOF.checkpoint
    proof = rebuilt(checkpoint, timestamp_of(checkpoint, in_block()))
    test_chain = {"min_difficulty": 0, "block_headers": [block(checkpoint).hex()]}
    shown, unchecked = {"anchored": "established"}, {"anchored": "unchecked"}
    yield "anchored-valid", case("A block commits to the checkpoint.", proof, None, **test_chain, levels=shown)
    yield "anchored-valid-absent", case("A header is given and nothing to check with it.", PROOF, None, **test_chain)
    yield (
        "anchored-valid-required",
        case("It is required.", proof, None, **test_chain, require=["anchored"], levels=shown),
    )
    yield "anchored-valid-unchecked", case("No block header is given.", proof, None, levels=unchecked)
    for name, description, data in (
        ("message", "A message of 4,096 bytes.", timestamp_of(checkpoint, doubled(7))),
        ("sum", "A message of 4,096 bytes, most of it added.", timestamp_of(checkpoint, added(4096 - 32))),
        ("paths", "Two hundred and fifty-six paths.", many_paths(256)),
    ):
        yield f"anchored-valid-{name}", case(description, rebuilt(checkpoint, data), None, levels=unchecked)
    highest = rebuilt(checkpoint, timestamp_of(checkpoint, in_block(2**53 - 1)))
    yield "anchored-valid-height", case("The greatest height.", highest, None, levels=unchecked)
    headers = {"min_difficulty": 0, "block_headers": [block("another").hex(), block(checkpoint).hex()]}
    yield "anchored-valid-second", case("The second header is the one.", proof, None, **headers, levels=shown)
    promise = ots_paths.Path((NONCE,), ots_paths.pending("https://calendar.example.org"))
    pending = rebuilt(checkpoint, timestamp_of(checkpoint, promise))
    yield "anchored-valid-pending", case("A calendar has promised a block.", pending, None)
    both = rebuilt(checkpoint, timestamp_of(checkpoint, promise, in_block()))
    yield "anchored-valid-both", case("A promise and a block.", both, None, **test_chain, levels=shown)
    foreign = ots_paths.Path((NONCE, Step(0x02)), ots_paths.bitcoin(1))
    mixed = rebuilt(checkpoint, timestamp_of(checkpoint, foreign, in_block()))
    yield "anchored-valid-sha1", case("A path by SHA-1 counts for nothing.", mixed, None, **test_chain, levels=shown)
    unknown = ots_paths.Path((NONCE,), Attestation(bytes.fromhex("0102030405060708"), b"x"))
    strange = rebuilt(checkpoint, timestamp_of(checkpoint, unknown))
    yield "anchored-valid-unknown", case("An attestation of an unknown kind.", strange, None)
    as_tlog = TlogProof.of(proof).encode()
    yield "anchored-valid-tlog", case("As a .tlog-proof.", as_tlog, None, **test_chain, levels=shown)
    refused = errors.AnchorError
    idle, old = block(checkpoint, works=False), block(checkpoint, HEAD_MS // 1000 - 86_401)
    for name, description, header in (
        ("other-block", "The header is of another block.", block("another").hex()),
        ("no-work", "The header has not the work that it claims.", idle.hex()),
        ("too-old", "The block is a day and a second older than the head.", old.hex()),
        ("short", "A header of 79 bytes.", block(checkpoint).hex()[:-2]),
        ("target", "A target that is none.", block(checkpoint).replace(EASIEST, b"\xff\xff\xff\xff").hex()),
    ):
        given = {"min_difficulty": 0, "block_headers": [header]}
        yield f"anchor-{name}", case(description, proof, refused, **given)
    easy = {"block_headers": [block(checkpoint).hex()]}
    yield "anchor-easy", case("The header was too easy to make.", proof, refused, **easy)
    other = proof._replace(ots=timestamp_of("another", in_block()))
    yield "anchor-other-file", case("The timestamp is of another checkpoint.", other, refused)
    yield "anchor-required", case("Required, and no header is given.", proof, refused, require=["anchored"])
    yield "anchor-required-absent", case("Required, and there is none.", PROOF, refused, require=["anchored"])
    yield "anchor-required-pending", case("Required, and only promised.", pending, refused, require=["anchored"])


def doubled(times: int) -> ots_paths.Path:
    return ots_paths.Path((*(Step(ots_paths.HEXLIFY),) * times, HASHED), ots_paths.bitcoin(1))


def added(size: int) -> ots_paths.Path:
    return ots_paths.Path((Step(ots_paths.APPEND, b"x" * size), HASHED), ots_paths.bitcoin(1))


def many_paths(count: int) -> bytes:
    steps = [Step(ots_paths.APPEND, number.to_bytes(2, "big")) for number in range(count)]
    return timestamp_of(PROOF.checkpoint, *(ots_paths.Path((step, HASHED), ots_paths.bitcoin(1)) for step in steps))


def timestamps() -> Iterator[tuple[str, Case]]:
    """Timestamp files that are none."""
    good = timestamp_of(PROOF.checkpoint, in_block())
    start = 31 + 1 + 1 + 32  # what comes before the paths
    unknown, malformed_ = errors.UnsupportedProofError, errors.MalformedTimestampError
    uri = bytes([0]) + ots_paths.PENDING
    for name, description, data, error in (
        ("empty", "Nothing.", b"", malformed_),
        ("magic", "Another beginning.", flip(good), malformed_),
        ("version", "Another version.", good[:31] + b"\x02" + good[32:], unknown),
        ("hash", "A file hashed by SHA-1.", good[:32] + b"\x02" + good[33:], unknown),
        ("digest-cut", "Cut off within the digest.", good[:50], malformed_),
        ("cut", "Cut off within a path.", good[:-3], malformed_),
        ("trailing", "A byte after the end.", good + b"\0", malformed_),
        *(
            (name, description, good[:start] + step + good[start:], malformed_)
            for name, description, step in (
                ("long-number", "A length written longer than it is.", b"\xf0\x81\x00x"),
                ("huge-number", "A length of 2^64.", b"\xf0" + b"\x80" * 9 + b"\x02"),
                ("huge-step", "A step that adds 4,097 bytes.", b"\xf0\x81\x20" + bytes(4097)),
                ("deep", "A path of 300 steps.", b"\x08" * 300),
            )
        ),
        ("long-message", "A message of 8,192 bytes.", timestamp_of(PROOF.checkpoint, doubled(8)), malformed_),
        ("long-sum", "A message of 4,097 bytes.", timestamp_of(PROOF.checkpoint, added(4097 - 32)), malformed_),
        ("many-paths", "Two hundred and fifty-seven paths.", many_paths(257), malformed_),
        ("step", "A step of an unknown kind.", good[:start] + b"\x0b" + good[start:], malformed_),
        ("empty-step", "A step that adds nothing.", good[:start] + b"\xf0\x00" + good[start:], malformed_),
        ("doubled", "A path twice.", good[:start] + b"\xff" + good[start:] * 2, malformed_),
        ("height", "A height that is followed by more.", good[:-4] + b"\x04" + good[-3:] + b"\0", malformed_),
        ("huge-height", "A height of 2^53.", timestamp_of(PROOF.checkpoint, in_block(2**53)), malformed_),
        ("uri", "A calendar's address with a line break.", good[:start] + uri + b"\x03\x02a\n", malformed_),
    ):  # fmt: skip
        yield f"timestamp-{name}", case(description, PROOF._replace(ots=data, assurance="anchored"), error)


# Acknowledgements.


def directory(**members: Any) -> str:
    """Return a JSON Web Key Set with the destination's key."""
    x = strict.to_base64url(bytes(signer("destination").verify_key))
    key = {"kty": "OKP", "crv": "Ed25519"}
    others = [{**key, "x": members.pop("second")}] if "second" in members else []
    return json.dumps({"keys": [{**key, "x": x, **members}, *others]})


def acknowledgements() -> Iterator[tuple[str, Case]]:
    proof = make_proof(LEAVES, ACKNOWLEDGED)
    key = {"destination_keys": [bytes(signer("destination").verify_key).hex()]}
    shown, unchecked = {"acknowledged": "established"}, {"acknowledged": "unchecked"}
    yield "acknowledged-valid", case("The destination signed.", proof, None, **key, levels=shown)
    made = Leaf.parse(LEAVES[INDEX])._replace(sent_hash=sha256(SENT).digest())
    yield (
        "acknowledged-valid-transformed",
        case(
            "The destination signed what a transform made.", signed_leaf(acknowledged(made)), None, **key, levels=shown
        ),
    )
    yield (
        "acknowledgement-transformed",
        case(
            "The destination signed what came, and something else was sent.",
            signed_leaf(acknowledged(made, payload_hash=made.payload_hash)),
            errors.AcknowledgementError,
            **key,
        ),
    )
    yield "acknowledged-valid-absent", case("A key is given and nothing to check with it.", PROOF, None, **key)
    yield (
        "acknowledged-valid-required",
        case("It is required.", proof, None, **key, require=["acknowledged"], levels=shown),
    )
    yield (
        "acknowledged-valid-unchecked",
        case("Nobody says which key is the destination's.", proof, None, levels=unchecked),
    )
    two = {"destination_keys": ["00" * 32, *key["destination_keys"]]}
    yield "acknowledged-valid-second", case("The second key is the one.", proof, None, **two, levels=shown)
    yield (
        "acknowledged-valid-tlog",
        case("As a .tlog-proof.", TlogProof.of(proof).encode(), None, **key, levels=shown),
    )
    least = acknowledged(make_leaf(INDEX, PREVIOUS), alg=None, keyid=None, expires=HEAD_MS // 1000 + 60)
    yield (
        "acknowledged-valid-parameters",
        case("Without alg and keyid, with expires.", signed_leaf(least), None, **key, levels=shown),
    )
    swapped = acknowledged(make_leaf(INDEX, PREVIOUS), components=acknowledgement.COMPONENTS[::-1])
    yield (
        "acknowledged-valid-order",
        case("The components in another order.", signed_leaf(swapped), None, **key, levels=shown),
    )
    for name, description, text, error in (
        ("valid-directory", "The key comes in a key directory.", directory(use="sig", alg="EdDSA"), None),
        ("valid-directory-other", "With members that are nobody's business.", directory(n=-0.5, m=[{}]), None),
        ("valid-directory-digits", "A number of 5,000 digits.", directory(n=0).replace(" 0", " 1" + "0" * 4999), None),
        ("directory-use", "A key for another use.", directory(use="enc"), errors.MalformedKeyError),
        ("directory-no-use", "A use that is null.", directory(use=None), errors.MalformedKeyError),
        ("directory-no-alg", "An algorithm that is null.", directory(alg=None), errors.MalformedKeyError),
        ("directory-no-list", "The keys are an object.", '{"keys":{}}', errors.MalformedKeyError),
        ("directory-list", "A list alone.", "[]", errors.MalformedKeyError),
        ("directory-long", "A second key of 35 bytes.", directory(second="A" * 47), errors.MalformedKeyError),
        ("directory-short", "A second key of 31 bytes.", directory(second="A" * 42), errors.MalformedKeyError),
        ("directory-number", "A second key that is a number.", directory(second=1), errors.MalformedKeyError),
        ("directory-nan", "A number that is none.", directory(n=float("nan")), errors.MalformedKeyError),
    ):
        levels = {"levels": shown} if error is None else {}
        yield f"acknowledged-{name}", case(description, proof, error, destination_key_set=text, **levels)
    refused = errors.AcknowledgementError
    leaf = make_leaf(INDEX, PREVIOUS)
    other = {"destination_keys": ["00" * 32]}
    yield "acknowledgement-other-key", case("Another key is the destination's.", proof, refused, **other)
    yield "acknowledgement-required", case("Required, and no key is given.", proof, refused, require=["acknowledged"])
    yield (
        "acknowledgement-required-absent",
        case("Required, and there is none.", PROOF, refused, require=["acknowledged"]),
    )
    broken = acknowledged(leaf)
    forged = broken._replace(acknowledgement_signature=flip(broken.acknowledgement_signature or b""))
    yield "acknowledgement-signature", case("The signature was changed.", signed_leaf(forged), refused)
    answered = acknowledged(leaf._replace(response_status=299, reason="status_299"))
    yield (
        "acknowledged-valid-299",
        case("The last status of success.", signed_leaf(answered), None, **key, levels=shown),
    )
    for status in (199, 300, 500):
        failed = acknowledged(leaf._replace(response_status=status, reason=f"status_{status}"))
        yield (
            f"acknowledgement-status-{status}",
            case(f"The destination signed its status {status}, which is no success.", signed_leaf(failed), refused),
        )
    head, _, line = (broken.acknowledgement_base or b"").rpartition(b"\n")
    first, rest = line.split(b";created", 1)
    start, listed = first.split(b"(", 1)
    for name, description, base in (
        ("not-ascii", "A base that is not ASCII.", head + "\ncaf\u00e9".encode()),
        ("no-parameters", "A base that does not end in its parameters.", head),
        ("other-last-line", "Its last line is its parameters without their name.", head + b"\n(" + listed),
        ("huge", "What would have to be signed has more than 8,192 bytes.",
         line.replace(b"billing-1", b"b" * (8192 - len(line)))),
        ("no-list", "Its parameters do not begin with a list.", head + b"\n" + start + b"1;created" + rest),
        ("list-end", "Its list does not end.", head + b"\n" + start + b"(" + listed.rstrip(b")") + b";created" + rest),
        ("list-space", "Two components without a space.", head + b"\n" + line.replace(b'" "', b'""', 1)),
        ("list-value", "A component that is no value.", head + b"\n" + line.replace(b'("', b'(="', 1)),
        ("parameter-name", "A parameter without a name.", head + b"\n" + line.replace(b";alg=", b";=", 1)),
        ("parameter-twice", "A parameter twice.", head + b"\n" + line + b";alg=\"ed25519\""),
        ("parameters-trailing", "Something follows its parameters.", head + b"\n" + line + b"?"),
    ):  # fmt: skip
        assert base != broken.acknowledgement_base, name
        signed = broken._replace(acknowledgement_base=base, acknowledgement_signature=sign("destination")(base))
        yield f"acknowledgement-base-{name}", case(description, signed_leaf(signed), refused)
    bare = broken._replace(response_status=None, response_digest=None)
    yield "acknowledgement-no-response", case("There was no response.", signed_leaf(bare), refused)
    for name, description, changes in (
        ("body", "It is of another body.", {"payload_hash": sha256(b"another").digest()}),
        ("event", "It is of another event.", {"webhook_id": uuid("event 0")}),
        ("status", "It is of another status.", {"status": 204}),
        ("response", "It is of another response.", {"response_digest": sha256(b"another").digest()}),
        ("component", "It does not cover the status.", {"components": acknowledgement.COMPONENTS[1:]}),
        ("component-twice", "It covers the status twice.",
         {"components": (*acknowledgement.COMPONENTS, acknowledgement.COMPONENTS[0])}),
        ("late", "It was made 301 seconds after the try.", {"created": (HEAD_MS - 1000) // 1000 + 301}),
        ("early", "It was made 301 seconds before the try.", {"created": (HEAD_MS - 1000) // 1000 - 301}),
        ("no-date", "It does not say when it was made.", {"created": None}),
        ("expired", "It had expired before the try.", {"expires": (HEAD_MS - 1000) // 1000}),
        ("tag", "It has another tag.", {"tag": "other"}),
        ("no-tag", "It has no tag.", {"tag": None}),
        ("algorithm", "It is said to be of another algorithm.", {"alg": "rsa-pss-sha512"}),
        ("parameter", "It has a parameter that it may not have.", {"context": "x"}),
        ("parameter-type", "Its date is a string.", {"created": "1767225600"}),
    ):  # fmt: skip
        yield f"acknowledgement-{name}", case(description, signed_leaf(acknowledged(leaf, **changes)), refused)


def signed_leaf(leaf: Leaf) -> Proof:
    """Return the proof of a log that has this leaf in its place."""
    made = of_a_log_with(leaf.encode())
    return build(
        leaf=made.leaf,
        leaf_index=INDEX,
        inclusion_proof=made.inclusion_proof,
        checkpoint=made.checkpoint,
        keys=[vkey()],
    )


PREVIOUS = leaf_hash(LEAVES[INDEX - 1])


def repeated() -> Iterator[tuple[str, Case]]:
    """What a proof.json says twice and must say alike."""
    witnessed = json.loads(rebuilt(PROOF.checkpoint + cosigned("a", "b")).encode())
    lines = witnessed["cosignatures"]
    acknowledged_ = json.loads(make_proof(LEAVES, ACKNOWLEDGED).encode())
    shown = acknowledged_["acknowledgement"]
    anchored = json.loads(rebuilt(PROOF.checkpoint, timestamp_of(PROOF.checkpoint, in_block())).encode())
    for name, description, content in (
        ("cosignatures-missing", "A line of the checkpoint is not listed.", {**witnessed, "cosignatures": lines[:1]}),
        ("cosignatures-order", "The lines are listed in another order.", {**witnessed, "cosignatures": lines[::-1]}),
        ("cosignatures-extra", "A line is listed that is not there.",
         with_(cosignatures=[LISTED], assurance="witnessed")),
        ("cosignatures-date", "A line is listed with another date.",
         {**witnessed, "cosignatures": [{**lines[0], "timestamp_s": 1}, lines[1]]}),
        ("acknowledgement-missing", "The acknowledgement of the leaf is not shown.",
         {**acknowledged_, "acknowledgement": None}),
        ("acknowledgement-extra", "An acknowledgement that the leaf does not have.",
         with_(acknowledgement=SHOWN, assurance="acknowledged")),
        ("acknowledgement-key", "Another key than in the leaf.",
         {**acknowledged_, "acknowledgement": {**shown, "key": "00" * 32}}),
        ("assurance-strong", "Claims to be witnessed, and has no cosignature.", with_(assurance="witnessed")),
        ("assurance-weak", "Claims less than what it holds.", {**acknowledged_, "assurance": "claimed"}),
        ("assurance-anchored", "Claims to be witnessed, and is anchored.", {**anchored, "assurance": "witnessed"}),
    ):  # fmt: skip
        yield f"head-{name}", case(description, content, errors.HeadMismatchError)


# The parts below a proof.


def merkle() -> Json:
    """RFC 6962 trees over the leaves that Certificate Transparency's own tests use."""
    data = [bytes.fromhex(text) for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    data.append(bytes(range(0x60, 0x70)))
    hashes = [leaf_hash(item) for item in data]
    return {
        "leaves": [item.hex() for item in data],
        "leaf_hashes": [value.hex() for value in hashes],
        "node_of_the_first_two": node_hash(*hashes[:2]).hex(),
        "roots": [root_from_leaves(hashes[:size]).hex() for size in range(len(data) + 1)],
        "inclusion": [
            {"leaf_index": i, "tree_size": n, "proof": [node.hex() for node in path(i, hashes[:n])]}
            for n in range(1, len(data) + 1)
            for i in range(n)
        ],
        "consistency": [
            {"old_size": m, "new_size": n, "proof": [node.hex() for node in consistency(m, hashes[:n])]}
            for n in range(1, len(data) + 1)
            for m in range(1, n + 1)
        ],
    }


def tile_forms() -> Json:
    """Paths of tiles and bundles, and bundles, with what is none of them."""
    entries = [b"", b"a", LEAVES[0]]
    bundle = tiles.encode_bundle(entries)
    return {
        "tile_paths": [
            {"path": tiles.path(tiles.Tile(level, number), hashes), "level": level, "number": number, "hashes": hashes}
            for level, number, hashes in ((0, 0, 256), (0, 67, 5), (2, 999, 256), (1, 1000, 255), (0, 1234067, 256))
        ],
        "bundle_paths": [
            {"path": tiles.entries_path(number, entries), "number": number, "entries": entries}
            for number, entries in ((0, 256), (67, 5), (1234067, 1))
        ],
        "no_paths": [
            "", "tile/0/0", "tile/0/0000", "tile/00/000", "tile/64/000", "tile/0/x000/001", "tile/0/001/002",
            "tile/0/x001/x002", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/05", "tile/0/000/", "/tile/0/000",
            "tile/-1/000", "tile/entries/0", "tile/entries/000.p/256", "tile/entries/x000/001",
        ],
        "bundles": [{"bundle": bundle.hex(), "entries": [entry.hex() for entry in entries]}],
        "no_bundles": [
            {"bundle": bundle[:-1].hex(), "entries": 3, "description": "The last entry is cut."},
            {"bundle": bundle.hex() + "00", "entries": 3, "description": "A byte follows."},
            {"bundle": bundle.hex(), "entries": 2, "description": "An entry too many."},
            {"bundle": bundle.hex(), "entries": 4, "description": "An entry too few."},
            {"bundle": "00", "entries": 1, "description": "Half a length."},
        ],
    }  # fmt: skip


def notes() -> Json:
    """A note signed by the specification's rules alone, and a head in both forms down to the bytes."""
    sth = PROOF.sth
    return {
        "seed": sha256(b"log").hexdigest(),
        "vkey": vkey().encode(),
        "key_id": vkey().key_id.hex(),
        "sth_key_id": STHVerifier(vkey()).key_id.hex(),
        "log_id": sth.log_id.hex(),
        "text": PROOF.checkpoint.partition("\n\n")[0] + "\n",
        "checkpoint": PROOF.checkpoint,
        "sth_message": sth_message(sth.tree_size, sth.timestamp_ms, sth.root_hash).hex(),
        "sth": sth.to_json(),
        "leaf": LEAVES[INDEX].decode(),
        "leaf_hash": leaf_hash(LEAVES[INDEX]).hex(),
    }


ORDER = 2**252 + 27742317777372353535851937790883648493
TORSION = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")  # a point of order 8
IDENTITY = (1).to_bytes(32, "little")
IDENTITY_NOT_CANONICAL = (2**255 - 18).to_bytes(32, "little")


def point(scalar: int) -> bytes:
    return crypto_scalarmult_ed25519_base_noclamp((scalar % ORDER).to_bytes(32, "little"))


def challenge(r: bytes, a: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(r + a + message).digest(), "little")


def ed25519() -> list[Json]:
    """Signatures on which Ed25519 libraries disagree, and what the profile says to each."""
    message = b"one profile"
    secret, nonce = 0x5EC2E7 << 200, 0x0F0F0F << 190
    public, commitment = point(secret), point(nonce)

    def s(r: bytes, a: bytes, extra: int = 0) -> bytes:
        return ((nonce + challenge(r, a, message) * secret) % ORDER + extra).to_bytes(32, "little")

    mixed_r = crypto_core_ed25519_add(commitment, TORSION)
    mixed_a = crypto_core_ed25519_add(public, TORSION)
    divisible, other = mixed_key_nonces(mixed_a, message)

    def under_mixed(n: int) -> bytes:
        r = point(n)
        return r + ((n + challenge(r, mixed_a, message) * secret) % ORDER).to_bytes(32, "little")

    trivial = commitment + (nonce % ORDER).to_bytes(32, "little")
    rows = [
        ("a plain signature", public, commitment + s(commitment, public), True),
        ("S is not reduced", public, commitment + s(commitment, public, ORDER), False),
        ("R has a torsion part: only the equation with cofactor holds", public, mixed_r + s(mixed_r, public), False),
        ("R is the identity", public, IDENTITY + identity_s(secret, public, IDENTITY, message), False),
        ("A has a torsion part that the challenge cancels", mixed_a, under_mixed(divisible), True),
        (
            "A has a torsion part that remains: only the equation with cofactor holds",
            mixed_a,
            under_mixed(other),
            False,
        ),
        ("A is the identity", IDENTITY, trivial, False),
        ("A is the identity, not canonical", IDENTITY_NOT_CANONICAL, trivial, False),
        ("A has order 8", TORSION, trivial, False),
        ("a byte was changed", public, flip(commitment + s(commitment, public), 40), False),
    ]
    return [
        {"description": d, "public_key": a.hex(), "message": message.hex(), "signature": g.hex(), "valid": v}
        for d, a, g, v in rows
    ]


def identity_s(secret: int, public: bytes, r: bytes, message: bytes) -> bytes:
    return (challenge(r, public, message) * secret % ORDER).to_bytes(32, "little")


def mixed_key_nonces(mixed: bytes, message: bytes) -> tuple[int, int]:
    """Return a nonce whose challenge under a key with a torsion part is a multiple of 8, and one whose is not."""
    reduced = {n: challenge(point(n), mixed, message) % ORDER % 8 for n in range(1, 64)}
    return next(n for n, rest in reduced.items() if rest == 0), next(n for n, rest in reduced.items() if rest != 0)


def main() -> None:
    made = files()
    for old in [*HERE.glob("*.json"), *HERE.glob("proof/*.json")]:
        old.unlink()
    for name, content in made.items():
        target = HERE / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)


if __name__ == "__main__":
    main()
