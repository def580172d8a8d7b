"""Destinations that sign what they got: the examples as real processes, and everything that can be wrong with it."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path
from time import time

import pytest
from aiohttp import web
from nacl.signing import SigningKey

from kapsel_attestor import leaves
from kapsel_store import attempts, tlog
from kapsel_store.rows import Acknowledgement, AttemptRow
from kapsel_store.states import State
from kapsel_verifier import acknowledgement
from kapsel_verifier.errors import AcknowledgementError
from kapsel_verifier.leaf import Leaf

EXAMPLES = Path(__file__).parents[3] / "examples" / "acknowledge"
DIRECTORY = "/.well-known/http-message-signatures-directory"
KEY = SigningKey(b"the key of the destination......")
STRANGER = SigningKey(b"the key of somebody else........")
COVERED = '("@status" "content-digest" "webhook-id";req "content-digest";req)'


def pem(key: SigningKey) -> str:
    """The key as `openssl genpkey -algorithm ed25519` writes it."""
    der = bytes.fromhex("302e020100300506032b657004220420") + bytes(key)
    return f"-----BEGIN PRIVATE KEY-----\n{base64.b64encode(der).decode()}\n-----END PRIVATE KEY-----\n"


def digest(body: bytes) -> str:
    return f"sha-256=:{base64.b64encode(sha256(body).digest()).decode()}:"


def signed(
    request: web.BaseRequest, body: bytes, answer: bytes, *, key: SigningKey = KEY, status: int = 200, **changed: object
) -> web.Response:
    """An answer with an acknowledgement, in which single facts may be others than they were."""
    said = {
        "status": status,
        "answered": answer,
        "webhook_id": request.headers.get("Webhook-Id", ""),
        "payload": body,
        "created": int(time()),
        **changed,
    }
    key_id = f';keyid="{said["keyid"]}"' if "keyid" in said else ""
    parameters = f'{COVERED};created={said["created"]}{key_id};tag="kapsel-ack"'
    base = (
        f'"@status": {said["status"]}\n"content-digest": {digest(said["answered"])}\n'
        f'"webhook-id";req: {said["webhook_id"]}\n"content-digest";req: {digest(said["payload"])}\n'
        f'"@signature-params": {parameters}'
    )
    signature = base64.b64encode(key.sign(base.encode()).signature).decode()
    headers = {
        "Content-Digest": digest(answer), "Signature-Input": f"a={parameters}", "Signature": f"a=:{signature}:",
    }  # fmt: skip
    return web.Response(status=status, body=answer, headers=headers)


def signing(destination, **changed: object) -> None:
    """Have a destination sign from now on."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return signed(request, destination.received[-1].body, b"thanks", **changed)

    destination.answer = answer


async def attempt_of(shop, delivery_id) -> AttemptRow:
    """The last attempt of a delivery, whole."""
    listed = (await shop.attempts(delivery_id))[-1]
    async with shop.pool.acquire() as connection:
        whole = await attempts.get(connection, listed.attempt.id)
    assert whole is not None
    return whole.attempt


async def leaf_of(shop, attempt: AttemptRow) -> Leaf:
    """The leaf that the attestor makes of an attempt."""
    async with shop.pool.acquire() as connection:
        waiting = await tlog.pending(connection, 100)
    (pending,) = [one for one in waiting if one.id == str(attempt.id)]
    return Leaf.parse(leaves.encode(pending, 0, None, bytes(32)))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """The key of the destination, as the examples want it."""
    file = tmp_path / "key.pem"
    file.write_text(pem(KEY))
    return file


@pytest.mark.parametrize("program", ["python/destination.py", "go", "javascript/destination.mjs"])
async def test_the_examples_acknowledge_what_a_verifier_can_check(program, run, key_file, shop, start) -> None:
    named = Acknowledgement(required=True, public_keys=("00" * 32, bytes(KEY.verify_key).hex()))
    published = Acknowledgement(required=True)
    url = await run(EXAMPLES / program, key_file)
    for declared in (named, published):
        await shop.send_to(url, acknowledgement=declared)
    await start()
    for delivery_id in await shop.put(body=b'{"n": 1}' * 1000):
        delivery = await shop.ends(State.DELIVERED, delivery_id)
        assert (delivery.attempts, delivery.acknowledgement) == (1, "acknowledged")
        attempt = await attempt_of(shop, delivery_id)
        assert (attempt.outcome, attempt.reason, attempt.acknowledgement) == ("delivered", "status_200", "acknowledged")
        leaf = await leaf_of(shop, attempt)
        assert acknowledgement.check(leaf, bytes(KEY.verify_key)).key_id == "2026-11"
        with pytest.raises(AcknowledgementError):
            acknowledgement.check(leaf, bytes(STRANGER.verify_key))
        with pytest.raises(AcknowledgementError):
            acknowledgement.check(leaf._replace(payload_hash=bytes(32)), bytes(KEY.verify_key))


