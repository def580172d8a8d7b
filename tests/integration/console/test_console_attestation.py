"""The public side of the log over HTTP: heads, proofs, tiles and keys, as auditors and caches may rely on."""

import asyncio
import json
from dataclasses import replace
from uuid import uuid4

from nacl.signing import SigningKey

from kapsel_console.tiles import BUNDLE_CACHE, TILE_CACHE
from kapsel_store import tlog
from kapsel_store.rows import Witness, Witnessing
from kapsel_tlog import continuation
from kapsel_verifier import proof as proof_file
from kapsel_verifier.consistency import ConsistencyProof
from kapsel_verifier.cosignature import WitnessKey, cosign
from kapsel_verifier.keys import parse_key_set
from kapsel_verifier.merkle import leaf_hash, root_from_leaves, verify_consistency
from kapsel_verifier.note import Checkpoint, Note, VerifierKey
from kapsel_verifier.sth import SignedTreeHead
from kapsel_verifier.tiles import parse_bundle, parse_tile
from kapsel_verifier.tlog_proof import TlogProof
from kapsel_verifier.verify import verify_proof

PATH = "/api/v1/attestation"


async def test_before_anything_is_published_there_is_no_head(console) -> None:
    for path in (f"{PATH}/sth", "/checkpoint", "/tile/0/000", f"{PATH}/consistency-proof?old_size=0"):
        status, content, response = await console.ask(path)
        assert (status, content["code"], response.headers["Retry-After"]) == (404, "no_head", "2")


async def test_a_proof_is_awaited_then_given_and_verifies_with_the_published_keys(console, world) -> None:
    await console.source._refresh()
    await world.put()
    (attempt,) = await world.attempt()
    status, content, response = await console.ask(f"{PATH}/proof/{attempt.id}")
    assert (status, content["status"], response.headers["Retry-After"]) == (202, "not_integrated", "1")
    await world.sequence()
    status, content, response = await console.ask(f"{PATH}/download-proof/{attempt.id}")
    assert (status, content["status"], response.headers["Retry-After"]) == (202, "not_published", "2")
    await world.publish()
    raw, headers = await console.raw(f"{PATH}/proof/{attempt.id}")
    assert headers["Cache-Control"] == "private, no-store"
    keys = parse_key_set((await console.raw(f"{PATH}/keys"))[0])
    verify_proof(proof_file.parse(raw), keys)
    assert json.loads(proof_file.parse(raw).leaf)["delivery_attempt_id"] == str(attempt.id)
    downloaded, headers = await console.raw(f"{PATH}/download-proof/{attempt.id}")
    assert downloaded == raw
    assert headers["Content-Disposition"] == f'attachment; filename="kapsel-proof-{attempt.id}.json"'
    for path, accept in ((f"proof/{attempt.id}.tlog-proof", "*/*"), (f"proof/{attempt.id}", "text/plain;q=0.9")):
        status, text, response = await console.ask(f"{PATH}/{path}", headers={"Accept": accept})
        assert (status, response.content_type) == (200, "text/plain")
        verify_proof(TlogProof.parse(text), keys)
    _, headers = await console.raw(f"{PATH}/download-proof/{attempt.id}.tlog-proof")
    assert headers["Content-Disposition"] == f'attachment; filename="kapsel-proof-{attempt.id}.tlog-proof"'
    shown = await console.get(f"/api/v1/attempts/{attempt.id}")
    assert shown["leaf_index"] == 0


async def test_an_unknown_attempt_has_no_proof(console) -> None:
    assert (await console.problem(f"{PATH}/proof/{uuid4()}"))[:2] == (404, "unknown_attempt")


