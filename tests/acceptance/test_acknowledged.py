"""A delivery, from the provider's POST to a proof that the destination itself has signed, through real processes."""

import asyncio
import base64
import json
import os
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

pytestmark = pytest.mark.acceptance

EXAMPLE = Path(__file__).parents[2] / "examples" / "acknowledge" / "python" / "destination.py"
SECONDS = 120.0


async def run(*command: str, cwd: Path) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode is not None
    return process.returncode, said.decode()


def declare(manifests: Path, url: str) -> None:
    """Have the endpoint send there alone, and demand a signature by the key that is published there."""
    documents = list(yaml.safe_load_all((manifests / "crash.yaml").read_text()))
    (endpoint,) = [document for document in documents if document["kind"] == "WebhookEndpoint"]
    endpoint["spec"] = {
        "verification": {"none": {}},
        "destinations": [{"name": "signs", "url": url, "acknowledgement": {"required": True, "wellKnown": {}}}],
    }
    (manifests / "crash.yaml").write_text(yaml.safe_dump_all(documents))


async def proven(session: aiohttp.ClientSession, console: str) -> tuple[dict[str, Any], bytes]:
    """Wait for the first attempt and its proof."""
    async with asyncio.timeout(SECONDS):
        while True:
            async with session.get(f"{console}/api/v1/attempts") as answer:
                items = (await answer.json())["items"]
            if items:
                url = f"{console}/api/v1/attestation/download-proof/{items[-1]['id']}"
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return items[-1], await answer.read()
            await asyncio.sleep(0.05)


async def test_the_verifier_calls_a_delivery_acknowledged_with_the_destinations_own_key_alone(
    up: Any, tmp_path: Path
) -> None:
    der = bytes.fromhex("302e020100300506032b657004220420") + os.urandom(32)  # PKCS #8 of an Ed25519 key
    pem = f"-----BEGIN PRIVATE KEY-----\n{base64.b64encode(der).decode()}\n-----END PRIVATE KEY-----\n"
    (tmp_path / "key.pem").write_text(pem)
    destination = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLE), str(tmp_path / "key.pem"), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert destination.stdout is not None
        line = (await asyncio.wait_for(destination.stdout.readline(), SECONDS)).decode()
        url = line.removeprefix("listening on ").strip()
        declare(up.manifests, url)
        await up.start()
        console = up.state["console"]
        async with aiohttp.ClientSession() as session:
            async with session.post(up.ingest, data=b'{"order": 1}') as answer:
                assert answer.status == 202
            attempt, proof = await proven(session, console)
            async with session.get(f"{console}/.well-known/kapsel/keys.json") as answer:
                (tmp_path / "keys.json").write_bytes(await answer.read())
            async with session.get(url.replace("/hooks", "/.well-known/http-message-signatures-directory")) as answer:
                (tmp_path / "destination.jwks").write_bytes(await answer.read())
    finally:
        destination.kill()
        await destination.wait()

    assert (attempt["outcome"], attempt["acknowledgement"]) == ("delivered", "acknowledged")
    (tmp_path / "proof.json").write_bytes(proof)
    assert json.loads(proof)["assurance"] == "acknowledged"

    verifier = str(Path(sys.executable).with_name("kapsel-verify"))
    verify = (verifier, "--proof", "proof.json", "--keys", "keys.json")
    code, said = await run(*verify, cwd=tmp_path)
    assert code == 0
    assert "give --destination-key" in said
    code, said = await run(*verify, "--destination-key", "destination.jwks", "--json", cwd=tmp_path)
    assert code == 0, said
    assert json.loads(said)["assurance"] == "acknowledged"
    assert (await run(*verify, "--destination-key", "11" * 32, cwd=tmp_path))[0] == 25
    assert (await run(*verify, "--require", "acknowledged", cwd=tmp_path))[0] == 25

    changed = json.loads(proof)
    leaf = base64.b64decode(changed["leaf_b64"]).replace(b'"acknowledgement_key":"', b'"acknowledgement_key":"00')
    changed["leaf_b64"] = base64.b64encode(leaf).decode()
    (tmp_path / "proof.json").write_text(json.dumps(changed))
    assert (await run(*verify, "--destination-key", "destination.jwks", cwd=tmp_path))[0] not in (0, 2)