async def test_nothing_is_asked_for_and_nothing_looked_at_without_a_declaration(destination, shop, start) -> None:
    signing(destination)
    await shop.send_to(destination.url)
    deliverer = await start()
    [delivery_id] = await shop.put()
    assert (await shop.ends(State.DELIVERED, delivery_id)).acknowledgement is None
    asked = {"content-digest", "accept-signature", "want-content-digest"}
    assert asked & set(destination.received[0].headers) == set()
    assert (await attempt_of(shop, delivery_id)).acknowledgement_base is None
    assert await deliverer.metric("webhook_acknowledgements_total") == 0


async def test_a_declaration_asks_for_a_signature_in_the_words_of_the_standards(destination, shop, start) -> None:
    signing(destination)
    row = await shop.send_to(
        destination.url, acknowledgement=Acknowledgement(public_keys=(bytes(KEY.verify_key).hex(),))
    )
    deliverer = await start()
    [delivery_id] = await shop.put(body=b"hello")
    await shop.ends(State.DELIVERED, delivery_id)
    headers = destination.received[0].headers
    assert headers["content-digest"] == digest(b"hello")
    assert headers["accept-signature"] == f'kapsel={COVERED};created;alg="ed25519";tag="kapsel-ack"'
    assert headers["want-content-digest"] == "sha-256=10"
    label = f"shop/orders/{row.name}"
    assert await deliverer.metric("webhook_acknowledgements_total", destination=label, result="acknowledged") == 1


async def test_a_success_without_the_required_signature_fails_and_is_tried_again(destination, shop, start) -> None:
    async def reluctant(request: web.BaseRequest) -> web.StreamResponse:
        body = destination.received[-1].body
        match len(destination.received):
            case 1:
                return web.Response(text="thanks")
            case 2:
                return signed(request, body, b"thanks", key=STRANGER)
            case _:
                return signed(request, body, b"thanks")

    destination.answer = reluctant
    row = await shop.send_to(
        destination.url, acknowledgement=Acknowledgement(required=True, public_keys=(bytes(KEY.verify_key).hex(),))
    )
    deliverer = await start()
    [delivery_id] = await shop.put()
    delivery = await shop.ends(State.DELIVERED, delivery_id)
    assert (delivery.attempts, delivery.acknowledgement) == (3, "acknowledged")
    tries = [listed.attempt for listed in await shop.attempts(delivery_id)]
    assert [(each.outcome, each.reason, each.response_status, each.acknowledgement) for each in tries] == [
        ("unacknowledged", "acknowledgement_missing", 200, "missing"),
        ("unacknowledged", "acknowledgement_invalid", 200, "invalid"),
        ("delivered", "status_200", 200, "acknowledged"),
    ]
    assert len({received.headers["webhook-id"] for received in destination.received}) == 1
    label = f"shop/orders/{row.name}"
    assert await deliverer.metric("webhook_delivery_attempts_total", destination=label, outcome="unacknowledged") == 2
    failures = "webhook_delivery_failures_total"
    assert await deliverer.metric(failures, fault="destination", reason="acknowledgement_missing") == 1
    assert await deliverer.metric("webhook_acknowledgements_total", destination=label, result="invalid") == 1


async def test_without_being_required_a_missing_signature_is_recorded_and_counted(destination, shop, start) -> None:
    row = await shop.send_to(
        destination.url, acknowledgement=Acknowledgement(public_keys=(bytes(KEY.verify_key).hex(),))
    )
    deliverer = await start()
    [delivery_id] = await shop.put()
    delivery = await shop.ends(State.DELIVERED, delivery_id)
    assert (delivery.attempts, delivery.acknowledgement) == (1, "missing")
    attempt = await attempt_of(shop, delivery_id)
    assert (attempt.outcome, attempt.acknowledgement, attempt.acknowledgement_key) == ("delivered", "missing", None)
    label = f"shop/orders/{row.name}"
    assert await deliverer.metric("webhook_acknowledgements_total", destination=label, result="missing") == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"answered": b"other"},
        {"webhook_id": "another"},
        {"payload": b"another"},
        {"created": 1},
        {"created": 4_000_000_000},  # in the year 2096: it may be long since this was read
        {"key": STRANGER},
    ],
)
async def test_a_signature_over_anything_else_is_invalid(destination, shop, start, changed: dict[str, object]) -> None:
    signing(destination, **changed)
    await shop.send_to(destination.url, acknowledgement=Acknowledgement(public_keys=(bytes(KEY.verify_key).hex(),)))
    await start()
    [delivery_id] = await shop.put()
    assert (await shop.ends(State.DELIVERED, delivery_id)).acknowledgement == "invalid"
    assert (await attempt_of(shop, delivery_id)).acknowledgement_base is None


