"""Whole attestors whose fence is on a real API server: what they tell there, and what they never sign."""

import asyncio
import json
from dataclasses import replace
from itertools import pairwise

from kapsel_attestor.sequencer import Sequencer
from kapsel_store import tlog
from kapsel_tlog import prover
from kapsel_verifier.merkle import verify_consistency
from kapsel_verifier.note import VerifierKey


async def test_a_head_is_fenced_and_told(world, kit) -> None:
    running = await world.start()
    await world.record(4)
    head = await world.head_over(4)
    await world.condition("CheckpointFresh", "True")
    consistent = await world.condition("LogConsistent", "True")
    await running.stop()
    status = await world.status()
    newest = await world.head()
    assert consistent["observedGeneration"] == 1
    assert (status["head"]["treeSize"], status["head"]["checkpoint"]) == (newest.tree_size, newest.checkpoint)
    assert status["head"]["rootHash"] == head.root.hex()
    (key,) = status["keys"]
    assert key["publicKey"] == VerifierKey(world.row.origin, newest.public_key).encode()
    assert "notAfter" not in key
    assert status["fence"] == {
        "origin": world.row.origin,
        "treeSize": newest.tree_size,
        "rootHash": newest.root.hex(),
        "timestampMs": newest.timestamp_ms,
    }
    assert running.value("attestation_fence_up") == 1


async def test_what_the_operator_tells_and_what_the_attestor_tells_stay_beside_each_other(world, kit) -> None:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Ready",
        "message": "",
        "lastTransitionTime": "2026-03-01T12:00:00Z",
    }
    told = {
        "apiVersion": "kapsel.dev/v1alpha1",
        "kind": "AttestationLog",
        "metadata": {"name": "log", "namespace": world.namespace},
        "status": {"origin": world.row.origin, "conditions": [ready]},
    }

    def tell() -> None:
        world.cluster.kubectl(
            *("apply", "--server-side", "--subresource=status", "--field-manager=kapsel-operator", "-f", "-"),
            input=json.dumps(told),
        )

    await world.start()
    await asyncio.to_thread(tell)
    await world.record(3)
    await world.head_over(3)
    await world.condition("LogConsistent", "True")
    await asyncio.to_thread(tell)
    await world.record(3)
    await world.head_over(6)
    told = {"Ready", "LogConsistent", "CheckpointFresh", "LeavesComplete", "KeysAnnounced"}

    async def all_told() -> bool:
        return {one["type"] for one in (await world.status())["conditions"]} == told

    await kit.eventually(all_told)
    status = await world.status()
    assert status["origin"] == world.row.origin
    assert status["fence"]["treeSize"] == 6


async def test_a_restored_older_database_is_frozen_said_and_never_signed(world, kit) -> None:
    events_rule = {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]}
    world.cluster.apply(*world.account_with(events_rule))
    await world.published(5)
    await world.back_up()
    await world.published(5)
    await world.restore()
    await world.record(3)
    before = (await world.status())["fence"], await world.log(), await world.head()

    running = await world.start()

    frozen = await world.condition("LogConsistent", "False")
    assert frozen["reason"] == "Frozen"
    assert "this database is older than what was signed" in frozen["message"]
    assert (await world.condition("CheckpointFresh", "False"))["reason"] == "NotSigned"
    assert running.value("attestation_frozen") == 1
    after = (await world.status())["fence"], await world.log(), await world.head()
    assert (after[0], after[1].tree_size, after[2]) == (before[0], 5, before[2])

    def events() -> list[str]:
        found = world.cluster.get("events", "-n", world.namespace)
        return [one["reason"] for one in found["items"] if one["involvedObject"]["kind"] == "AttestationLog"]

    assert await kit.eventually(lambda: asyncio.to_thread(events)) == ["Frozen"]


async def test_a_restored_database_that_grew_past_the_fence_is_frozen_too(world) -> None:
    await world.published(5)
    await world.back_up()
    await world.published(5)
    await world.restore()
    await world.record(20)
    sequencer = await Sequencer.open(world.connection, await world.log())
    await sequencer.integrate(world.connection, 100)
    before = await world.head()
    await world.start()
    assert (await world.condition("LogConsistent", "False"))["reason"] == "Frozen"
    assert await world.head() == before


