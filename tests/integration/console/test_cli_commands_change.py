"""Commands that change something, take a proof along or send a webhook, and how a command finds the console."""

import asyncio
import hashlib
import hmac
import json
import os
import pty
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from aiohttp import web

from kapsel_store import circuits, deliveries, tlog
from kapsel_store.states import State
from kapsel_verifier import proof as proof_file
from kapsel_verifier.keys import parse_key_set
from kapsel_verifier.verify import verify_proof

from .conftest import DEADLINE, LEASE, ORIGIN


def running(directory: Path, console: str, ingest: str = "http://127.0.0.1:9") -> None:
    """Leave word of a running instance, as `kapsel up` does."""
    data = directory / ".kapsel"
    data.mkdir()
    content = {"pid": 1, "ingest": ingest, "console": console, "metrics": {}}
    (data / "up.json").write_text(json.dumps(content))


async def test_the_console_is_found_from_the_folder_or_one_above_it(console, world, kapsel) -> None:
    running(kapsel.directory, console.url)
    below = kapsel.directory / "a" / "b"
    below.mkdir(parents=True)
    kapsel.directory = below
    ran = await kapsel("get", "endpoints")
    assert ran.code == 0, ran.err
    assert "shop/orders" in ran.out
    ran = await kapsel("get", "endpoints", "--data-dir", "nowhere")
    assert ran.code == 1
    assert "kapsel up DIR" in ran.err


async def test_no_console_is_one_sentence_and_a_next_step(kapsel, tmp_path) -> None:
    ran = await kapsel("get", "endpoints")
    assert (ran.code, ran.out) == (1, "")
    assert "no kapsel is running here" in ran.err
    assert "kapsel up DIR" in ran.err
    assert len(ran.err.splitlines()) == 1
    running(kapsel.directory, "http://127.0.0.1:1")
    ran = await kapsel("get", "endpoints")
    assert ran.code == 1
    assert "cannot reach http://127.0.0.1:1: Connection refused" in ran.err
    (kapsel.directory / ".kapsel" / "up.json").write_text("{")
    ran = await kapsel("get", "endpoints")
    assert ran.code == 1
    assert "up.json cannot be read" in ran.err


async def test_a_server_that_is_no_console_is_told_from_one(kapsel) -> None:
    async def hello(_: web.BaseRequest) -> web.Response:
        return web.Response(text="hello", status=404)

    runner = web.ServerRunner(web.Server(hello))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    ran = await kapsel("get", "events", "--server", url)
    assert ran.code == 1
    assert "not as a kapsel console does" in ran.err
    await runner.cleanup()


async def test_what_has_ended_is_retried_and_what_waits_cancelled(console, world, kapsel) -> None:
    await world.put(2)
    failed = await world.attempt(State.EXHAUSTED)
    ids = [str(attempt.delivery_id) for attempt in failed]
    ran = await kapsel("retry", *ids, "--server", console.url)
    assert ran.code == 0, ran.err
    assert len(ran.out.splitlines()) == 2
    made = ran.out.split()[1]
    ran = await kapsel("retry", made, "--server", console.url)
    assert ran.code == 1
    assert "still being tried" in ran.err
    ran = await kapsel("cancel", made, "--server", console.url)
    assert ran.out == f"delivery {made} is cancelled\n"
    ran = await kapsel("retry", "0190f5fe-7c00-7a00-8000-000000000001", "--server", console.url)
    assert ran.code == 1
    assert "List them with `kapsel get deliveries`, those of an event with --event ID" in ran.err


async def test_one_delivery_that_is_refused_keeps_none_of_the_others_from_being_retried(console, world, kapsel) -> None:
    await world.put(2)
    one, two = [str(attempt.delivery_id) for attempt in await world.attempt(State.EXHAUSTED)]
    unknown = "0190f5fe-7c00-7a00-8000-000000000001"
    ran = await kapsel("retry", one, unknown, "nonsense", two, "--server", console.url)
    assert ran.code == 1
    assert [line.split()[3] for line in ran.out.splitlines()] == [f"{one},", f"{two},"]
    assert f"there is no delivery {unknown}" in ran.err
    assert "'nonsense' is not an id" in ran.err
    assert "2 of 4 were refused, for the reasons above; the others are done." in ran.err
    made = [line.split()[1] for line in ran.out.splitlines()]
    ran = await kapsel("cancel", one, *made, "--server", console.url)
    assert (ran.code, len(ran.out.splitlines())) == (1, 2)


async def test_a_destination_is_resumed_by_name_or_id(console, world, kapsel) -> None:
    async def stop() -> None:
        await circuits.change(
            world.connection, world.billing.id, lambda row, now: replace(row, disabled_at=now, disabled_reason="gone")
        )

    await world.connection.execute("INSERT INTO circuits (destination_id) VALUES ($1)", world.billing.id)
    for named in ("orders/billing", "shop/orders/billing", str(world.billing.id)):
        await stop()
        shown = await kapsel("get", "endpoints", "-o", "wide", "--server", console.url)
        assert "billing (gone)" in shown.out
        ran = await kapsel("resume", named, "--server", console.url)
        assert ran.out == "shop/orders/billing is tried again\n", ran.err
    ran = await kapsel("resume", "orders/nobody", "--server", console.url)
    assert ran.code == 1
    assert "It has: billing" in ran.err
    ran = await kapsel("resume", "billing", "--server", console.url)
    assert (ran.code, "billing is neither endpoint/destination nor the id of a destination" in ran.err) == (1, True)