async def test_an_erased_leaf_says_so_and_its_neighbours_live_on(console, world) -> None:
    first, second = await world.delivered(2)
    leaf = proof_file.parse((await console.raw(f"{PATH}/proof/{first.id}"))[0]).leaf
    erased = await world.connection.fetchval(
        "UPDATE leaves SET leaf = NULL WHERE attempt_id = $1 RETURNING leaf_index", first.id
    )
    status, content, _ = await console.ask(f"{PATH}/proof/{first.id}")
    assert (status, content["code"], content["erased"], content["leaf_index"]) == (410, "leaf_erased", True, erased)
    assert content["leaf_hash"] == leaf_hash(leaf).hex()
    assert (await console.ask(f"{PATH}/proof/{second.id}"))[0] == 200


async def test_in_a_bundle_an_erased_leaf_is_empty_and_a_statement_of_the_log_is_a_leaf_like_others(
    console, world
) -> None:
    await world.delivered(3)
    # As the attestor has one: about no attempt.
    await world.connection.execute("UPDATE leaves SET attempt_id = NULL WHERE leaf_index = 0")
    whole, headers = await console.raw("/tile/entries/000.p/3")
    assert "Kapsel-Erased-Leaves" not in headers
    await world.connection.execute("UPDATE leaves SET leaf = NULL WHERE leaf_index = 1")
    bundle, headers = await console.raw("/tile/entries/000.p/3")
    assert headers["Kapsel-Erased-Leaves"] == "1"
    before, after = parse_bundle(whole, 3), parse_bundle(bundle, 3)
    assert after == [before[0], b"", before[2]]
    tile, _ = await console.raw("/tile/0/000.p/3")
    assert parse_tile(tile, 3) == [leaf_hash(leaf) for leaf in before]  # the hash of the erased one still stands


async def test_the_head_has_two_forms_that_agree(console, world) -> None:
    await world.delivered(3)
    status, text, response = await console.ask("/checkpoint")
    assert (status, response.content_type) == (200, "text/plain")
    assert response.headers["Cache-Control"] == "public, max-age=1, must-revalidate"
    note = Note.parse(text)
    checkpoint = Checkpoint.parse(note.text)
    (declared,) = world.desired.keys
    key = VerifierKey(checkpoint.origin, declared.public)
    note.verify([key])
    sth = SignedTreeHead.from_json(await console.get(f"{PATH}/sth"))
    sth.verify(key)
    assert (sth.tree_size, sth.root_hash, sth.origin) == (3, checkpoint.root_hash, checkpoint.origin)


async def test_tiles_and_bundles_make_the_published_root(console, world) -> None:
    await world.delivered(300)
    sth = await console.get(f"{PATH}/sth")
    hashes, leaves = b"", []
    for path, count in (("000", 256), ("001.p/44", 44)):
        status, tile, response = await console.ask(f"/tile/0/{path}")
        assert (status, len(tile), response.content_type) == (200, count * 32, "application/octet-stream")
        assert response.headers["Cache-Control"] == TILE_CACHE
        hashes += tile
        status, bundle, response = await console.ask(f"/tile/entries/{path}")
        assert (status, response.headers["Cache-Control"]) == (200, BUNDLE_CACHE)
        while bundle:
            length = int.from_bytes(bundle[:2], "big")
            leaves.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
    assert [leaf_hash(leaf) for leaf in leaves] == [hashes[i : i + 32] for i in range(0, len(hashes), 32)]
    assert root_from_leaves([leaf_hash(leaf) for leaf in leaves]).hex() == sth["root_hash"]
    status, tile, _ = await console.ask("/tile/1/000.p/1")
    assert (status, tile) == (200, root_from_leaves([leaf_hash(leaf) for leaf in leaves[:256]]))
    assert (await console.ask("/tile/0/001.p/43"))[0] == 200  # the tile of a smaller, older tree


async def test_what_no_published_head_covers_is_not_served(console, world) -> None:
    await world.delivered(300)
    await world.put(50)
    await world.attempt()
    await world.sequence()  # integrated, so the tiles are there, but nobody has signed over them
    for path in (
        "0/001.p/45",
        "0/001",
        "0/002.p/1",
        "1/000.p/2",
        "2/000.p/1",
        "entries/001.p/45",
        "entries/x001/000",
        "63/x999/x999/999",
    ):
        assert (await console.problem(f"/tile/{path}"))[:2] == (404, "unknown_tile"), path


