"""What a head waits for keeps no leaf waiting, is counted, and is over when it is over."""

import threading

from kapsel_attestor.errors import FenceAwayError
from kapsel_attestor.fence import FileFence
from kapsel_store import tlog


class SlowFence(FileFence):
    """A fence as an API server that hangs: a swap is answered when `open` is set, or not at all."""

    opened = threading.Event()
    swaps = 0

    def swap(self, old, new) -> None:
        type(self).swaps += 1
        if not self.opened.wait(240):
            raise FenceAwayError("the fence does not answer")
        super().swap(old, new)


async def integrated(world, leaves: int) -> bool:
    log = await tlog.state(world.connection, world.row.origin)
    return log is not None and log.tree_size == leaves


async def test_fence_that_hangs_delays_no_leaf(world, eventually) -> None:
    SlowFence.opened.clear()
    world.fences = SlowFence
    running = await world.start()
    await world.record(30)

    await eventually(lambda: SlowFence.swaps)
    await eventually(integrated, world, 30)
    assert await world.head() is None
    await eventually(lambda: running.value("attestation_batches_total", result="integrated"))
    SlowFence.opened.set()
    await world.head_over(30)


async def test_log_without_a_key_takes_leaves_and_counts_what_heads_wait_for(world, eventually) -> None:
    keys, world.keys = world.keys, []
    await world.configure()
    running = await world.start()
    recorded = await world.record(30)
    await eventually(integrated, world, 30)
    await eventually(lambda: running.value("attestation_late_heads_total", waits_for="key"))
    assert "needs" in running.attestor.problem()
    world.keys = keys
    await world.configure()
    await world.head_over(30)
    await world.audit(recorded)
    await running.well()


async def test_merge_delay_is_the_age_of_the_oldest_attempt_that_no_head_covers(world, eventually) -> None:
    keys, world.keys = world.keys, []
    await world.configure()
    async with world.led_elsewhere():
        running = await world.start()
        await world.record(3)
        async with world.measured(running):
            await eventually(lambda: running.value("attestation_leaf_lag_seconds") > 0)
    async with world.measured(running):
        await eventually(
            lambda: (
                running.value("attestation_merge_delay_seconds") > 1
                and running.value("attestation_leaf_lag_seconds") == 0
            )
        )
        world.keys = keys
        await world.configure()
        await world.head_over(3)
        await eventually(lambda: running.value("attestation_merge_delay_seconds") == 0)


class Faulty:
    """A task beside the log that fails whenever it is run."""

    name = "faulty"
    runs = 0

    async def run(self, led) -> None:
        self.runs += 1
        raise RuntimeError("as it is made to")


async def test_task_beside_the_log_that_fails_is_started_anew_and_touches_nothing(world, eventually) -> None:
    task = Faulty()
    running = await world.start(beside=lambda _: [task])
    recorded = await world.record(10)
    await world.head_over(10)
    await eventually(lambda: task.runs >= 2)
    assert running.value("attestation_side_failures_total", task="faulty") >= 1
    await running.well()
    await world.audit(recorded)
