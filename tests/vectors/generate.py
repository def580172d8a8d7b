"""Makes the test vectors beside this file: for each way a proof can be wrong, a file and the refusal it must get.

Run `python tests/vectors/generate.py` after a change of format; a test holds the committed files equal to its output.
Everything follows from fixed seeds, nothing from the clock or from chance. docs/proof-format.md says how to read them.
"""

import json
from collections.abc import Callable, Iterator
from hashlib import sha256, sha512
from hmac import digest as hmac_digest
from pathlib import Path
from typing import Any

from nacl.bindings import crypto_core_ed25519_add, crypto_scalarmult_ed25519_base_noclamp
from nacl.signing import SigningKey

from kapsel_verifier import errors, leaf_hash, node_hash, root_from_leaves
from kapsel_verifier.keys import TrustedKey, encode_key_set
from kapsel_verifier.leaf import Leaf
from kapsel_verifier.note import Checkpoint, VerifierKey, signature_line
from kapsel_verifier.proof import Proof, build
from kapsel_verifier.sth import SignedTreeHead, STHVerifier, sign_head, sth_message
from kapsel_verifier.tlog_proof import TlogProof

HERE = Path(__file__).parent
ORIGIN = "log.example.com/shop"
HEAD_MS = 1_767_225_601_000  # 2026-01-01 00:00:01 UTC
INDEX = 5
SIZE = 13
BODY = b'{"order":42,"total":"19.90"}'
EVENT_SALT = sha256(b"event salt").digest()

Case = dict[str, Any]
Json = dict[str, Any]


def files() -> dict[str, bytes]:
    """Return every vector file by its path relative to this folder."""
    made: dict[str, Json | list[Json]] = {f"proof/{name}.json": case for name, case in proof_cases()}
    made |= {"merkle.json": merkle(), "ed25519.json": ed25519(), "note.json": notes()}
    return {path: json.dumps(value, indent=1).encode() + b"\n" for path, value in made.items()}


# A log of thirteen attempts on one endpoint, and its key.


def signer(seed: str) -> SigningKey:
    return SigningKey(sha256(seed.encode()).digest())


def vkey(seed: str = "log", origin: str = ORIGIN) -> VerifierKey:
    return VerifierKey(origin, bytes(signer(seed).verify_key))


def sign(seed: str = "log") -> Callable[[bytes], bytes]:
    return lambda message: signer(seed).sign(message).signature


def uuid(label: str) -> str:
    digits = sha256(label.encode()).hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-7{digits[13:16]}-8{digits[17:20]}-{digits[20:32]}"