async def test_a_path_has_one_spelling(console, world) -> None:
    await world.delivered(1)
    for path in (
        "0/0", "0/0000", "00/000", "0/000.p/0", "0/000.p/256", "0/x000/001", "64/000", "0/..%2f", "a/b", "entries/1",
    ):  # fmt: skip
        assert (await console.problem(f"/tile/{path}"))[:2] == (404, "unknown_tile"), path


async def test_any_two_published_sizes_are_consistent(console, world) -> None:
    await world.delivered(5)
    old = await world.publish()
    await world.delivered(9)
    new = await console.get(f"{PATH}/sth")
    found = await console.get(f"{PATH}/consistency-proof?old_size={old.tree_size}&new_size={new['tree_size']}")
    proof = ConsistencyProof.parse(json.dumps(found).encode())
    assert (proof.old_size, proof.new_size) == (5, 14)
    verify_consistency(5, 14, proof.proof, old.root, bytes.fromhex(new["root_hash"]))
    assert await console.get(f"{PATH}/consistency-proof?old_size=5") == found
    assert (await console.get(f"{PATH}/consistency-proof?old_size=14"))["proof"] == []
    assert (await console.get(f"{PATH}/consistency-proof?old_size=0"))["proof"] == []
    assert (await console.get(f"{PATH}/consistency-proof?old_size=0&new_size=0"))["proof"] == []
    assert await console.get(f"{PATH}/consistency-proof?old_size=5&new_size=14&origin={found['origin']}") == found


async def test_sizes_that_make_no_sense_are_refused(console, world) -> None:
    await world.delivered(3)
    for query, status, code in (
        ("", 400, "parameter_invalid"),
        ("old_size=-1", 400, "parameter_invalid"),
        ("old_size=2&new_size=1", 400, "parameter_invalid"),
        ("old_size=99999999999999999999", 400, "parameter_invalid"),
        ("old_size=1&new_size=4", 404, "not_published"),
        ("old_size=1&size=4", 400, "parameter_unknown"),
        ("old_size=one", 400, "parameter_invalid"),
        ("old_size=1.0", 400, "parameter_invalid"),
        ("old_size=01", 400, "parameter_invalid"),
        ("old_size=%C2%B2", 400, "parameter_invalid"),
        ("old_size=", 400, "parameter_invalid"),
        ("old_size=1&old_size=2", 400, "parameter_invalid"),
        ("old_size=1&new_size=2&origin=nobody.example/log", 404, "unknown_log"),
    ):
        assert (await console.problem(f"{PATH}/consistency-proof?{query}"))[:2] == (status, code)


async def test_keys_are_those_declared_and_those_that_have_signed(console, world) -> None:
    assert (await console.problem(f"{PATH}/keys"))[:2] == (503, "not_ready")
    await world.delivered(1)
    await console.source._refresh()
    (key,) = parse_key_set((await console.raw("/.well-known/kapsel/keys.json"))[0])
    assert (key.name, key.public_key) == (world.desired.log.origin, world.desired.keys[0].public)
    assert key.not_before_ms is not None
    origin, public_key = key.name, key.public_key
    await world.apply(keys=(), log=None)
    await console.source._refresh()
    (key,) = parse_key_set((await console.raw("/.well-known/kapsel/keys.json"))[0])
    assert (key.name, key.public_key) == (origin, public_key)
    jwks = json.loads((await console.raw("/.well-known/kapsel/jwks.json"))[0])
    assert [(one["kty"], one["crv"], one["kid"]) for one in jwks["keys"]] == [
        ("OKP", "Ed25519", VerifierKey(origin, public_key).key_id.hex())
    ]