async def test_while_the_api_server_is_away_leaves_go_on_and_heads_wait(world, kit) -> None:
    running = await world.start()
    await world.record(2)
    await world.head_over(2)
    await world.line.cut()
    await world.record(5)

    async def integrated() -> bool:
        return (await world.log()).tree_size == 7

    await kit.eventually(integrated)
    await kit.eventually(lambda: running.value("attestation_fence_up") == 0)
    await world.record(5)

    async def integrated_more() -> bool:
        return (await world.log()).tree_size == 12

    await kit.eventually(integrated_more)
    assert (await world.head()).tree_size == 2
    await running.well()

    world.line.mend()

    await world.head_over(12)
    await kit.eventually(lambda: running.value("attestation_fence_up") == 1)
    assert (await world.status())["fence"]["treeSize"] == 12


async def test_an_attestor_that_starts_without_the_api_server_waits_with_the_leaves_too(world, kit) -> None:
    await world.line.cut()
    running = await world.start()
    await world.record(3)
    await kit.eventually(lambda: running.value("attestation_fence_up") == 0)
    tries = world.line.connections
    await kit.eventually(lambda: world.line.connections > tries)
    assert await tlog.state(world.connection, world.row.origin) is None
    world.line.mend()
    await world.head_over(3)


async def test_one_that_ends_while_the_api_server_is_away_ends_in_time_and_the_next_publishes(world) -> None:
    running = await world.start()
    await world.record(1)
    await world.head_over(1)
    await world.line.cut()
    await world.record(4)
    await running.stop()  # which has a deadline of its own
    assert (await world.log()).tree_size == 5
    world.line.mend()
    await world.start()
    await world.head_over(5)


async def test_two_attestors_take_turns_and_continue_each_other(world) -> None:
    first = await world.start()
    second = await world.start()
    await world.record(3)
    await world.head_over(3)
    await first.stop()
    await world.record(3)
    await world.head_over(6)
    await second.stop()
    assert (await world.status())["fence"]["treeSize"] == 6


async def test_rights_that_are_missing_are_said_and_enough_once_they_are_there(world, kit) -> None:
    world.cluster.kubectl("delete", "rolebinding", "attestor", "-n", world.namespace)
    running = await world.start()
    problem = await kit.eventually(running.attestor.problem)
    assert "the Kubernetes API refuses GET" in problem
    assert f"system:serviceaccount:{world.namespace}:attestor" in problem
    world.cluster.apply(*world.account_with())
    await world.record(1)
    await world.head_over(1)


async def test_the_fence_of_another_log_than_the_configured_one_is_refused(world, kit) -> None:
    await world.configure(replace(world.row, name="other"))
    running = await world.start()
    problem = await kit.eventually(running.attestor.problem)
    assert f"KAPSEL_ATTESTOR_FENCE_LOG names {world.namespace}/log" in problem
    assert f"set it to {world.namespace}/other" in problem


async def test_at_rest_nothing_is_written(world, kit) -> None:
    await world.configure(replace(world.row, publish_interval=world.row.idle_interval))
    running = await world.start()
    await world.record(1)
    await world.head_over(1)
    await world.condition("CheckpointFresh", "True")

    async def told() -> bool:
        status = await world.status()
        kinds = {one["type"] for one in status.get("conditions", [])}
        return "head" in status and kinds >= {"LogConsistent", "CheckpointFresh", "LeavesComplete", "KeysAnnounced"}

    await kit.eventually(told)
    await running.stop()
    before = world.cluster.get("attestationlog", "log", "-n", world.namespace)
    again = await world.start()
    await kit.eventually(lambda: again.value("attestation_fence_up") == 1)
    connections = world.line.connections
    await kit.eventually(lambda: world.line.connections >= connections)
    await again.stop()
    after = world.cluster.get("attestationlog", "log", "-n", world.namespace)
    assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_processes_killed_while_they_sign_leave_one_history(world, kit) -> None:
    size = 0
    for _ in range(3):
        child = await world.start_process()
        try:
            for _ in range(3):
                await world.record(7)
                size += 7
                await world.head_over(size - 7)
        finally:
            child.kill()
            await child.wait()
    await world.start()
    await world.head_over(size)
    log = await world.log()
    heads = (await tlog.heads(world.connection, log.id, 1000))[::-1]
    for old, new in pairwise(heads):
        path = await prover.consistency(world.connection, log.id, old.tree_size, new.tree_size)
        verify_consistency(old.tree_size, new.tree_size, path, old.root, new.root)
        assert old.timestamp_ms < new.timestamp_ms
    assert (await world.status())["fence"]["treeSize"] == heads[-1].tree_size == log.tree_size == size


async def test_a_renewed_token_is_used_at_once(world) -> None:
    await world.start()
    await world.record(1)
    await world.head_over(1)
    token = world.account / "token"
    fresh = world.cluster.kubectl("create", "token", "attestor", "-n", world.namespace)
    token.write_text("expired")
    await world.record(1)
    token.write_text(fresh)
    await world.head_over(2)
