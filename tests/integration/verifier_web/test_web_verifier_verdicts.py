"""The page gives the verdicts of kapsel_verifier: same class of refusal, same levels, same JSON, for the same bytes."""

import json
import random
from collections.abc import Callable
from hashlib import sha512
from typing import Any

import proof_vectors
import pytest
from browser import Page
from nacl.bindings import (
    crypto_core_ed25519_add,
    crypto_scalarmult_ed25519_base_noclamp,
    crypto_sign_open,
)
from nacl.exceptions import BadSignatureError

from kapsel_verifier import errors, given, keys, policy, strict
from kapsel_verifier import proof as proofs
from kapsel_verifier.errors import VerificationError

VECTORS = proof_vectors.FOLDER
CASES = proof_vectors.load()
ORDER = 2**252 + 27742317777372353535851937790883648493
PRIME = 2**255 - 19
TORSION = bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")  # a point of order 8

Judge = Callable[[dict[str, Any]], dict[str, Any]]
Python = Callable[[dict[str, Any]], dict[str, Any]]


def verdict(result: dict[str, Any]) -> tuple[str | None, int]:
    return result.get("error"), result.get("exit_code", 0)


def test_each_vector_gets_its_verdict(judge: Judge) -> None:
    judged = judge(CASES)
    assert {name: verdict(judged[name]) for name in CASES} == {
        name: (case["error"], case["exit_code"]) for name, case in CASES.items()
    }


def test_each_verified_vector_has_its_levels(judge: Judge) -> None:
    verified = {name: case for name, case in CASES.items() if case["error"] is None}
    judged = judge(verified)
    assert verified
    assert {name: {level: found["state"] for level, found in judged[name]["levels"].items()} for name in verified} == {
        name: case["levels"] for name, case in verified.items()
    }


def test_the_json_of_a_verified_proof_is_that_of_the_command(judge: Judge, python_says: Python) -> None:
    verified = {name: case for name, case in CASES.items() if case["error"] is None}
    judged = judge(verified)
    for name, case in verified.items():
        ours, theirs = judged[name], json.loads(json.dumps(python_says(case)))
        for result in (ours, theirs):
            del result["ed25519"]  # which implementation it was
            for level in result["levels"].values():
                del level["detail"]  # names options there, fields here
        assert ours == theirs, name


def test_what_is_wrong_in_a_file_is_said_and_placed_in_the_words_of_the_command(judge: Judge) -> None:
    valid = CASES["valid"]
    changes = (
        ('"leaf_index":5', '"leaf_index":9007199254740992'),
        ('"leaf_index":5', f'"leaf_index":{"9" * 5000}'),
        ('"tree_size":13', '"tree_size":-1'),
        ('"cosignatures":[]', '"cosignatures":[{},{"a":[1,2.5]}]'),
        ('"cosignatures":[]', '"cosignatures":[{"name":"w","key_id":"00000000"}]'),
        ('"sth":{', '"sth":{"alg":1,'),
        ('"inclusion_proof":["', '"inclusion_proof":["00","'),
        ("{", "\ufeff{"),
    )
    cases = {new: {**valid, "proof": valid["proof"].replace(old, new, 1)} for old, new in changes}
    cases |= {
        "public key": {**valid, "keys": ["zz"]},
        "key set": {**valid, "key_set": json.dumps({"keys": [{"vkey": valid["keys"][0]}, {"vkey": 1}]})},
        "hash": {**CASES["tlog-valid"], "proof": CASES["tlog-hash-short"]["proof"]},
    }
    judged = judge(cases)
    for name, case in cases.items():
        with pytest.raises(VerificationError) as refusal:
            proof_vectors.judge(case)
        assert judged[name]["message"] == str(refusal.value), name


def test_the_classes_of_refusal_are_those_of_python(modules: Page) -> None:
    ours = modules.run(
        """async () => Object.values(await import("/errors.js")).map((type) =>
             [type.className, type.exitCode, type.meaning, Object.getPrototypeOf(type).className ?? null])"""
    )
    theirs = [
        [
            name,
            value.exit_code,
            value.meaning,
            base.__name__ if issubclass(base := value.__base__, VerificationError) else None,
        ]
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, VerificationError) and name != "MalformedTileError"
    ]
    # Tiles are read by who follows a log, not by who checks a proof.
    assert sorted(ours) == sorted(theirs)


def test_signatures_on_which_libraries_disagree_get_the_verdict_of_the_profile(modules: Page) -> None:
    rows = json.loads((VECTORS / "ed25519.json").read_text())
    arguments = [(row["public_key"], row["message"], row["signature"]) for row in rows]
    assert [ours for ours, _ in _signature_verdicts(modules, arguments)] == [row["valid"] for row in rows]


