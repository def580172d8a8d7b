"""A log gets another key: announced, signed by both for a while, then by the new one alone; nobody is left behind."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import asyncpg
import pytest
from nacl.signing import SigningKey

from kapsel_attestor.attestor import now_ms
from kapsel_attestor.errors import SignerAwayError
from kapsel_attestor.sequencer import Sequencer
from kapsel_attestor.signers.backends import Identity
from kapsel_attestor.signers.keyring import Keyring
from kapsel_attestor.succession import Succession
from kapsel_store import log_keys, tlog
from kapsel_store.key_backends import FileKey
from kapsel_store.log_keys import LogKey
from kapsel_store.rows import Configuration, KeyRow
from kapsel_tlog import check, prover
from kapsel_tlog.key_set import key_set
from kapsel_verifier import keys, proof, verify
from kapsel_verifier.errors import KeyValidityError, UntrustedKeyError
from kapsel_verifier.heads import verify_head
from kapsel_verifier.keys import TrustedKey
from kapsel_verifier.leaf import parse_any
from kapsel_verifier.note import Note, VerifierKey
from kapsel_verifier.statements import KeySuccession


def another(world, version: int, **changed: object) -> KeyRow:
    seed = os.urandom(32)
    public = bytes(SigningKey(seed).verify_key)
    return replace(world.keys[0], id=uuid4(), version=version, secret=seed, public=public, **changed)


def public_of(row: KeyRow) -> bytes:
    return bytes(SigningKey(row.secret).verify_key)


async def history(world) -> list[LogKey]:
    return await log_keys.history(world.connection, (await world.log()).id)


async def published(world) -> list[TrustedKey]:
    """Return keys.json as an auditor reads it."""
    desired = Configuration(log=world.row, keys=tuple(world.keys))
    return list(keys.parse_key_set(keys.encode_key_set(await key_set(world.connection, desired))))


async def signed_by(world, count: int) -> list[bytes]:
    """Return the keys that signed the newest head, the oldest first, if there are so many."""
    head = await world.head()
    if head is None:
        return []
    signers = {signature.key_id for signature in Note.parse(head.checkpoint).signatures}
    known = [VerifierKey(world.row.origin, one.public_key) for one in await history(world)]
    found = [key.public_key for key in known if key.key_id in signers]
    return found if len(found) == count else []


async def next_signed_by(world, count: int) -> list[bytes]:
    """The same, with a leaf that asks for another head: an idle log has one every ten minutes."""
    await recorded(world)
    return await signed_by(world, count)


async def statements(world) -> list[KeySuccession]:
    log = await world.log()
    rows = await tlog.leaves(world.connection, log.id, 0, log.tree_size)
    return [parse_any(row.leaf) for row in rows if row.attempt_id is None]


async def proven(world, attempt_id: UUID) -> proof.Proof:
    return proof.parse((await prover.proof_for_attempt(world.connection, attempt_id)).encode())


async def recorded(world) -> UUID:
    await world.head_over(0)  # before it there is no log
    [attempt_id] = await world.record()
    while not isinstance(await prover.proof_for_attempt(world.connection, attempt_id), proof.Proof):
        await asyncio.sleep(0.01)
    return attempt_id


def refuses(found: proof.Proof, trusted: Sequence[TrustedKey], error: type[Exception]) -> None:
    with pytest.raises(error):
        verify.verify_proof(found, trusted)


async def test_a_key_is_rotated_and_proofs_of_before_during_and_after_hold(world, eventually) -> None:
    old, new = replace(world.keys[0], public=public_of(world.keys[0])), another(world, 2)
    world.keys[:] = [old]
    await world.apply(world.row)
    running = await world.start()
    await world.head_over(0)
    before = await recorded(world)

    world.keys.append(new)
    await world.apply(world.row)
    both = await eventually(signed_by, world, 2)
    assert both == [old.public, new.public]
    during = await recorded(world)

    world.keys.remove(old)
    await world.apply(world.row)
    assert await eventually(next_signed_by, world, 1) == [new.public]
    after = await recorded(world)

    (statement,) = await statements(world)
    statement.verify()
    assert (statement.predecessor.public_key, statement.successor.public_key) == (old.public, new.public)
    first, second = await history(world)
    assert (first.public_key, first.announced_in) == (old.public, None)
    assert (second.public_key, second.announced_in) == (new.public, 1)
    assert first.not_before_ms < second.not_before_ms <= first.not_after_ms
    assert second.not_after_ms is None

    proofs = [await proven(world, attempt) for attempt in (before, during, after)]
    with_old, with_new = TrustedKey(old.public), TrustedKey(new.public)
    for found in proofs[:2]:
        assert verify.verify_proof(found, [with_old]).head.key.public_key == old.public
    refuses(proofs[2], [with_old], UntrustedKeyError)
    refuses(proofs[0], [with_new], UntrustedKeyError)
    for found in proofs[1:]:
        assert verify.verify_proof(found, [with_new]).head.key.public_key == new.public

    offered = await published(world)
    for trusted in (offered, keys.follow([TrustedKey(old.public, world.row.origin)], offered)):
        for found in proofs:
            verify.verify_proof(found, trusted)
    assert keys.follow([with_new], offered) == (with_new,)
    await running.stop()


async def test_a_head_by_a_key_that_has_ended_is_refused_by_the_published_dates(world, eventually) -> None:
    old, new = replace(world.keys[0], public=public_of(world.keys[0])), another(world, 2)
    world.keys[:] = [old, new]
    await world.apply(world.row)
    await world.start()
    await eventually(signed_by, world, 2)
    world.keys.remove(old)
    await world.apply(world.row)
    await eventually(next_signed_by, world, 1)
    ended = next(key for key in await published(world) if key.public_key == old.public)
    during = (await tlog.heads(world.connection, (await world.log()).id, 1000))[-1]
    assert ended.is_valid_at(during.timestamp_ms)
    stolen = replace(during, timestamp_ms=ended.not_after_ms + 1)
    assert not ended.is_valid_at(stolen.timestamp_ms)
    later = await world.head()
    assert later.timestamp_ms > ended.not_after_ms


async def test_a_key_that_is_announced_ahead_of_its_time_signs_when_it_comes(world, eventually) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    first = replace(world.keys[0], public=public_of(world.keys[0]), not_after=soon + timedelta(hours=1))
    world.keys[:] = [first, another(world, 2, not_before=soon)]
    await world.apply(world.row)
    later_ms = 0
    await world.start(clock=lambda: now_ms() + later_ms)
    await world.head_over(0)
    (statement,) = await eventually(statements, world)
    assert statement.not_before == (soon - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    assert statement.predecessor_not_after == statement.not_before + 3_600_000
    await recorded(world)
    assert await signed_by(world, 1) == [first.public]
    later_ms = 3_600_000
    await recorded(world)
    assert len(await signed_by(world, 2)) == 2
    later_ms = 2 * 3_600_000
    await recorded(world)
    assert await signed_by(world, 1) == [statement.successor.public_key]
    assert (await history(world))[0].not_after_ms <= statement.predecessor_not_after
    heads = await tlog.heads(world.connection, (await world.log()).id, 1000)
    announced = VerifierKey(world.row.origin, statement.successor.public_key).key_id
    signed = [head for head in heads if announced in {one.key_id for one in Note.parse(head.checkpoint).signatures}]
    assert min(head.timestamp_ms for head in signed) >= statement.not_before
    assert len(await statements(world)) == 1


async def test_a_key_that_is_announced_after_the_clock_went_back_can_be_followed(world, eventually) -> None:
    first, second = replace(world.keys[0], public=public_of(world.keys[0])), another(world, 2)
    world.keys[:] = [first, second]
    await world.apply(world.row)
    later_ms = 3_600_000
    await world.start(clock=lambda: now_ms() + later_ms)
    await eventually(signed_by, world, 2)
    later_ms = 0
    world.keys.append(third := another(world, 3))
    await world.apply(world.row)
    await eventually(next_signed_by, world, 3)
    pinned = TrustedKey(first.public, world.row.origin)
    followed = keys.follow([pinned], await published(world))
    assert [key.public_key for key in followed] == [first.public, second.public, third.public]
    verify_head((await world.head()).checkpoint, followed[2:])


async def test_a_key_that_is_swapped_at_once_signs_nothing_until_the_old_one_is_back(world, eventually) -> None:
    running = await world.start()
    await recorded(world)
    old, new = world.keys[0], another(world, 2)
    world.keys[:] = [new]
    await world.apply(world.row)
    await eventually(lambda: running.source.current.keys == (new,))  # before it the old one may still sign
    await world.record(3)
    assert "no successor was announced" in await eventually(running.attestor.problem)
    await eventually(grown_to, world, 4)
    assert (await world.head()).tree_size == 1
    assert running.value("attestation_late_heads_total", waits_for="key") > 0

    world.keys[:] = [old, new]
    await world.apply(world.row)
    await eventually(signed_by, world, 2)
    await running.well()


async def grown_to(world, size: int) -> bool:
    return (await world.log()).tree_size >= size


async def test_a_key_that_has_ended_stays_so(world, eventually) -> None:
    running = await world.start()
    await world.head_over(0)
    old, new = world.keys[0], another(world, 2)
    world.keys.append(new)
    await world.apply(world.row)
    await eventually(signed_by, world, 2)
    world.keys.remove(old)
    await world.apply(world.row)
    await eventually(next_signed_by, world, 1)
    world.keys.insert(0, old)
    await world.apply(world.row)
    await eventually(lambda: len(running.source.current.keys) == 2)
    assert await next_signed_by(world, 1) == [new.public]
    world.keys.remove(new)
    await world.apply(world.row)
    await eventually(lambda: len(running.source.current.keys) == 1)  # before it the new one may still sign
    await world.record()
    assert "has ended: auditors take no later head from it" in await eventually(running.attestor.problem)
    for change in ("not_after_ms = NULL", "not_before_ms = 0", "announced_in = 9"):
        with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
            await world.connection.execute(f"UPDATE log_keys SET {change} WHERE number = 1")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError, match="append-only"):
        await world.connection.execute("DELETE FROM log_keys")


async def test_an_attestor_that_is_started_anew_announces_nothing_twice(world, eventually) -> None:
    world.keys.append(another(world, 2))
    await world.apply(world.row)
    for _ in range(3):
        running = await world.start()
        await recorded(world)
        await eventually(signed_by, world, 2)
        await running.stop()
    assert len(await statements(world)) == 1


async def test_a_statement_and_what_is_noted_of_it_are_one_transaction(world) -> None:
    log = await tlog.open_log(world.connection, world.row.origin)
    sequencer = await Sequencer.open(world.connection, log)

    async def fails(_: asyncpg.Connection, index: int) -> None:
        assert index == 0
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await sequencer.state(world.connection, b"{}", fails)
    assert (await world.log()).tree_size == sequencer.log.tree_size == 0
    assert await tlog.leaves(world.connection, log.id, 0, 1) == []


async def test_a_new_key_that_is_not_there_yet_keeps_no_head_waiting(world, eventually, tmp_path) -> None:
    file = tmp_path / "next-key"
    world.keys.append(replace(another(world, 2), secret=b"", public=None, backend=FileKey(path=str(file))))
    await world.apply(world.row)
    running = await world.start()
    await recorded(world)
    await running.well()
    seed = os.urandom(32)
    file.write_text(seed.hex())
    assert (await eventually(signed_by, world, 2))[1] == bytes(SigningKey(seed).verify_key)

    file.write_text(os.urandom(32).hex())
    await world.record()
    await eventually(lambda: "does not sign as" in (running.attestor.problem() or ""))
    file.write_text(seed.hex())
    await recorded(world)
    await running.well()


async def test_a_key_is_not_ended_by_who_has_not_seen_the_newest_configuration(world, eventually) -> None:
    running = await world.start()
    await world.head_over(0)
    stale = running.source.current
    world.keys.append(another(world, 2))
    await world.apply(world.row)
    await eventually(signed_by, world, 2)
    await running.stop()

    log = await world.log()
    behind = Succession(SimpleNamespace(current=stale), Keyring(Identity()), log.id, nobody_states, now_ms)
    with pytest.raises(SignerAwayError, match="the newest configuration has not been loaded yet"):
        await behind.signers(world.connection, world.row)
    assert [one.not_after_ms for one in await history(world)] == [None, None]


async def nobody_states(leaf: bytes, note: object) -> None:
    raise AssertionError(leaf)


async def test_a_log_moves_from_one_signing_key_to_another(world, eventually, tmp_path) -> None:
    file = tmp_path / "ceremony"
    seed = os.urandom(32)
    file.write_text(seed.hex())
    held = another(world, 1, name="external/ceremony")
    world.keys.append(replace(held, secret=b"", public=None, backend=FileKey(path=str(file))))
    await world.apply(world.row)
    await world.start()
    await world.head_over(0)

    moving = replace(world.row, key_name="external/ceremony", retiring_key_name=world.row.key_name)
    await world.apply(moving)
    both = await eventually(signed_by, world, 2)
    assert both == [public_of(world.keys[0]), bytes(SigningKey(seed).verify_key)]

    await world.apply(replace(moving, retiring_key_name=None))
    assert await eventually(next_signed_by, world, 1) == both[1:]


async def test_dates_of_an_old_key_set_refuse_what_its_key_signs_later(world, eventually) -> None:
    old, new = world.keys[0], another(world, 2)
    await world.start()
    await world.head_over(0)
    world.keys.append(new)
    await world.apply(world.row)
    await eventually(signed_by, world, 2)
    during = await proven(world, await recorded(world))
    over = TrustedKey(public_of(old), world.row.origin, not_after_ms=during.sth.timestamp_ms - 1)
    refuses(during, [over], KeyValidityError)
    verified = verify.verify_proof(during, [over, TrustedKey(new.public, world.row.origin)])
    assert verified.head.key.public_key == new.public


async def test_an_attestor_that_is_killed_over_and_over_rotates_all_the_same(world, eventually) -> None:
    old, new = world.keys[0], another(world, 2)

    async def killed_until(count: int) -> None:
        """Kill attestors at whatever they do, ever later, until the newest head is signed by so many keys."""
        patience = 1.0
        while len(await signers_of_head(world)) != count:
            child = await world.start_process()
            await world.record()
            await asyncio.sleep(patience)
            child.kill()
            await child.wait()
            patience += 1.0

    await killed_until(1)
    world.keys.append(new)
    await world.apply(world.row)
    await killed_until(2)
    world.keys.remove(old)
    await world.apply(world.row)
    await killed_until(1)

    log = await world.log()
    assert await signers_of_head(world) == [public_of(new)]
    assert len(await statements(world)) == 1
    assert await check.rebuild(world.connection, log.id, log.tree_size) == log.root
    first, second = await history(world)
    assert (first.public_key, second.public_key) == (public_of(old), public_of(new))
    offered = await published(world)
    heads = await tlog.heads(world.connection, log.id, 1000)
    for trusted in (offered, keys.follow([TrustedKey(public_of(old), world.row.origin)], offered)):
        for head in heads:
            verify_head(head.checkpoint, trusted)


async def signers_of_head(world) -> list[bytes]:
    """Return the keys that signed the newest head, none if there is no log yet."""
    if await tlog.state(world.connection, world.row.origin) is None:
        return []
    return await signed_by(world, 1) or await signed_by(world, 2)