def make_leaf(sequence: int, previous: bytes | None) -> Leaf:
    delivered = sequence % 3 == 2
    return Leaf(
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


def make_proof(leaves: list[bytes], index: int, key: VerifierKey | None = None, timestamp_ms: int = HEAD_MS) -> Proof:
    key = key or vkey()
    hashes = [leaf_hash(leaf) for leaf in leaves]
    checkpoint = Checkpoint(origin=key.name, tree_size=len(leaves), root_hash=root_from_leaves(hashes))
    head = sign_head(checkpoint, timestamp_ms, key, sign())
    return build(
        leaf=leaves[index],
        leaf_index=index,
        inclusion_proof=path(index, hashes),
        checkpoint=head.checkpoint,
        keys=[key],
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
    data = proof.encode() if isinstance(proof, str) else proof
    try:
        content = {"proof": data.decode()}
    except UnicodeDecodeError:
        content = {"proof_hex": data.hex()}
    outcome = {"error": error.__name__ if error else None, "exit_code": getattr(error, "exit_code", 0)}
    return {"description": description, **outcome, "keys": [vkey().encode()], **given, **content}


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


def proof_cases() -> Iterator[tuple[str, Case]]:
    for cases in (accepted, malformed, unsupported, tlog, leaves, heads, keys, mismatches, inclusion, asked):
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
    stranger = signature_line("witness.example.org", b"\1\2\3\4", bytes(72))
    known = with_(checkpoint=PROOF.checkpoint + stranger)
    yield "valid-unknown-signature", case("A signature by an unknown key is ignored.", known, None)
    successor = vkey("successor")
    checkpoint = Checkpoint(origin=ORIGIN, tree_size=SIZE, root_hash=PROOF.sth.root_hash)
    other = sign_head(checkpoint, HEAD_MS, successor, sign("successor")).checkpoint.partition("\n\n")[2]
    both = with_(checkpoint=PROOF.checkpoint + other)
    yield (
        "valid-rotation",
        case(
            "Signed by the old and the new key, both trusted.", both, None, keys=[successor.encode(), vkey().encode()]
        ),
    )
    yield "valid-key-set", case("Within the key's validity.", PROOF, None, keys=[], key_set=key_set(0, 0))
    yield "valid-payload", case(
        "The body has the hash, and with its salt opens the commitment.",
        PROOF, None, payload=BODY.hex(), payload_salt=EVENT_SALT.hex(),
    )  # fmt: skip
    meets = {"event_id": uuid("event 1"), "response_status": "200", "attempt": "3"}
    yield "valid-expected", case("The leaf meets what was expected.", PROOF, None, expected=meets)
    yield "valid-now", case("Dated later than now by the skew exactly.", PROOF, None, now_ms=HEAD_MS - 300_000)


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
        case("An assurance that version 1 does not know.", with_(assurance="witnessed"), refused),
    )
    yield "unsupported-algorithm", case("Another signature algorithm.", with_sth(alg="ML-DSA-44"), refused)
    yield "unsupported-sth-version", case("Another version of sth.", with_sth(version=2), refused)
    key = vkey("attacker")
    brought = with_(public_key=key.public_key.hex())
    yield "embedded-key", case("The proof brings a key.", brought, errors.EmbeddedKeyError)
    inside = with_sth(vkey=key.encode())
    yield "embedded-key-in-sth", case("The sth brings a key.", inside, errors.EmbeddedKeyError)


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
    ):
        assert bad != leaf, name
        signed = make_proof([*LEAVES[:INDEX], bad.encode(), *LEAVES[INDEX + 1 :]], INDEX)
        yield f"leaf-{name}", case(description, signed, errors.MalformedLeafError)


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
    good = vkey().encode()
    for name, description, text in (
        ("hex-short", "Sixty-two hex digits.", "00" * 31),
        ("id", "A key id that does not fit.", good.replace(vkey().key_id.hex(), "00000000")),
        ("name", "Another name than the id was made for.", "x" + good),
        ("type", "A key type that is not Ed25519.", f"{ORIGIN}+00000000+" + "BAAA" + "A" * 40),
        ("base64", "Not base64.", good[:-1]),
        ("empty", "Nothing.", ""),
    ):
        yield f"key-{name}", case(description, PROOF, refused, keys=[text])
    for name, description, text in (
        ("empty", "A key set without keys.", '{"keys":[]}'),
        ("comments-alone", "A key set of comments.", "# none\n\n"),
        ("unknown-member", "A key with a member it may not have.", f'{{"keys":[{{"vkey":"{good}","alg":"x"}}]}}'),
        ("duplicate-member", "A key with a member twice.", f'{{"keys":[{{"vkey":"{good}","vkey":"{good}"}}]}}'),
        ("no-list", "The keys are an object.", '{"keys":{}}'),
        ("time", "A time that is no integer.", f'{{"keys":[{{"vkey":"{good}","not_after_ms":"1"}}]}}'),
    ):
        yield f"key-set-{name}", case(description, PROOF, refused, keys=[], key_set=text)


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
    for old in [*HERE.glob("*.json"), *HERE.glob("proof/*.json")]:
        old.unlink()
    for name, content in files().items():
        target = HERE / name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content)


if __name__ == "__main__":
    main()