def test_crafted_signatures_get_the_verdict_of_libsodium(modules: Page) -> None:
    crafted = _crafted()
    verdicts = _signature_verdicts(modules, [tuple(part.hex() for part in row) for row in crafted])
    theirs = [_libsodium_accepts(*row) for row in crafted]
    assert [ours for ours, _ in verdicts] == theirs
    assert 100 < sum(theirs) < len(theirs)
    # Why the browser's own Ed25519 does not do alone, and why it may have a veto.
    browser = [said for _, said in verdicts]
    assert any(said and not valid for said, valid in zip(browser, theirs, strict=True))
    assert not any(said is False and valid for said, valid in zip(browser, theirs, strict=True))


def _signature_verdicts(page: Page, rows: list[tuple[str, ...]]) -> list[tuple[bool, bool | None]]:
    found: list[tuple[bool, bool | None]] = page.run(
        """async (rows) => {
          const { browserSays, holds } = await import("/ed25519.js");
          const { fromHex } = await import("/bytes.js");
          const verdicts = [];
          for (const row of rows) {
            const [key, message, signature] = row.map(fromHex);
            verdicts.push([await holds(key, message, signature), await browserSays(key, message, signature)]);
          }
          return verdicts;
        }""",
        rows,
    )
    return found


def _libsodium_accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        crypto_sign_open(signature + message, key)
    except BadSignatureError:
        return False
    return True


def _crafted() -> list[tuple[bytes, bytes, bytes]]:
    """Return keys, messages and signatures around every corner of the profile: made by who knows the secret scalars."""
    chance = random.Random(8032)
    torsion = [TORSION]
    while len(torsion) < 8:
        torsion.append(crypto_core_ed25519_add(torsion[-1], TORSION))
    odd = [(PRIME + y + sign).to_bytes(32, "little") for y in range(19) for sign in (0, 2**255)]
    odd += [(y + 2**255).to_bytes(32, "little") for y in (1, PRIME - 1)]
    rows = []
    for length in range(30):
        secret, nonce, message = chance.getrandbits(250), chance.getrandbits(250), chance.randbytes(length)
        key, commitment = _point(secret), _point(nonce)
        s = (nonce + _challenge(commitment, key, message) * secret) % ORDER
        plain = commitment + s.to_bytes(32, "little")
        at = chance.randrange(64)
        flipped = bytes([*plain[:at], plain[at] ^ 1 << chance.randrange(8), *plain[at + 1 :]])
        rows += [(key, message, made) for made in (plain, commitment + (s + ORDER).to_bytes(32, "little"), flipped)]
        for twist in torsion[:7]:
            mixed = crypto_core_ed25519_add(key, twist)
            for r in (commitment, crypto_core_ed25519_add(commitment, twist)):
                s = (nonce + _challenge(r, mixed, message) * secret) % ORDER
                rows.append((mixed, message, r + s.to_bytes(32, "little")))
    for key in (*torsion, *odd):
        for r in (*torsion, *odd[:4], _point(5)):
            rows += [(key, b"m", r + nonce.to_bytes(32, "little")) for nonce in (0, 5)]
    for r in (*torsion, *odd):
        key = _point(77)
        rows.append((key, b"m", r + (_challenge(r, key, b"m") * 77 % ORDER).to_bytes(32, "little")))
    return rows


def _point(scalar: int) -> bytes:
    return crypto_scalarmult_ed25519_base_noclamp((scalar % ORDER).to_bytes(32, "little"))


def _challenge(r: bytes, key: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(r + key + message).digest(), "little")


def test_merkle_vectors_hold(modules: Page) -> None:
    vector = json.loads((VECTORS / "merkle.json").read_text())
    failures = modules.run(
        """async ({ leaf_hashes, roots, inclusion, consistency }) => {
          const { verifyConsistency, verifyInclusion } = await import("/merkle.js");
          const { fromHex } = await import("/bytes.js");
          const [leaves, tops] = [leaf_hashes.map(fromHex), roots.map(fromHex)];
          const checks = [
            ...inclusion.map(({ leaf_index: i, tree_size: n, proof }) => (changed) =>
              verifyInclusion(i, n, leaves[i], proof.map(fromHex), tops[changed ? 0 : n])),
            ...consistency.map(({ old_size: m, new_size: n, proof }) => (changed) =>
              verifyConsistency(m, n, proof.map(fromHex), tops[m], tops[changed ? 0 : n])),
          ];
          const refused = async (check, changed) => check(changed).then(() => false, () => true);
          const wrong = [];
          for (const [at, check] of checks.entries()) {
            if (await refused(check, false) || !(await refused(check, true))) wrong.push(at);
          }
          return [checks.length, wrong];
        }""",
        vector,
    )
    assert failures == [len(vector["inclusion"]) + len(vector["consistency"]), []]


