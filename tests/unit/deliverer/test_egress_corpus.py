"""Every spelling of the corpus through the plan of a manifest and through the deliverer: one verdict."""

import json
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry
from yarl import URL

from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_deliverer.targets import Targets
from kapsel_egress.verdicts import Allowed, Denied
from kapsel_resources.kinds.relay import Relay
from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store.rows import Configuration, DestinationRow, EndpointRow, RelayRow, Verification

CORPUS = Path(__file__).parents[2] / "vectors" / "addresses"
FILES = sorted(CORPUS.glob("*.json"))
# What the plan says, in the words of the deliverer. A manifest that is no manifest never comes to be planned.
SAID = {"AddressDenied": "address_denied", "PlainHTTP": "http_denied", "UrlInvalid": "url_invalid"}


def read(file: Path) -> tuple[RelayRow, list[list[str]]]:
    content = json.loads(file.read_text(encoding="utf-8"))
    policy = content["relay"]
    allowed = tuple(policy.get("allowed_cidrs", ()))
    return RelayRow(allow_http=policy.get("allow_http", False), allowed_cidrs=allowed), content["cases"]


def when_planned(url: str, relay: RelayRow) -> tuple[str, str]:
    """Return verdict and words of the plan."""
    declared = {"apiVersion": "kapsel.dev/v1alpha1", "metadata": {"name": "main"}}
    egress = {"allowHTTP": relay.allow_http, "allowedCIDRs": list(relay.allowed_cidrs)}
    around = parse({**declared, "kind": "Relay", "spec": {"egress": egress}})
    assert isinstance(around, Relay), around
    spec = {"verification": {"none": {}}, "destinations": [{"name": "d", "url": url}]}
    endpoint = parse({**declared, "kind": "WebhookEndpoint", "spec": spec})
    if isinstance(endpoint, list):
        [problem] = endpoint
        assert problem.field == "spec.destinations[0].url"
        return "url_invalid", problem.wrong
    planned = plan(
        [around, endpoint],
        existing=Configuration(),
        now=datetime(2026, 3, 1, tzinfo=UTC),
        entropy=lambda size: b"x" * size,
    )
    if planned.configuration.destinations:
        return "allowed", ""
    [problem] = planned.problems
    assert problem.field == "spec.destinations[0].url"
    return SAID[problem.reason], problem.wrong


def when_sent(url: str, relay: RelayRow) -> Allowed | Denied:
    """Return the verdict by which the deliverer sends or does not."""
    endpoint = EndpointRow(id=uuid4(), namespace="default", name="main", verification=Verification(scheme="none"))
    row = DestinationRow(id=uuid4(), endpoint_id=endpoint.id, name="d", url=url)
    targets = Targets(DelivererMetrics(CollectorRegistry()))
    targets.use(Configuration(relay=relay, endpoints=(endpoint,), destinations=(row,)))
    target = targets.get(row.id)
    assert target is not None
    return target.verdict


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_the_plan_and_the_deliverer_give_each_spelling_the_verdict_of_the_corpus(file: Path) -> None:
    relay, cases = read(file)
    wrong = []
    for url, expected, *spelled in cases:
        planned, words = when_planned(url, relay)
        sent = when_sent(url, relay)
        verdict = sent.reason if isinstance(sent, Denied) else "allowed"
        said = sent.detail if isinstance(sent, Denied) else ""
        if (planned, verdict) != (expected, expected):
            wrong.append(f"{url!r} is to be {expected}: planned {planned}, sent {verdict}")
        elif expected != "url_invalid" and said != words:
            wrong.append(f"{url!r}: the plan says {words!r}, the deliverer {said!r}")
        elif isinstance(sent, Allowed) and sent.url != URL(spelled[0] if spelled else url):
            wrong.append(f"{url!r} is called as {sent.url}")
    assert wrong == []


def test_the_corpus_is_long_and_holds_no_case_twice() -> None:
    every = [(file.stem, url) for file in FILES for url, *_ in read(file)[1]]
    assert len(every) > 600
    assert len(set(every)) == len(every)
