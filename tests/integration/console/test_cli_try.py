"""`kapsel try` by what a console knows: its endpoints as they run, and the events that it has stored."""

import json
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from kapsel_store import erasures
from kapsel_store.rows import Ordering, Transform

MANIFEST = """\
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {name: orders, namespace: shop}
spec:
  verification: {github: {signingKeyRef: {name: of-no-matter-here}}}
  destinations:
  - {name: billing, url: 'https://billing.example.com/hooks', filter: event.body.b == 1}
"""


async def test_an_event_that_came_is_tried_by_what_runs(console, world, kapsel) -> None:
    shaped = replace(
        world.billing,
        filter='event.type == "push"',
        transform=Transform(body='{"made": event.body.a}', headers=(("X-A", "string(event.body.a)"),)),
        ordering=Ordering(key="string(event.body.a)"),
    )
    unwanted = replace(world.billing, id=uuid4(), name="crm", filter="event.body.a > 1")
    await world.apply(destinations=(shaped, unwanted))
    (event,) = await world.put()
    ran = await kapsel("try", "orders", str(event.id), "--server", console.url, "-o", "json")
    assert (ran.code, ran.err) == (0, "")
    said = json.loads(ran.out)
    assert (said["event"]["id"], said["event"]["type"]) == (str(event.id), "push")
    billing, crm = said["destinations"]
    assert (billing["result"], billing["body"], billing["headers"]) == ("sent", '{"made":1}', {"x-a": "1"})
    assert (billing["order_key"], crm["result"]) == ("1", "filtered")


async def test_an_event_that_came_is_tried_by_manifests_that_are_to_come(console, world, kapsel) -> None:
    (event,) = await world.put()
    Path(kapsel.directory, "k8s").mkdir()
    Path(kapsel.directory, "k8s", "orders.yaml").write_text(MANIFEST)
    ran = await kapsel("try", "orders", str(event.id), "--manifests", "k8s", "--server", console.url)
    assert (ran.code, ran.err) == (1, "")
    assert "  k8s/orders.yaml:7: filter: the event has no b (character 12)" in ran.out.splitlines()


async def test_a_file_is_tried_by_what_runs(console, world, kapsel) -> None:
    Path(kapsel.directory, "event.json").write_text('{"a": 2}')
    ran = await kapsel("try", "shop/orders", "event.json", "--server", console.url)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        *("an event without a type, 8 bytes of JSON", "", "billing gets it", "  body       as it came"),
    ]


async def test_an_event_that_was_forgotten_cannot_be_tried(console, world, kapsel) -> None:
    (event,) = await world.put()
    await erasures.erase(world.connection, event.id)
    ran = await kapsel("try", "orders", str(event.id), "--server", console.url)
    assert ran.code == 1
    assert ran.err == f"kapsel: the body of event {event.id} is gone. Name another event, or a file.\n"


async def test_an_endpoint_that_the_console_has_not_is_named(console, kapsel) -> None:
    ran = await kapsel("try", "shop/none", "-", "--server", console.url)
    assert (ran.code, ran.err) == (
        *(1, "kapsel: there is no endpoint shop/none. List them with `kapsel get endpoints`.\n"),
    )
