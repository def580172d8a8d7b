"""The documentation points at things that are there: files, anchors, metrics, codes, reasons, commands and settings."""

import re
import runpy
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from prometheus_client import CollectorRegistry

from kapsel_attestor.metrics import Metrics as AttestorMetrics
from kapsel_console.metrics import Metrics as ConsoleMetrics
from kapsel_deliverer import outcome
from kapsel_deliverer.metrics import DelivererMetrics
from kapsel_egress.verdicts import DeniedReason
from kapsel_operator.metrics import Metrics as OperatorMetrics
from kapsel_receiver import problems
from kapsel_receiver.metrics import Metrics as ReceiverMetrics
from kapsel_store.rows import Scheme
from kapsel_witness.metrics import Metrics as WitnessMetrics

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_CODE = re.compile(r"```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_METRIC = re.compile(r"\b(?:webhook|delivery|deliverer|attestation|circuit_breaker|worker_pool|console)_[a-z_]*[a-z]\b")
# Words of the same form that are none.
_NO_METRICS = {"delivery_id", "delivery_attempt_id", "delivery_not_final", "delivery_not_pending"}


def _text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page as mkdocs and GitHub make them of its headings."""
    found = set()
    fenced = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
    for heading in _HEADING.findall(fenced.sub("", _text(page))):
        plain = unicodedata.normalize("NFKD", re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading)).lower()
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip()))
    return found


def _links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in _LINK.findall(_CODE.sub("", _text(page))):
            if not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize(("page", "target"), [pytest.param(p, t, id=f"{p.name}-{t}") for p, t in _links()])
def test_a_relative_link_leads_to_a_file_and_an_anchor(page: Path, target: str) -> None:
    name, _, anchor = target.partition("#")
    file = (page.parent / name).resolve() if name else page

    assert file.is_relative_to(ROOT)
    assert file.exists()
    assert not anchor or anchor in _anchors(file)


@pytest.mark.parametrize(("page", "target"), [pytest.param(p, t, id=f"{p.name}-{t}") for p, t in _links()])
def test_the_site_links_its_own_pages_and_the_repository_for_what_lies_beside_them(page: Path, target: str) -> None:
    if DOCS not in page.parents:
        return
    hook = runpy.run_path(str(DOCS / "repository.py"))["on_page_markdown"]
    file = SimpleNamespace(src_uri=page.relative_to(DOCS).as_posix())
    config = SimpleNamespace(extra={"repository": "https://a.test/"})

    made = hook(f"[x]({target})", page=SimpleNamespace(file=file), config=config, files=None)

    linked = (page.parent / target).resolve()
    own = linked.is_relative_to(DOCS)
    assert made == (f"[x]({target})" if own else f"[x](https://a.test/{linked.relative_to(ROOT)})")


COMPONENTS = (ReceiverMetrics, DelivererMetrics, AttestorMetrics, ConsoleMetrics, OperatorMetrics)


def _metrics(components: Iterable[Callable[[CollectorRegistry], object]] = COMPONENTS) -> set[str]:
    """Return every metric of ours as it is exposed."""
    found = set()
    for make in components:
        made = make(registry := CollectorRegistry())
        if isinstance(made, OperatorMetrics):
            made.show(lambda: {("Relay", "True"): 1})  # what it asks for when it is shown
        found |= {f"{family.name}_total" if family.type == "counter" else family.name for family in registry.collect()}
    return found


def _documented_metrics() -> set[str]:
    rows = _text(DOCS / "operations.md").partition("## Metrics")[2].partition("### What to be woken by")[0]
    return set(re.findall(r"^\| `([a-z_]+)` \| (?:counter|gauge|histogram) \|", rows, re.MULTILINE))


def test_every_metric_has_its_row_and_every_row_its_metric() -> None:
    assert _documented_metrics() == _metrics()


def test_every_metric_is_read_by_a_test() -> None:
    """By its name alone: what the test demands of it is that test's own affair."""
    beside = {ROOT / "tests/chart", ROOT / "tests/unit/docs"}  # they name metrics and measure nothing
    tests = [path for path in (ROOT / "tests").rglob("*.py") if not beside & {*path.parents}]
    words = {word for path in tests for word in re.findall(r"[a-z_]+", _text(path))}
    metrics = _metrics((*COMPONENTS, WitnessMetrics))
    unread = {name for name in metrics if not {name, f"{name}_count", f"{name}_sum", f"{name}_bucket"} & words}
    # Counts what only a fault inside kopf brings about.
    assert unread == {"operator_watch_failures_total"}


def test_the_labels_of_every_metric_are_documented() -> None:
    rows = _text(DOCS / "operations.md")
    for make in COMPONENTS:
        make(registry := CollectorRegistry())
        for collector in registry._collector_to_names:
            family = collector.describe()[0]
            name = f"{family.name}_total" if family.type == "counter" else family.name
            row = re.search(rf"^\| `{name}` \| {family.type} \| (.*?) \|", rows, re.MULTILINE)
            assert row is not None, name
            assert re.findall(r"`([a-z_]+)`", row[1]) == list(collector._labelnames), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_no_metric_that_does_not_exist(page: Path) -> None:
    known = _metrics() | _NO_METRICS | {f"{code}" for code in problems.ANSWERS}
    assert set(_METRIC.findall(_text(page))) - known == set()


def test_every_refusal_of_the_receiver_is_documented_with_its_status() -> None:
    page = _text(DOCS / "receiving.md")
    for code, (status, _) in problems.ANSWERS.items():
        section = next((part for part in page.split("\n### ") if f"| `{code}` |" in part), "")
        row = next((line for line in section.splitlines() if line.startswith(f"| `{code}` |")), "")
        assert f"| {status} |" in row or section.splitlines()[0].endswith(f": {status}"), code


def test_no_refusal_is_documented_that_does_not_exist() -> None:
    documented = re.findall(
        r"^\| `([a-z_]+)` \|", _text(DOCS / "receiving.md").partition("### The caller")[2], re.MULTILINE
    )
    assert sorted(documented) == sorted(problems.ANSWERS)


def test_every_scheme_of_verification_has_its_row() -> None:
    page = _text(DOCS / "receiving.md")
    assert [scheme for scheme in get_args(Scheme) if f"\n| `{scheme}` |" not in page] == []


def test_every_outcome_and_reason_of_a_try_is_documented() -> None:
    page = _text(DOCS / "delivering.md")
    reasons = {
        *get_args(outcome.UnreachableReason),
        *get_args(outcome.UnacknowledgedReason),
        *get_args(outcome.ItemReason),
        *get_args(DeniedReason),
        *get_args(outcome.UnsentReason),
        *(outcome.TimedOut(phase=phase).reason for phase in ("connect", "response")),
    }
    assert [reason for reason in sorted(reasons) if f"\n| `{reason}` |" not in page] == []
    assert [kind.name for kind in get_args(outcome.Outcome) if f"`{kind.name}`" not in page] == []
