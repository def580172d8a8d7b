"""The page on providers: a section for every scheme that the code has, with a manifest that can be planned."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from kapsel_receiver import handshakes
from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store.event_names import IDS
from kapsel_store.rows import Configuration, Scheme

PAGE = (Path(__file__).parents[3] / "docs" / "providers.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE))
GENERIC = {"hmac", "basic", "bearer", "none"}
ASKING = handshakes.ASKING | set(handshakes.PROVED) | {"meta", "okta", "x", "dropbox"}


def _documents(section: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(section.partition("```yaml\n")[2].partition("```")[0]))


def _scheme(section: str) -> str:
    return str(next(iter(_documents(section)[-1]["spec"]["verification"])))


BY_SCHEME = {_scheme(text): text for title, text in SECTIONS.items() if title != "Any other"}


def test_every_scheme_has_a_section() -> None:
    assert set(BY_SCHEME) | GENERIC == set(get_args(Scheme))
    assert all(f"`{scheme}`" in SECTIONS["Any other"] for scheme in GENERIC)


@pytest.mark.parametrize("scheme", sorted(BY_SCHEME))
def test_a_section_has_a_manifest_that_can_be_planned_and_all_that_it_promises(scheme: str) -> None:
    section = BY_SCHEME[scheme]
    documents = _documents(section)
    names = re.findall(r"(?:secretRef|verifyTokenRef): \{name: ([a-z-]+)", section)
    secrets = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "shop"},
            "stringData": {"s": "x"},
        }
        for name in dict.fromkeys(names)
    ]
    resources = [parse(document) for document in (*documents, *secrets)]
    assert not any(isinstance(resource, list) for resource in resources)
    planned = plan(resources, existing=Configuration(), now=datetime(2026, 3, 1, tzinfo=UTC), entropy=bytes)
    assert planned.problems == ()
    assert planned.configuration.endpoints[0].verification.scheme == scheme
    assert (documents[-1]["spec"]["idempotency"]["source"] == "Provider") == (scheme in IDS)
    for part in ("- **Secret:**", "- **Waits and tries:**", "- **Handshake:**", "```bash\n"):
        assert part in section
    assert ("**Handshake:** none." in section) == (scheme not in ASKING)