async def test_events_are_erased_by_whoever_says_yes(console, world, kapsel) -> None:
    one, two = await world.put(2, body=b"forget me")
    await world.put()
    lease, (sending,) = await deliveries.claim(world.connection, {world.billing.id: 1}, LEASE)
    refused = await kapsel("erase", str(one.id), "--server", console.url)
    assert (refused.code, refused.out) == (1, "")
    assert "Say --yes" in refused.err
    assert (await console.get(f"/api/v1/events/{one.id}"))["body_text"] == "forget me"

    ran = await kapsel("erase", str(two.id), str(one.id), "--yes", "--server", console.url)
    assert ran.code == 3, ran.err
    assert ran.out.splitlines() == [
        f"event {two.id} is erased (0 attempts, 1 delivery ended)",
        f"event {one.id} is erased (0 attempts) but for 1 delivery being sent, which follows by itself",
    ]
    waiting = asyncio.ensure_future(kapsel("erase", str(one.id), "--yes", "--wait", "--server", console.url))
    await deliveries.record(world.connection, [world._result(sending, world.billing, lease, State.DELIVERED)])
    await world.sequence()
    ran = await waiting
    assert (ran.code, ran.out) == (0, f"event {one.id} is erased (1 attempt)\n"), ran.err
    ran = await kapsel("get", "events", "--server", console.url)
    assert ran.out.count("erased") == 2
    ran = await kapsel("proof", str((await console.get("/api/v1/attempts"))["items"][0]["id"]), "--server", console.url)
    assert (ran.code, "was erased" in ran.err) == (1, True)
    ran = await kapsel("erase", "0190f5fe-7c00-7a00-8000-000000000001", "--yes", "--server", console.url)
    assert (ran.code, "kapsel get events" in ran.err) == (1, True)


