"""What people see of the resources with kubectl, and how they select them."""

import pytest
from kubernetes.aio import client as kubernetes_api
from onenode.control_plane import Cluster
from schema.requests import apply, complaints, path, send
from schema.samples import STATUSES, resource, sample

from kapsel_resources.crd import NAMES
from kapsel_resources.manifests import KINDS

pytestmark = pytest.mark.usefixtures("crds")

PAGES = {
    "Relay": """
NAME   READY   REASON                ENDPOINTS   UNHEALTHY   PENDING   OLDEST   URL                         AGE
main   False   DatabaseUnreachable   3           2           8241      3m12s    https://hooks.example.com   AGE
""",
    "WebhookEndpoint": """
NAME   READY   REASON     DELIVERING    SUCCESS   PENDING   OLDEST   URL                                            AGE
main   True    Accepted   CircuitOpen   12.4%     8123      41m      https://hooks.example.com/ingest/shop/orders   AGE
""",
    "RetryPolicy": """
NAME   TYPE          ATTEMPTS   MAX-AGE   USERS   READY   AGE
main   Exponential   12         72h       4       True    AGE
""",
    "SigningKey": """
NAME   READY   REASON     ALGORITHM   VERSION   ROTATES                AGE
main   True    Accepted   Ed25519     3         2026-03-01T12:00:00Z   AGE
""",
    "AttestationLog": """
NAME   READY   REASON     SIZE      PUBLISHED   CONSISTENT   ORIGIN                 AGE
main   True    Accepted   1893771   AGE         True         log.example.com/main   AGE
""",
    "Replay": """
NAME   COMPLETE   REASON    ENDPOINT   MATCHED   ENQUEUED   DELIVERED   FAILED   AGE
main   False      Running   orders     8123      6000       5110        12       AGE
""",
}


async def test_kubectl_get_kapsel_shows_every_kind_with_what_counts(
    api: kubernetes_api.ApiClient, control_plane: Cluster, namespace: str
) -> None:
    for kind in KINDS:
        assert complaints(await apply(api, namespace, sample(kind, "main"))) == []
    listed = control_plane.kubectl(
        "api-resources", "--categories=kapsel", "-o", "name"
    )  # reads anew what kubectl keeps
    assert len(listed.splitlines()) == len(KINDS)

    told = control_plane.kubectl("get", "kapsel", "-n", namespace)

    blocks = {block.splitlines()[1].partition(".")[0]: _ageless(block) for block in told.split("\n\n")}
    expected = {kind.lower(): _words(PAGES[kind]) for kind in KINDS}
    named = {kind: [[words[0].rpartition("/")[2], *words[1:]] for words in lines] for kind, lines in blocks.items()}
    assert named == expected


@pytest.mark.parametrize("kind", KINDS)
async def test_a_kind_goes_by_its_short_name_and_tells_more_when_asked(
    api: kubernetes_api.ApiClient, control_plane: Cluster, namespace: str, kind: str
) -> None:
    assert complaints(await apply(api, namespace, sample(kind, "main"))) == []

    short = control_plane.kubectl("get", NAMES[kind].short, "-n", namespace)
    wide = control_plane.kubectl("get", NAMES[kind].short, "-n", namespace, "-o", "wide")

    assert _ageless(short) == _words(PAGES[kind])
    assert "MESSAGE" in wide.splitlines()[0]
    assert "MESSAGE" not in short


@pytest.mark.parametrize("kind", KINDS)
async def test_a_status_is_kept_whole_and_leaves_the_generation_alone(
    api: kubernetes_api.ApiClient, namespace: str, kind: str
) -> None:
    assert complaints(await apply(api, namespace, sample(kind, "main"))) == []

    kept = await send(api, "GET", path(kind, namespace, "main"))

    assert kept["status"] == STATUSES[kind].document()
    assert kept["metadata"]["generation"] == 1
    assert type(STATUSES[kind]).model_validate(kept["status"]).document() == kept["status"]


@pytest.mark.parametrize(
    ("kind", "spec", "selector"),
    [
        ("WebhookEndpoint", {"relayRef": {"name": "special", "namespace": "hooks"}}, "spec.relayRef.name=special"),
        ("WebhookEndpoint", {"relayRef": {"name": "main", "namespace": "hooks"}}, "spec.relayRef.namespace=hooks"),
        ("WebhookEndpoint", {"suspend": True}, "spec.suspend=true"),
        ("SigningKey", {"algorithm": "HMAC-SHA512"}, "spec.algorithm=HMAC-SHA512"),
        ("SigningKey", {"source": "Secret", "secretRef": {"name": "s"}}, "spec.secretRef.name=s"),
        ("AttestationLog", {"relayRef": {"name": "special"}}, "spec.relayRef.name=special"),
        ("AttestationLog", {"signingKeyRef": {"name": "k"}}, "spec.signingKeyRef.name=k"),
        ("Replay", {"endpointRef": {"name": "special"}}, "spec.endpointRef.name=special"),
        ("Relay", {"version": "0.1.0"}, "spec.version=0.1.0"),
        ("Relay", {"database": {"cnpgClusterRef": {"name": "pg"}}}, "spec.database.cnpgClusterRef.name=pg"),
    ],
    ids=str,
)
async def test_resources_are_selected_by_their_fields(
    api: kubernetes_api.ApiClient, namespace: str, kind: str, spec: dict[str, object], selector: str
) -> None:
    for manifest in (resource(kind, "plain"), resource(kind, "special", **spec)):
        assert complaints(await apply(api, namespace, manifest)) == []

    found = await send(api, "GET", path(kind, namespace), fieldSelector=selector)

    assert [one["metadata"]["name"] for one in found["items"]] == ["special"]


async def test_a_condition_of_one_writer_survives_the_other(api: kubernetes_api.ApiClient, namespace: str) -> None:
    whole = sample("AttestationLog", "main")
    ready, consistent = whole["status"]["conditions"]
    operators = {**whole, "status": {"conditions": [ready], "origin": "log.example.com/main"}}
    attestors = {**whole, "status": {"conditions": [consistent], "fence": whole["status"]["fence"]}}
    assert complaints(await apply(api, namespace, operators, manager="kapsel-operator")) == []
    del attestors["spec"]
    assert complaints(await apply(api, namespace, attestors, manager="kapsel-attestor")) == []

    kept = await apply(api, namespace, operators, manager="kapsel-operator")

    assert [one["type"] for one in kept["status"]["conditions"]] == ["Ready", "LogConsistent"]
    assert kept["status"]["fence"] == whole["status"]["fence"]


def _words(page: str) -> list[list[str]]:
    return [line.split() for line in page.strip().splitlines()]


def _ageless(page: str) -> list[list[str]]:
    """Return the lines with every age, which depends on the hour, as AGE."""
    header, *lines = [line.split() for line in page.strip().splitlines()]
    ages = [index for index, title in enumerate(header) if title in ("AGE", "PUBLISHED")]
    return [header, *([("AGE" if index in ages else word) for index, word in enumerate(line)] for line in lines)]
