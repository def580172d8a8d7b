"""Which versions of a key can sign, and what a signer answers for."""

import asyncio
import threading
import traceback
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from nacl.signing import SigningKey, VerifyKey

from kapsel_attestor.errors import SignerAwayError, SigningError
from kapsel_attestor.signers.backends import Identity
from kapsel_attestor.signers.gate import Gate
from kapsel_attestor.signers.keyring import Keyring
from kapsel_attestor.signers.seeds import SeedBackend
from kapsel_attestor.signers.signer import Signer, sign_by_all
from kapsel_store.key_backends import FileKey
from kapsel_store.rows import Configuration, KeyRow, LogRow
from kapsel_verifier.merkle import EMPTY_ROOT
from kapsel_verifier.note import Checkpoint, Note
from kapsel_verifier.sth import STHVerifier

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LOG = LogRow(namespace="shop", name="log", origin="log.example.com", key_name="log-key")
KEY = KeyRow(
    id=UUID(int=1),
    namespace="shop",
    name="log-key",
    version=1,
    algorithm="Ed25519",
    secret=b"\x01" * 32,
    not_before=NOW - timedelta(days=1),
)
NEWER = replace(KEY, id=UUID(int=2), version=2, secret=b"\x02" * 32)
HEAD = Checkpoint(origin=LOG.origin, tree_size=0, root_hash=EMPTY_ROOT)


def public(key: KeyRow) -> bytes:
    return bytes(SigningKey(key.secret).verify_key)


async def opened(*keys: KeyRow) -> tuple[Signer, ...]:
    found = await Keyring(Identity()).open(Configuration(keys=keys), LOG, {})
    assert found.troubles == ()
    return found.signers


async def test_signer_signs_under_the_name_of_the_log() -> None:
    (signer,) = await opened(KEY)
    assert (signer.key.name, signer.key.public_key) == ("log.example.com", public(KEY))
    VerifyKey(signer.key.public_key).verify(b"message", await signer.sign(b"message"))


async def test_all_versions_that_can_sign_are_opened_the_oldest_first() -> None:
    others = (
        replace(NEWER, secret=b""),
        replace(NEWER, namespace="other"),
        replace(NEWER, name="other"),
        replace(NEWER, algorithm="HMAC-SHA256"),
    )
    assert [signer.key.public_key for signer in await opened(NEWER, *others, KEY)] == [public(KEY), public(NEWER)]


async def test_a_head_carries_both_lines_of_every_signer() -> None:
    signers = await opened(KEY, NEWER)
    signed = await sign_by_all(signers, HEAD, 1_700_000_000_000)
    note = Note.parse(signed.checkpoint)
    assert len(note.signatures) == 4
    for signer in signers:
        assert len(note.verify([signer.key, STHVerifier(signer.key)])) == 2
    assert signed.sth.key_id == signers[0].key.key_id


async def test_a_signature_by_another_key_than_the_pinned_one_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    file.write_text("02" * 32)
    row = replace(KEY, secret=b"", backend=FileKey(path=str(file)))
    found = await Keyring(Identity()).open(Configuration(keys=(row,)), LOG, {row.id: public(KEY)})
    (signer,) = found.signers
    assert signer.key.public_key == public(KEY)
    with pytest.raises(SigningError, match="does not sign as log"):
        await signer.sign(b"message")
    file.write_text("01" * 32)
    with pytest.raises(SigningError, match="does not sign as log"):  # it is not asked again at once
        await signer.sign_head(HEAD, 1)


async def test_a_head_signed_by_another_key_than_the_pinned_one_is_refused() -> None:
    signer = replace((await opened(KEY))[0], backend=SeedBackend(NEWER.secret))
    with pytest.raises(SigningError, match="does not sign as log"):
        await signer.sign_head(HEAD, 1)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"short", "holds no key: the value is not base64"),
        (b"whpk_" + b"A" * 43 + b"=", "holds a public key, which cannot sign"),
    ],
)
async def test_a_file_that_holds_no_seed_is_a_trouble(tmp_path: Path, content: bytes | None, words: str) -> None:
    file = tmp_path / "seed"
    if content is not None:
        file.write_bytes(content)
    row = replace(KEY, secret=b"", backend=FileKey(path=str(file)))
    found = await Keyring(Identity()).open(Configuration(keys=(row, NEWER)), LOG, {})
    assert [signer.key.public_key for signer in found.signers] == [public(NEWER)]
    (trouble,) = found.troubles
    assert words in str(trouble)


class Caller:
    """A blocking call that counts, fails or hangs."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = 0
        self.error = error
        self.hangs = threading.Event()
        self.released = threading.Event()

    def __call__(self) -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return "signed"

    def hang(self) -> str:
        self.calls += 1
        self.hangs.set()
        self.released.wait(240)
        return "late"


async def test_a_signer_that_failed_is_left_in_peace_for_a_while() -> None:
    gate, caller = Gate(first_wait=60), Caller(SignerAwayError("overloaded"))
    for _ in range(5):
        with pytest.raises(SignerAwayError, match="overloaded"):
            await gate.call("it", caller)
    assert caller.calls == 1
    with pytest.raises(SignerAwayError, match="overloaded"):
        gate.check()


async def test_a_signer_that_works_is_asked_each_time() -> None:
    gate, caller = Gate(), Caller()
    assert [await gate.call("it", caller) for _ in range(3)] == ["signed"] * 3
    assert caller.calls == 3


async def test_calls_at_the_same_time_take_turns() -> None:
    gate, under_way, most = Gate(), [], []

    def slow() -> str:
        under_way.append(1)
        most.append(len(under_way))
        threading.Event().wait(0.02)
        under_way.pop()
        return "signed"

    assert await asyncio.gather(*(gate.call("it", slow) for _ in range(4))) == ["signed"] * 4
    assert most == [1, 1, 1, 1]


async def test_a_failure_that_nobody_foresaw_counts_as_away_and_its_words_are_not_told() -> None:
    gate, caller = Gate(first_wait=60), Caller(AttributeError("token hvs.secret"))
    for _ in range(2):
        with pytest.raises(SignerAwayError, match="it fails with AttributeError") as raised:
            await gate.call("it", caller)
        assert "hvs.secret" not in "".join(traceback.format_exception(raised.value))
    assert caller.calls == 1


async def test_a_signer_that_hangs_keeps_one_thread_and_the_deadline() -> None:
    gate, caller = Gate(deadline=0.05, first_wait=0.0), Caller()
    with pytest.raises(SignerAwayError, match=r"it did not answer within 0.05 s"):
        await gate.call("it", caller.hang)
    with pytest.raises(SignerAwayError, match="it has not come back from the last request"):
        await gate.call("it", caller.hang)
    assert caller.hangs.wait(60)
    assert caller.calls == 1
    caller.released.set()
    async with asyncio.timeout(240):
        while True:
            try:
                assert await gate.call("it", Caller()) == "signed"
                return
            except SignerAwayError:
                await asyncio.sleep(0.01)
