"""Providers that are asked back: what `kapsel up` calls to take their webhooks, and what it delivers in the end."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web
from amazon_sns import HOST, TOPIC, AmazonSns, server_of
from forward import Forward
from github_api import TOKEN, FakeGitHub
from traffic import SECRET

pytestmark = pytest.mark.acceptance

SECONDS = 180.0
# What the name servers of a machine would say: processes of Python ask them by this one function.
NAMES = """\
import socket
_known = socket.getaddrinfo
def getaddrinfo(host, *rest, **named):
    return _known("127.0.0.1" if host == {host!r} else host, *rest, **named)
socket.getaddrinfo = getaddrinfo
"""


def declare(manifests: Path, verification: Mapping[str, Any], *secrets: dict[str, Any], egress: object = None) -> None:
    """Have the endpoint take webhooks so; `egress` is added to what the Relay says of it."""
    documents = list(yaml.safe_load_all((manifests / "crash.yaml").read_text()))
    for document in documents:
        if document["kind"] == "WebhookEndpoint":
            document["spec"] |= {"verification": verification, "idempotency": {"source": "Provider"}}
        if document["kind"] == "Relay" and isinstance(egress, dict):
            document["spec"]["egress"] |= egress
    (manifests / "crash.yaml").write_text(yaml.safe_dump_all([*documents, *secrets]))


def secret(name: str, **entries: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "crash"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": entries}


async def delivered(up: Any, count: int) -> list[dict[str, Any]]:
    """Wait for events that arrived at every destination, and return them whole."""
    async with aiohttp.ClientSession(up.state["console"]) as session, asyncio.timeout(SECONDS):
        while True:
            async with session.get("/api/v1/deliveries") as answer:
                items = (await answer.json())["items"]
            ended = [one for one in items if one["state"] == "delivered"]
            if ended and len(ended) == len(items) and len({one["event_id"] for one in ended}) == count:
                break
            await asyncio.sleep(0.05)
        found = []
        for event in sorted({one["event_id"] for one in ended}):
            async with session.get(f"/api/v1/events/{event}") as answer:
                found.append(await answer.json())
        return found


async def test_a_topic_of_sns_is_confirmed_and_its_messages_delivered_through_a_proxy_in_tls(
    up: Any, destination: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    amazon, authority = server_of(HOST, tmp_path)
    ours, vouches = server_of("localhost", tmp_path)
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "sitecustomize.py").write_text(NAMES.format(host=HOST))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "names"))
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))  # of the machine; who vouches for the proxy is declared alone
    async with AmazonSns(amazon) as sns, Forward(ours, elsewhere={443: sns.port}) as proxy:
        egress = {"proxy": {"url": f"https://localhost:{proxy.port}", "caSecretRef": {"name": "our-ca"}}}
        declare(
            up.manifests,
            {"sns": {"topicARNs": [TOPIC]}},
            secret("our-ca", **{"ca.crt": vouches.read_text()}),
            egress=egress,
        )
        await up.start()
        async with asyncio.timeout(SECONDS):
            assert await sns.subscribe(up.ingest) == 200
            await sns.confirmed.wait()
            assert await sns.publish('{"order": 7}', "An order") == 202
        (event,) = await delivered(up, 1)
    said = json.loads(event["body_text"])
    assert (said["Type"], said["Message"], said["Subject"]) == ("Notification", '{"order": 7}', "An order")
    assert [set(ids) for ids in destination.seen.values()] == [{event["id"]}] * 2
    # To Amazon and to the destination, nothing went by another way, and no name was left to the proxy to look up.
    assert {asked for asked, _ in proxy.asked} == {
        f"CONNECT 127.0.0.1:{port} HTTP/1.1" for port in (443, destination.port)
    }


async def test_what_github_failed_to_deliver_is_asked_for_again_and_delivered(up: Any, destination: Any) -> None:
    github = FakeGitHub()
    runner = web.ServerRunner(web.Server(github.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    healing = {
        "repository": "octocat/hello",
        "hookId": 7,
        "tokenSecretRef": {"name": "api"},
        "apiURL": f"http://127.0.0.1:{runner.addresses[0][1]}",
    }
    declare(
        up.manifests,
        {"github": {"signingKeyRef": {"name": "in"}, "gapHealing": healing}},
        secret("api", token=TOKEN.decode()),
    )
    missing = github.deliver("a-guid-that-failed", 503, timedelta(hours=1))
    body = b'{"zen": "Keep it logically awesome."}'
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    headers = {
        "X-Hub-Signature-256": f"sha256={signature}",
        "X-GitHub-Delivery": "a-guid-that-failed",
        "X-GitHub-Event": "ping",
        "Content-Type": "application/json",
    }
    try:
        await up.start()
        async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
            while not github.redelivered:
                await asyncio.sleep(0.05)
            assert github.redelivered == [missing]
            # GitHub sends it as it was, under the same id.
            async with session.post(up.ingest, data=body, headers=headers) as answer:
                assert answer.status == 202
        (event,) = await delivered(up, 1)
    finally:
        await runner.cleanup()
    assert event["body_text"] == body.decode()
    assert ["X-GitHub-Delivery", "a-guid-that-failed"] in event["headers"]
    assert [set(ids) for ids in destination.seen.values()] == [{event["id"]}] * 2
