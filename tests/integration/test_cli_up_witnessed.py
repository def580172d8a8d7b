"""From a manifest that names witnesses to an audit that their views agree with: all of it, as people run it."""

import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from witnessing import WitnessProcess

from kapsel_verifier import cosignature, keys
from kapsel_verifier.note import Note, VerifierKey

MANIFESTS = """\
apiVersion: kapsel.dev/v1alpha1
kind: Relay
metadata: {{name: main, namespace: shop}}
spec:
  egress: {{allowedCIDRs: [127.0.0.1/32], allowHTTP: true}}
---
apiVersion: kapsel.dev/v1alpha1
kind: AttestationLog
metadata: {{name: log, namespace: shop}}
spec:
  origin: log.test/witnessed
  publication: {{interval: 1s}}
{witnessing}---
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {{name: orders, namespace: shop}}
spec:
  verification: {{none: {{}}}}
  destinations: [{{name: billing, url: "{destination}"}}]
"""
DEADLINE = 120.0

Eventually = Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]


async def test_a_log_with_two_witnesses_is_audited_and_all_three_agree(
    directory: Path, destination: str, eventually: Eventually
) -> None:
    manifests, data = directory / "manifests", directory / "data"
    manifests.mkdir()
    file = manifests / "all.yaml"
    file.write_text(MANIFESTS.format(witnessing="", destination=destination))
    witnesses = [WitnessProcess(directory / f"w{number}") for number in range(2)]
    up = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "kapsel_cli", "up", str(manifests), "--data-dir", str(data), "--port", "0",
        "--workers", "1", stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        await witnessed(directory, data, file, destination, witnesses, up, eventually)
    finally:
        for one in witnesses:
            if one.popen is not None:
                one.kill()
        if up.returncode is None:
            up.send_signal(signal.SIGINT)
            await asyncio.wait_for(up.wait(), DEADLINE)


async def witnessed(
    directory: Path,
    data: Path,
    file: Path,
    destination: str,
    witnesses: list[WitnessProcess],
    up: asyncio.subprocess.Process,
    eventually: Eventually,
) -> None:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as client:

        async def taken() -> str | None:
            assert up.returncode is None, "kapsel up has ended"
            try:
                running = json.loads((data / "up.json").read_text())
                async with client.post(f"{running['ingest']}/ingest/shop/orders", json={"order": 1}) as answer:
                    return running["console"] if answer.status == 202 else None
            except (OSError, ValueError, KeyError, aiohttp.ClientError):
                return None

        console = str(await eventually(taken))

        async def published() -> bytes | None:
            async with client.get(f"{console}/.well-known/kapsel/keys.json") as answer:
                return await answer.read() if answer.status == 200 else None

        # What the operator hands over to witnesses and auditors.
        (trusted,) = keys.parse_key_set(await eventually(published))  # type: ignore[arg-type]
        log_key = VerifierKey(trusted.name or "", trusted.public_key)
        for number, one in enumerate(witnesses):
            await asyncio.to_thread(one.make, f"witness.example/w{number}")
            await asyncio.to_thread(one.start, [log_key])
        named = "".join(
            f'    - {{name: w{number}, vkey: "{one.key.encode()}", url: "{one.url}"}}\n'
            for number, one in enumerate(witnesses)
        )
        spec = f"  witnessing:\n    quorum: 2\n    required: true\n    timeout: 20s\n    witnesses:\n{named}"
        file.write_text(MANIFESTS.format(witnessing=spec, destination=destination))

        async def cosigned() -> bool:
            await taken()
            async with client.get(f"{console}/checkpoint") as answer:
                if answer.status != 200:
                    return False  # no head is published yet
                note = Note.parse(await answer.read())
            return len(cosignature.find(note, [one.key for one in witnesses])) == 2

        await eventually(cosigned)
        policy = directory / "policy.txt"
        lines = [f"witness w{number} {one.key.encode()} {one.url}" for number, one in enumerate(witnesses)]
        policy.write_text("\n".join([f"log {log_key.encode()}", *lines, "group both all w0 w1", "quorum both", ""]))
        audit = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "kapsel_cli", "audit", console, "--policy", str(policy), "--json",
            cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        told, said = await asyncio.wait_for(audit.communicate(), DEADLINE)
        found = json.loads(told)
        assert audit.returncode == 0, (found, said)
        assert found["leaves_read"] == found["tree_size"] > 0
        assert found["witnessed_at"] is not None
        assert [one["holder"] for one in found["agreed"]] == ["the witness w0", "the witness w1"]