async def test_the_log_says_how_far_it_is_and_why_it_stands_still(console, world) -> None:
    await world.delivered(2)
    await world.put(1)
    await world.attempt()
    found = await console.get(f"{PATH}/log")
    (log,) = found["items"]
    assert (log["tree_size"], log["head"]["tree_size"], found["waiting_attempts"]) == (2, 2, 1)
    assert (log["state"], log["frozen_reason"], log["continued_by"], log["witnessing"]) == ("Active", None, None, None)
    states = await tlog.states(world.connection)
    await tlog.freeze(world.connection, states[0].id, "two writers")
    (log,) = (await console.get(f"{PATH}/log"))["items"]
    assert (log["state"], log["frozen_reason"]) == ("Frozen", "two writers")


async def test_an_attempt_that_gets_its_leaf_while_the_log_is_told_is_either_in_it_or_waits(
    console, world, database
) -> None:
    await world.delivered(2)
    await world.put(1)
    await world.attempt()
    holder = await database.connection()
    async with asyncio.TaskGroup() as group, holder.transaction():
        await holder.execute("LOCK TABLE heads IN ACCESS EXCLUSIVE MODE")
        asked = group.create_task(console.get(f"{PATH}/log"))
        while not await holder.fetchval(
            "SELECT count(*) FROM pg_locks WHERE relation = 'heads'::regclass AND NOT granted"
        ):
            await asyncio.sleep(0.01)
        await world.sequence()
    await holder.close()
    found = asked.result()
    assert (found["items"][0]["tree_size"], found["waiting_attempts"]) in ((2, 1), (3, 0))


async def test_a_log_that_another_one_continues_is_closed_and_so_is_its_key(console, world) -> None:
    await world.delivered()
    await continuation.begin(world.connection, "kapsel.example/next", world.clock + 5)
    await console.source._refresh()
    old, new = (await console.get(f"{PATH}/log"))["items"]
    assert (old["state"], old["continued_by"]) == ("Closed", "kapsel.example/next")
    assert old["frozen_reason"] == "the log kapsel.example/next continues it"
    assert (new["state"], new["continued_by"]) == ("Active", None)
    (key,) = parse_key_set((await console.raw("/.well-known/kapsel/keys.json"))[0])
    assert (key.name, key.not_after_ms) == (old["origin"], world.clock + 5)


async def test_of_each_witness_it_is_said_when_it_cosigned_the_newest_head(console, world, kapsel) -> None:
    seeds = {name: SigningKey(name.encode() * 32) for name in "ab"}
    keys = {name: WitnessKey(f"{name}.example/w", bytes(seed.verify_key)) for name, seed in seeds.items()}
    witnesses = tuple(Witness(name=name, vkey=key.encode(), url="http://w.example") for name, key in keys.items())
    await world.apply(log=replace(world.desired.log, witnessing=Witnessing(witnesses=witnesses, quorum=2)))
    await console.source._refresh()
    await world.delivered()
    head = await world.publish()
    text = Note.parse(head.checkpoint).text
    line = cosign(text, 1_700_000_000, keys["a"], lambda message: seeds["a"].sign(message).signature)
    await tlog.publish(
        world.connection, replace(head, timestamp_ms=head.timestamp_ms + 1, checkpoint=head.checkpoint + line)
    )
    (log,) = (await console.get(f"{PATH}/log"))["items"]
    assert log["witnessing"] == {
        "quorum": 2,
        "required": False,
        "witnesses": [{"name": "a", "cosigned_at": "2023-11-14T22:13:20.000Z"}, {"name": "b", "cosigned_at": None}],
    }
    ran = await kapsel("get", "log", "--server", console.url)
    titles, row = ran.out.splitlines()
    assert row[titles.index("WITNESSES") :].split()[0] == "1/2"


async def test_a_damaged_tile_gives_no_proof(console, world) -> None:
    (attempt, *_) = await world.delivered(4)
    await world.connection.execute("ALTER TABLE tiles DISABLE TRIGGER tiles_grow")
    await world.connection.execute("UPDATE tiles SET hashes = set_byte(hashes, 39, 255 - get_byte(hashes, 39))")
    status, code, _ = await console.problem(f"{PATH}/proof/{attempt.id}")
    assert (status, code) == (500, "log_damaged")