async def test_on_a_terminal_erasing_is_asked_for(console, world, kapsel) -> None:
    (event,) = await world.put(body=b"forget me")
    for answer, erased in ((b"n\n", False), (b"\n", False), (b"y\n", True)):
        ours, theirs = pty.openpty()
        os.write(ours, answer)
        command = [sys.executable, "-P", "-m", "kapsel_cli", "erase", str(event.id), "--server", console.url]
        process = await asyncio.create_subprocess_exec(
            *command, stdin=theirs, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        _, said = await asyncio.wait_for(process.communicate(), DEADLINE)
        for end in (ours, theirs):
            os.close(end)
        assert process.returncode == (0 if erased else 1)
        assert f"event {event.id} of shop/orders" in said.decode()
        assert ("nothing was erased" in said.decode()) != erased
        assert ((await console.get(f"/api/v1/events/{event.id}"))["erased_at"] is not None) == erased


async def test_a_proof_is_written_whole_once_it_can_be_made(console, world, kapsel) -> None:
    await console.source._refresh()
    await world.put()
    (attempt,) = await world.attempt()
    ran = await kapsel("proof", str(attempt.id), "--server", console.url)
    assert (ran.code, ran.out) == (3, "")
    assert "--wait" in ran.err
    waiting = asyncio.ensure_future(kapsel("proof", str(attempt.id), "--wait", "240", "--server", console.url))
    await world.sequence()
    await world.publish()
    ran = await waiting
    assert ran.code == 0, ran.err
    keys = parse_key_set((await console.raw("/.well-known/kapsel/keys.json"))[0])
    verify_proof(proof_file.parse(ran.raw), keys)
    again = await kapsel("proof", str(attempt.id), "-f", "proof.json", "--server", console.url)
    assert (again.code, again.out) == (0, "")
    assert (kapsel.directory / "proof.json").read_bytes() == ran.raw
    ran = await kapsel("proof", "0190f5fe-7c00-7a00-8000-000000000001", "--wait", "--server", console.url)
    assert ran.code == 1
    assert "List them with `kapsel get attempts`" in ran.err


async def test_a_proof_that_a_frozen_log_will_not_give_is_said_so(console, world, kapsel) -> None:
    await console.source._refresh()
    await world.put()
    (attempt,) = await world.attempt()
    await world.sequence()
    log = await tlog.open_log(world.connection, ORIGIN)
    await tlog.freeze(world.connection, log.id, "two writers")
    ran = await kapsel("proof", str(attempt.id), "--server", console.url)
    assert (ran.code, ran.out) == (3, "")
    assert ran.err == (
        "kapsel: there is no proof yet: the log is frozen, and no head is signed any more: two writers. See "
        "docs/fork-recovery.md.\n"
    )


SECRETS = """
apiVersion: v1
kind: Secret
metadata: {name: github, namespace: shop}
stringData: {key: it-is-a-secret}
---
apiVersion: kapsel.dev/v1alpha1
kind: SigningKey
metadata: {name: github, namespace: shop}
spec: {algorithm: HMAC-SHA256, source: Secret, secretRef: {name: github}}
---
apiVersion: kapsel.dev/v1alpha1
kind: SigningKey
metadata: {name: made, namespace: shop}
spec: {algorithm: HMAC-SHA256, source: Generate}
---
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {name: orders, namespace: shop}
spec:
  verification: {github: {signingKeyRef: {name: github}}}
  destinations: [{name: billing, url: "https://billing.example.com/hooks"}]
---
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {name: other, namespace: shop}
spec:
  verification: {stripe: {signingKeyRef: {name: made}}}
  destinations: [{name: crm, url: "https://billing.example.com/hooks"}]
"""


async def test_a_webhook_is_sent_as_its_provider_would(console, world, kapsel) -> None:
    received: list[tuple[str, bytes, dict[str, str]]] = []

    async def receive(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        received.append((request.path, body, dict(request.headers)))
        wanted = "sha256=" + hmac.digest(b"it-is-a-secret", body, hashlib.sha256).hex()
        if request.headers.get("X-Hub-Signature-256") != wanted:
            problem = {"code": "signature_mismatch", "detail": "no live key made this signature"}
            return web.json_response(problem, status=401)
        again = {"Idempotent-Replayed": "true"} if len(received) > 1 else {}
        return web.json_response({"id": "0190f5fe-7c00-7a00-8000-000000000001"}, status=202, headers=again)

    runner = web.ServerRunner(web.Server(receive))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    running(kapsel.directory, console.url, f"http://127.0.0.1:{runner.addresses[0][1]}")
    (kapsel.directory / "push.json").write_bytes(b'{"push": 1}')
    (kapsel.directory / "key").write_bytes(b"it-is-a-secret\n")
    (kapsel.directory / "manifests").mkdir()
    (kapsel.directory / "manifests" / "all.yaml").write_text(SECRETS)

    ran = await kapsel("send", "orders", "push.json", "--secret-file", "key", "--type", "push", "--id", "42")
    assert ran.code == 0, ran.err
    assert ran.out == "event 0190f5fe-7c00-7a00-8000-000000000001 accepted by shop/orders\n"
    path, body, headers = received[0]
    assert (path, body) == (f"/ingest/{world.orders.id}", b'{"push": 1}')
    assert (headers["X-GitHub-Event"], headers["X-GitHub-Delivery"]) == ("push", "42")

    ran = await kapsel("send", "shop/orders", "-", "--secret-env", "KEY", stdin=b'{"push": 1}', KEY="it-is-a-secret")
    assert "a duplicate" in ran.out
    ran = await kapsel("send", "shop/orders", "push.json", "--manifests", "manifests")
    assert ran.code == 0, ran.err
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/ingest/x/y"
    ran = await kapsel("send", "x/y", "push.json", "--url", url, "--as", "github", "--secret-file", "key")
    assert (ran.code, received[-1][0]) == (0, "/ingest/x/y")

    for arguments, words in (
        (("--secret-env", "ABSENT"), "the secret is empty"),
        ((), "Name one with --secret-file"),
        (("--as", "stripe", "--secret-file", "key"), "401 signature_mismatch"),
        (("--secret-file", "absent"), "No such file"),
        (("--manifests", "absent"), "is not a directory"),
    ):
        ran = await kapsel("send", "shop/orders", "push.json", *arguments)
        assert (ran.code, ran.out) == (1, "")
        assert words in ran.err
    ran = await kapsel("send", "shop/other", "push.json", "--manifests", "manifests")
    assert "is made by kapsel" in ran.err
    ran = await kapsel("send", "shop/orders", "absent.json", "--secret-file", "key")
    assert "Name a file with the body" in ran.err
    await runner.cleanup()


async def test_bash_completes_commands_options_and_values(kapsel) -> None:
    script = (await kapsel("completion", "bash")).out

    def complete(*words: str) -> list[str]:
        typed = " ".join(f"'{word}'" for word in words)
        state = f"COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}"
        probe = f"{script}\n{state}; _kapsel; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        return subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True).stdout.split()

    assert {"get", "send", "up", "proof"} <= set(complete("kapsel", ""))
    assert complete("kapsel", "ge") == ["get"]
    assert {"endpoints", "deliveries", "log"} <= set(complete("kapsel", "get", ""))
    assert complete("kapsel", "get", "deliveries", "--st") == ["--state"]
    assert complete("kapsel", "get", "events", "--st") == []
    assert complete("kapsel", "get", "events", "-o", "") == ["table", "wide", "json", "yaml"]
    assert complete("kapsel", "send", "x", "y", "--as", "gith") == ["github"]
    assert complete("kapsel", "completion", "") == ["bash", "zsh", "fish", "-h", "--help", "--debug"]