JSON_TEXTS = (
    "{}", "{ }", " \n\t\r{}\n", "{a:1}", "{'a':1}", "[]", '"a"', "1", "", " ", "nullx", "\ufeff{}", "\u00a0{}",
    '{"a":1}', '{"a":1,}', '{"a":1,"a":1}', '{"a":1,"\\u0061":2}', '{"a":{"b":1,"b":2}}', '{"é":1,"\\u00e9":2}',
    '{"a":01}', '{"a":-0}', '{"a":1.0}', '{"a":1e2}', '{"a":+1}', '{"a":.5}', '{"a":0x1}', '{"a":9007199254740991}',
    '{"a":9007199254740992}', '{"a":' + "9" * 400 + "}", '{"a":NaN}', '{"a":Infinity}', '{"a":-Infinity}',
    '{"a":true}', '{"a":True}', '{"a":nul}', '{"a":null}', '{"a":[1,2,]}', '{"a":[]}', '{"a":[[[]]]}',
    '{"a":"\\x41"}', '{"a":"\\u12g4"}', '{"a":"\\u12"}', '{"a":"\\ud800"}', '{"a":"\x7f"}', '{"a":"\n"}',
    '{"a":"\\/\\b\\f\\n\\r\\t\\"\\\\"}', '{"a":"', '{"a"', '{"a":1', '{"a":1}x', '{"a":1} {}', '{"a":1}//',
    '{"__proto__":1}', '{"__proto__":1,"__proto__":2}', '{"a":"é😀"}', '{"a" : [ 1 , "b" ] }', '{"a":1\x0c}',
)  # fmt: skip


def test_what_is_strict_json_is_what_python_takes_for_it(modules: Page) -> None:
    data = [text.encode() for text in JSON_TEXTS]
    data += [b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\xaf"}', "{}".encode("utf-16")]
    read = modules.run(
        """async (texts) => {
          const { jsonObject } = await import("/strict.js");
          const { MalformedProofError } = await import("/errors.js");
          const { fromHex } = await import("/bytes.js");
          const plain = (value) => value instanceof Map ? Array.from(value, ([name, item]) => [name, plain(item)])
            : Array.isArray(value) ? value.map(plain) : value;
          return texts.map((text) => {
            try {
              return JSON.stringify(plain(jsonObject(fromHex(text), "it", MalformedProofError)));
            } catch (error) {
              return error instanceof MalformedProofError ? "refused" : String(error);
            }
          });
        }""",
        [item.hex() for item in data],
    )
    assert dict(zip(data, read, strict=True)) == {item: _python_reads(item) for item in data}
    assert "refused" in read


def _python_reads(data: bytes) -> str:
    def plain(value: object) -> object:
        if isinstance(value, dict):
            return [[name, plain(item)] for name, item in value.items()]
        return [plain(item) for item in value] if isinstance(value, list) else value

    try:
        value = plain(strict.json_object(data, "it", errors.MalformedProofError))
    except errors.MalformedProofError:
        return "refused"
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # JSON.stringify escapes halves of pairs, and DEL it does not.
    return "".join(f"\\u{ord(c):04x}" if 0xD800 <= ord(c) < 0xE000 else c for c in text)


def test_the_limits_are_those_of_python(modules: Page) -> None:
    ours = modules.run(
        """async () => {
          const from = async (name) => import(`/${name}.js`);
          return [
            (await from("proof")).MAX_PROOF_SIZE, (await from("keys")).MAX_KEY_SET_SIZE,
            (await from("note")).MAX_NOTE_SIZE, (await from("policy")).MAX_POLICY_SIZE,
            (await from("consistency")).MAX_CONSISTENCY_SIZE,
            (await from("fields")).MAX_BODY_SIZE, (await from("heads")).MAX_SKEW_MS,
            Number((await from("ots")).MIN_DIFFICULTY), (await from("ots_paths")).MAX_SIZE,
          ];
        }"""
    )
    from kapsel_verifier import consistency, heads, note, ots

    assert ours == [
        proofs.MAX_PROOF_SIZE, keys.MAX_KEY_SET_SIZE, note.MAX_NOTE_SIZE,
        policy.MAX_POLICY_SIZE, consistency.MAX_CONSISTENCY_SIZE,
        given.MAX_BODY_SIZE, heads.MAX_SKEW_MS, ots.MIN_DIFFICULTY, ots.MAX_FILE_SIZE,
    ]  # fmt: skip
