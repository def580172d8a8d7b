"""`kapsel log`: examined, rebuilt and continued by hand, as the runbook has it."""

import asyncio
import base64
import os
import sys

import pytest

from kapsel_attestor.sequencer import Sequencer
from kapsel_store import tlog
from kapsel_tlog import continuation


async def kapsel(world, *arguments: str) -> tuple[int, str, str]:
    """Run the command as a person in a pod does, and return exit code, output and complaints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KAPSEL_")}
    environment |= {
        "KAPSEL_DATABASE_URL": world.database.url,
        "KAPSEL_DATABASE_SCHEMA": world.database.schema,
        "KAPSEL_ATTESTOR_FENCE_FILE": "/nowhere",
    }
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kapsel_cli", "log", *arguments),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(child.communicate(), 120)
    return child.returncode or 0, out.decode(), err.decode()


async def published(world, leaves: int) -> list:
    running = await world.start()
    size = (await world.log()).tree_size if await world.head() else 0
    recorded = await world.record(leaves)
    await world.head_over(size + leaves)
    await running.stop()
    return recorded


async def tamper(world, sql: str) -> None:
    async with world.tampering():
        await world.connection.execute(sql)


async def test_log_that_fits_is_examined_and_found_to_fit(world) -> None:
    await published(world, 300)
    await tamper(world, "UPDATE leaves SET leaf = NULL WHERE leaf_index IN (5, 6, 299)")
    code, out, err = await kapsel(world, "check")
    assert (code, err) == (0, "")
    assert f"{world.row.origin}: 300 leaves (3 erased, 0 statements)" in out
    assert "2 endpoints: everything fits; not frozen" in out


async def test_frozen_log_fits_and_does_not_hold_until_another_one_continues_it(world) -> None:
    await published(world, 3)
    await tlog.freeze(world.connection, (await world.log()).id, "two writers")
    code, out, err = await kapsel(world, "check")
    assert (code, err) == (1, "")
    assert "everything fits; frozen: two writers" in out
    await continuation.begin(world.connection, "log.example.com/second", 1)
    code, out, err = await kapsel(world, "check")
    assert (code, err) == (0, "")
    assert "everything fits; closed: two writers" in out
    assert (
        "log.example.com/second: 1 leaves (0 erased, 1 statements), 0 heads, 0 endpoints: everything fits; not" in out
    )


async def test_log_is_examined_while_it_is_led(world) -> None:
    await world.start()
    await world.record(40)
    await world.head_over(40)
    code, out, _ = await kapsel(world, "check", "--log", world.row.origin)
    assert (code, "everything fits" in out) == (0, True)


DAMAGE = {
    "a leaf edited": (
        "UPDATE leaves SET leaf = leaf || convert_to(' ', 'UTF8') WHERE leaf_index = 7",
        "leaf 7 is not what its hash in the tree says",
    ),
    "a leaf deleted": ("DELETE FROM leaves WHERE leaf_index = 8", "leaf 8 is missing"),
    "a tile with a flipped bit": (
        "UPDATE tiles SET hashes = set_bit(hashes, 9, 1 - get_bit(hashes, 9)) WHERE level = 0 AND index = 0",
        "tile tile/1/000.p/1 does not follow from what is below it",
    ),
    "a tile cut": (
        "UPDATE tiles SET hashes = substr(hashes, 1, 64) WHERE level = 0 AND index = 1",
        "tile tile/0/001.p/44 has 2 hashes of 44",
    ),
    "a tile missing": ("DELETE FROM tiles WHERE level = 1", "does not follow from what is below it"),
    "a head edited": ("UPDATE heads SET root = sha256('x') WHERE tree_size = 300", "the head of 300 leaves"),
    "a chain edited": ("UPDATE chains SET sequence = sequence + 1", "does not end with its last leaf"),
    "a leaf of another attempt": (
        "UPDATE leaves SET attempt_id = gen_random_uuid() WHERE leaf_index = 9",
        "leaf 9 is stored for attempt",
    ),
    "a leaf too many": (
        "INSERT INTO leaves (log_id, leaf_index, leaf) SELECT log_id, 300, leaf FROM leaves WHERE leaf_index = 0",
        "there is a leaf 300 that is in no tree",
    ),
    "the root edited": ("UPDATE logs SET root = sha256('x')", "the tiles do not fold to the root"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_damage_is_found_and_named(world, damage: str) -> None:
    await published(world, 300)
    sql, says = DAMAGE[damage]
    await tamper(world, sql)
    code, out, _ = await kapsel(world, "check")
    assert code == 1
    assert says in out


async def test_frozen_log_with_damaged_tiles_is_rebuilt_and_signed_again(world, eventually) -> None:
    recorded = await published(world, 600)
    await tamper(world, "UPDATE leaves SET leaf = NULL WHERE leaf_index = 599")
    await world.flip(0, 0, 4711)
    await tamper(world, "DELETE FROM tiles WHERE level = 1")
    running = await world.start()
    await world.frozen()
    await running.stop()
    code, out, err = await kapsel(world, "rebuild", "--unfreeze")
    assert (code, err) == (0, "")
    assert "600 leaves, 2 tiles were wrong and are right now" in out
    assert "is not frozen any more" in out
    await world.start()
    more = await world.record(3)
    await world.head_over(603)
    for attempt in (*recorded[:3], *more):
        await world.prove(attempt)


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE leaves SET leaf = leaf || convert_to(' ', 'UTF8') WHERE leaf_index = 7",
        "DELETE FROM leaves WHERE leaf_index = 8",
        "UPDATE heads SET root = sha256('x') WHERE tree_size = 300",
    ],
)
async def test_leaves_that_were_not_signed_are_not_made_into_tiles(world, sql: str) -> None:
    await published(world, 300)
    before = await world.connection.fetch("SELECT * FROM tiles ORDER BY level, index")
    await tamper(world, sql)
    code, _, err = await kapsel(world, "rebuild")
    assert code == 1
    assert "nothing was changed" in err
    assert await world.connection.fetch("SELECT * FROM tiles ORDER BY level, index") == before


async def test_log_that_an_attestor_leads_is_not_rebuilt(world) -> None:
    await world.start()
    await world.head_over(0)
    code, _, err = await kapsel(world, "rebuild")
    assert code == 1
    assert "an attestor leads" in err


async def test_log_is_continued_by_hand_with_a_reason_and_the_attestor_goes_on_with_it(world, tmp_path) -> None:
    await published(world, 5)
    await tlog.freeze(world.connection, (await world.log()).id, "a person said so")
    sequencer = await Sequencer.open(world.connection, await world.log())
    uncovered = await world.record(2)
    await sequencer.integrate(world.connection, 10)
    old = world.row.origin
    code, out, err = await kapsel(world, "recover", "log.example.com/second", "--reason", "as rehearsed", "--yes")
    assert (code, err) == (0, "")
    assert "log.example.com/second is begun: its first leaf states where the old one ended" in out
    assert "name it in an AttestationLog (docs/fork-recovery.md, step 2)" in out
    world.fence_file = tmp_path / "second.json"
    await world.configure(origin="log.example.com/second")
    await world.start()
    await world.head_over(3)
    await world.audit(uncovered)
    code, out, _ = await kapsel(world, "check")
    assert code == 0
    assert f"{old}: 7 leaves (0 erased, 0 statements)" in out
    assert "log.example.com/second: 3 leaves (0 erased, 1 statements)" in out


async def test_log_is_not_closed_without_a_yes_nor_twice_nor_over_a_wrong_checkpoint(world, tmp_path) -> None:
    await published(world, 5)
    wrong = tmp_path / "wrong.txt"
    wrong.write_text("no checkpoint")
    for arguments, says in (
        (("log.example.com/second",), "nobody can be asked"),
        ((world.row.origin, "--yes"), "already"),
        (("log.example.com/second", "--yes", "--checkpoint", str(wrong)), "is none of the log"),
        (("log.example.com/second", "--yes", "--checkpoint", str(tmp_path / "absent")), "cannot be read"),
    ):
        code, _, err = await kapsel(world, "recover", *arguments)
        assert (code, says in err) == (1, True), err
    assert (await world.log()).frozen_reason is None


@pytest.mark.parametrize("signed", [False, True], ids=["nothing signed", "signed"])
async def test_log_is_not_closed_for_one_that_no_attestation_log_can_name(world, signed: bool) -> None:
    await (published(world, 1) if signed else tlog.open_log(world.connection, world.row.origin))
    for origin in ("a b+c\n\nd", "log.example.com/second\n", "log.example.com/" + "x" * 185, ""):
        code, _, err = await kapsel(world, "recover", origin, "--yes")
        assert (code, "cannot be the origin of a log: 1 to 200 characters, printable ASCII" in err) == (1, True), err
    [log] = await tlog.states(world.connection)
    assert (log.origin, log.frozen_reason) == (world.row.origin, None)


async def test_log_is_not_closed_over_a_checkpoint_that_no_leaf_can_hold(world, tmp_path) -> None:
    await published(world, 1)
    large = tmp_path / "large.txt"
    stranger = f"— {'w' * 1000} {base64.b64encode(bytes(68)).decode()}\n"
    large.write_text((await world.head()).checkpoint + stranger * 60, encoding="utf-8")
    code, _, err = await kapsel(world, "recover", "log.example.com/second", "--yes", "--checkpoint", str(large))
    assert code == 1
    assert "nothing was changed: the leaf is larger than 65535 bytes" in err
    [log] = await tlog.states(world.connection)
    assert log.frozen_reason is None


async def test_unknown_log_is_refused_with_those_that_there_are(world) -> None:
    await published(world, 1)
    code, _, err = await kapsel(world, "check", "--log", "log.example.com/none")
    assert code == 1
    assert world.row.origin in err
