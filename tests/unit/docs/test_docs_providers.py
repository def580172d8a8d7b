"""The page on providers: a section for every scheme that the code has, with a manifest that can be planned."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest
import yaml

from kapsel_deliverer import github
from kapsel_receiver import handshakes
from kapsel_receiver.answers import BODILESS, accepted
from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store.event_names import IDS
from kapsel_store.rows import Configuration, Scheme

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "providers.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE))
GENERIC = {"hmac", "basic", "bearer", "none"}
ASKING = handshakes.ASKING | set(handshakes.PROVED) | {"meta", "okta", "x", "dropbox", "sns"}


def _documents(section: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(section.partition("```yaml\n")[2].partition("```")[0]))


def _scheme(section: str) -> str:
    return str(next(iter(_documents(section)[-1]["spec"]["verification"])))


def _secret(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"s": "x"}}


BY_SCHEME = {_scheme(text): text for title, text in SECTIONS.items() if title != "Any other"}


def test_every_scheme_has_a_section() -> None:
    assert set(BY_SCHEME) | GENERIC == set(get_args(Scheme))
    assert all(f"`{scheme}`" in SECTIONS["Any other"] for scheme in GENERIC)


@pytest.mark.parametrize("scheme", sorted(BY_SCHEME))
def test_a_section_has_a_manifest_that_can_be_planned_and_all_that_it_promises(scheme: str) -> None:
    section = BY_SCHEME[scheme]
    documents = _documents(section)
    names = re.findall(r"(?:secretRef|verifyTokenRef): \{name: ([a-z-]+)", section)
    resources = [parse(document) for document in (*documents, *map(_secret, dict.fromkeys(names)))]
    assert not any(isinstance(resource, list) for resource in resources)
    planned = plan(resources, existing=Configuration(), now=datetime(2026, 3, 1, tzinfo=UTC), entropy=bytes)
    assert planned.problems == ()
    assert planned.configuration.endpoints[0].verification.scheme == scheme
    source = documents[-1]["spec"].get("idempotency", {}).get("source")
    assert (source == "Provider") == (scheme in IDS)
    # Content swallows what is equal: a section says why nothing is lost by it, or why there is no idempotency.
    assert source == "Provider" or "- **Duplicates:**" in section
    for part in ("- **Secret:**", "- **Waits and tries:**", "- **Handshake:**", "```bash\n"):
        assert part in section
    assert ("**Handshake:** none." in section) == (scheme not in ASKING)


NUMBERS = {"three": 3, "ten": 10}


@pytest.mark.parametrize("scheme", sorted(BY_SCHEME))
def test_an_event_is_remembered_as_long_as_its_provider_tries(scheme: str) -> None:
    section = BY_SCHEME[scheme]
    tries = section.partition("- **Waits and tries:**")[2].partition("\n- **")[0]
    hours = [
        int(NUMBERS.get(number, number)) * (24 if unit == "days" else 1)
        for number, unit in re.findall(r"(\d+|three|ten)\s+(days|hours)\b", tries)
    ]
    idempotency = _documents(section)[-1]["spec"].get("idempotency")
    if idempotency is not None:
        assert int(idempotency.get("window", "24h").removesuffix("h")) >= max(hours, default=0)


def test_the_answer_to_an_accepted_webhook_is_told_for_every_scheme() -> None:
    cells = [line.split("|") for line in (DOCS / "receiving.md").read_text(encoding="utf-8").splitlines()]
    told = {cell[1].strip(" `"): cell[6].strip() for cell in cells if len(cell) == 8 and cell[1].startswith(" `")}
    told.pop("verification")
    answers = {
        scheme: accepted(UUID(int=0), duplicate=False, correlation_id="c", scheme=scheme) for scheme in get_args(Scheme)
    }
    assert told == {
        scheme: f"{answer.status}{', no body' if scheme in BODILESS and answer.status != 204 else ''}"
        for scheme, answer in answers.items()
    }
    assert {scheme for scheme, answer in answers.items() if not answer.body} == BODILESS


def test_every_end_of_a_look_at_github_is_on_the_page() -> None:
    reasons = {*get_args(github.Reason), "Healed", "Healing", "GivenUp", "NoToken", "NotLooked"} - {"Refused"}
    assert set(re.findall(r"^\| `([A-Z][A-Za-z]+)` \|", BY_SCHEME["github"], re.MULTILINE)) == reasons


def test_the_manifest_of_gap_healing_can_be_planned() -> None:
    text = BY_SCHEME["github"].partition("### Gap healing")[2]
    key = _documents(BY_SCHEME["github"])[0]
    resources = [parse(document) for document in (key, *_documents(text), _secret("github"), _secret("github-api"))]
    assert not any(isinstance(resource, list) for resource in resources)
    planned = plan(resources, existing=Configuration(), now=datetime(2026, 3, 1, tzinfo=UTC), entropy=bytes)
    assert planned.problems == ()
    healing = planned.configuration.endpoints[0].verification.gap_healing
    assert healing is not None
    assert healing.hook == "/repos/octocat/hello-world/hooks/12345678"
    assert "bearer/github-api" in {row.name for row in planned.configuration.keys}
