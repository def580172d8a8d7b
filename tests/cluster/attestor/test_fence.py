"""The fence in the status of an AttestationLog, on a real API server: swapped by one, disturbed by nobody."""

import asyncio
import json
from dataclasses import replace

import pytest

from kapsel_attestor import publisher
from kapsel_attestor.api_server import Answer, ApiServer, Document
from kapsel_attestor.errors import FenceAwayError, FenceMovedError, RefusedError
from kapsel_attestor.fence import Fenced
from kapsel_attestor.kubernetes_fence import KubernetesFence
from kapsel_attestor.sequencer import Sequencer
from kapsel_store import tlog


def fenced(world, size: int, timestamp_ms: int = 1) -> Fenced:
    return Fenced(
        origin=world.row.origin, tree_size=size, root=size.to_bytes(32), timestamp_ms=timestamp_ms + 1_000_000
    )


async def test_a_fence_is_read_as_it_was_swapped(world) -> None:
    guard = world.guard()
    assert await asyncio.to_thread(guard.read) is None
    await asyncio.to_thread(guard.swap, None, fenced(world, 1))
    await asyncio.to_thread(guard.swap, fenced(world, 1), fenced(world, 2))
    assert await asyncio.to_thread(world.guard().read) == fenced(world, 2)


async def test_of_several_swaps_at_once_one_passes(world) -> None:
    old = None
    for size in range(1, 11):
        swaps = [
            asyncio.to_thread(world.guard().swap, old, fenced(world, size, timestamp_ms)) for timestamp_ms in range(3)
        ]
        results = await asyncio.gather(*swaps, return_exceptions=True)
        assert [type(result) for result in results if result is not None] == [FenceMovedError] * 2, results
        old = await asyncio.to_thread(world.guard().read)
        assert old == fenced(world, size, [result is None for result in results].index(True))


async def test_two_attestors_that_both_believe_to_lead_sign_one_head(world) -> None:
    log = await tlog.open_log(world.connection, world.row.origin)
    sequencer = await Sequencer.open(world.connection, log)
    for _ in range(5):
        await world.record(3)
        await sequencer.integrate(world.connection, 100)
        pool = await world.database.pool("attestor")
        async with pool.acquire() as one, pool.acquire() as other:
            heads = [
                publisher.publish(connection, sequencer.log, world.guard(), [world.signer()], lambda: 1_800_000_000_000)
                for connection in (one, other)
            ]
            results = await asyncio.gather(*heads, return_exceptions=True)
        passed = [result for result in results if not isinstance(result, BaseException)]
        assert len(passed) >= 1
        assert {type(result) for result in results} - {tlog.HeadRow} <= {FenceMovedError}, results
        stored = await tlog.heads(world.connection, log.id, 100)
        assert len({(head.tree_size, head.root) for head in stored}) == len({head.tree_size for head in stored})
        newest = await asyncio.to_thread(world.guard().read)
        assert newest is not None
        assert (newest.tree_size, newest.root) == (sequencer.log.tree_size, sequencer.log.root)


async def test_what_the_operator_writes_meanwhile_disturbs_no_swap(world) -> None:
    stop = asyncio.Event()
    written = 0

    def write(number: int) -> None:
        status = {"origin": world.row.origin, "observedGeneration": number}
        world.cluster.kubectl(
            *("patch", "attestationlog", "log", "-n", world.namespace, "--subresource=status", "--type=merge"),
            *("-p", json.dumps({"status": status})),
        )

    async def keep_writing() -> None:
        nonlocal written
        while not stop.is_set():
            await asyncio.gather(*(asyncio.to_thread(write, written + one) for one in range(4)))
            written += 4

    writing = asyncio.create_task(keep_writing())
    old, size = None, 0
    while size < 30 or written <= 4:
        assert not writing.done()
        size += 1
        await asyncio.to_thread(world.guard().swap, old, fenced(world, size))
        old = fenced(world, size)
    stop.set()
    await writing
    status = await world.status()
    assert status["fence"]["treeSize"] == size
    assert status["origin"] == world.row.origin


class LosesAnswers(ApiServer):
    """The line breaks after a patch was carried out."""

    lost = 0

    def request(
        self, method: str, path: str, body: Document | None = None, *, form: str = "application/json"
    ) -> Answer:
        answer = super().request(method, path, body, form=form)
        if method == "PATCH" and not self.lost:
            self.lost += 1
            raise FenceAwayError("the answer was lost")
        return answer


async def test_a_swap_whose_answer_was_lost_is_no_swap_of_another(world) -> None:
    api = LosesAnswers(world.line.url, world.account)
    guard = KubernetesFence(api, world.namespace, "log", world.row.origin)
    await asyncio.to_thread(guard.swap, None, fenced(world, 1))
    assert api.lost == 1
    assert await asyncio.to_thread(guard.read) == fenced(world, 1)


async def test_a_fence_never_shrinks_within_an_origin_whoever_writes_it(world) -> None:
    await asyncio.to_thread(world.guard().swap, None, fenced(world, 5))
    with pytest.raises(RefusedError, match="within an origin the tree only grows"):
        await asyncio.to_thread(world.guard().swap, fenced(world, 5), fenced(world, 4))
    assert await asyncio.to_thread(world.guard().read) == fenced(world, 5)


async def test_the_fence_of_another_origin_is_refused(world) -> None:
    await asyncio.to_thread(world.guard().swap, None, fenced(world, 5))
    other = KubernetesFence(world.api, world.namespace, "log", "log.example.com/other")
    with pytest.raises(RefusedError, match=r"belongs to the log .* not to log\.example\.com/other"):
        await asyncio.to_thread(other.read)


async def test_a_missing_object_and_missing_rights_are_named_with_what_to_do(world) -> None:
    world.cluster.kubectl("delete", "attestationlog", "log", "-n", world.namespace)
    with pytest.raises(RefusedError, match=rf"no AttestationLog {world.namespace}/log .*: apply it"):
        await asyncio.to_thread(world.guard().read)
    elsewhere = KubernetesFence(world.api, world.namespace, "other", world.row.origin)
    with pytest.raises(RefusedError, match='cannot get resource "attestationlogs/status"'):
        await asyncio.to_thread(elsewhere.read)


async def test_the_remedy_for_a_lost_fence_is_a_command_that_works(world, kit) -> None:
    await world.published(3)
    newest = await asyncio.to_thread(world.guard().read)
    assert newest is not None
    world.cluster.kubectl("delete", "attestationlog", "log", "-n", world.namespace)
    world.cluster.apply(world.declared())
    running = await world.start()

    async def said() -> str | None:
        problem = running.attestor.problem()
        return problem if problem and "is missing" in problem else None

    remedy = (await kit.eventually(said)).partition("run: kubectl ")[2]
    command, _, patch = remedy.partition(" -p ")
    world.cluster.kubectl(*command.split(), "-p", patch.strip("'"))
    await world.record(2)
    assert (await world.head_over(5)).tree_size == 5
    assert replace(newest, timestamp_ms=0).tree_size == 3