async def test_the_whole_answer_is_signed_however_little_of_it_is_kept(destination, shop, start) -> None:
    sizes = iter([0, 100_000, 300_000])

    async def long(request: web.BaseRequest) -> web.StreamResponse:
        return signed(request, destination.received[-1].body, b"x" * next(sizes))

    destination.answer = long
    await shop.send_to(destination.url, acknowledgement=Acknowledgement(public_keys=(bytes(KEY.verify_key).hex(),)))
    await start()
    results = []
    for _ in range(3):
        [delivery_id] = await shop.put()
        results.append((await shop.ends(State.DELIVERED, delivery_id)).acknowledgement)
    assert results == ["acknowledged", "acknowledged", "invalid"]


async def test_a_refusal_is_never_looked_at(destination, shop, start) -> None:
    signing(destination, status=400)
    await shop.send_to(
        destination.url, acknowledgement=Acknowledgement(required=True, public_keys=(bytes(KEY.verify_key).hex(),))
    )
    await start()
    [delivery_id] = await shop.put()
    delivery = await shop.ends(State.EXHAUSTED, delivery_id)
    assert (delivery.last_reason, delivery.acknowledgement) == ("status_400", None)


def jwks(*keys: tuple[str, SigningKey]) -> web.Response:
    entries = [
        {
            "kty": "OKP",
            "crv": "Ed25519",
            "kid": name,
            "x": base64.urlsafe_b64encode(bytes(key.verify_key)).decode()[:43],
        }
        for name, key in keys
    ]
    return web.Response(text=json.dumps({"keys": entries}))


def publishing(destination, publish: Callable[[], Awaitable[web.StreamResponse]], **changed: object) -> None:
    """Have a destination sign, and publish its keys as the test says."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == DIRECTORY:
            return await publish()
        return signed(request, destination.received[-1].body, b"thanks", **changed)

    destination.answer = answer


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (lambda: jwks(("a", STRANGER), ("b", KEY)), "acknowledged"),
        (lambda: jwks(("a", STRANGER), ("c", KEY)), "invalid"),
        (lambda: web.Response(status=404), "no_key"),
        (lambda: web.Response(status=302, headers={"Location": "/keys"}), "no_key"),
        (lambda: web.Response(text="<html>"), "no_key"),
        (lambda: web.Response(body=b" " * 20_000 + b"{}"), "no_key"),
    ],
)
async def test_published_keys_are_fetched_once_and_used_by_name(destination, shop, start, answer, result) -> None:
    async def publish() -> web.StreamResponse:
        return answer()

    publishing(destination, publish, keyid="b")
    await shop.send_to(destination.url, acknowledgement=Acknowledgement())
    await start()
    for _ in range(3):
        [delivery_id] = await shop.put()
        assert (await shop.ends(State.DELIVERED, delivery_id)).acknowledgement == result
    asked = [received for received in destination.received if "webhook-id" not in received.headers]
    assert len(asked) == 1
    assert "user-agent" in asked[0].headers


async def test_keys_that_are_required_and_cannot_be_had_are_a_failure_with_a_reason(destination, shop, start) -> None:
    async def publish() -> web.StreamResponse:
        return web.Response(status=503)

    publishing(destination, publish)
    await shop.send_to(destination.url, acknowledgement=Acknowledgement(required=True))
    await start()
    [delivery_id] = await shop.put()

    delivery = await shop.ends(State.EXHAUSTED, delivery_id)

    assert (delivery.last_reason, delivery.acknowledgement) == ("acknowledgement_no_key", "no_key")


async def test_a_directory_that_hangs_keeps_only_its_own_destination_waiting(destination, shop, start, kit) -> None:
    hanging, released = asyncio.Event(), asyncio.Event()

    async def publish() -> web.StreamResponse:
        hanging.set()
        await released.wait()
        return jwks(("a", KEY))

    other = kit.Destination()
    runner = await other.start()
    publishing(destination, publish)
    await shop.send_to(destination.url, acknowledgement=Acknowledgement(), max_in_flight=1)
    await shop.send_to(other.url)
    await start()
    first, second = await shop.put()
    await asyncio.wait_for(hanging.wait(), kit.PATIENCE)
    await shop.ends(State.DELIVERED, second)
    assert (await shop.delivery(first)).state is State.SENDING
    released.set()
    assert (await shop.ends(State.DELIVERED, first)).acknowledgement in ("acknowledged", "no_key")
    await runner.cleanup()
