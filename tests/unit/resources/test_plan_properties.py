"""Whatever people do to their manifests, one after the other: what must hold of every plan."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store.rows import Configuration

NAMESPACES = ("shop", "infra")
BROKEN, ABSENT = "broken", "absent"
SCHEMES = [
    {"none": {}},
    {"github": {"signingKeyRef": {"name": "k"}}},
    {"stripe": {"signingKeyRef": {"name": "k"}}},
    {"standardWebhooks": {"signingKeyRef": {"name": "k"}}},
    {"basic": {"secretRef": {"name": "s"}}},
    {"bearer": {"secretRef": {"name": "s", "keys": ["a"]}}},
]
KEYS = [
    {"algorithm": "HMAC-SHA256", "source": "Secret", "secretRef": {"name": "s"}},
    {"algorithm": "HMAC-SHA256", "source": "Generate"},
    {"algorithm": "HMAC-SHA512", "source": "Generate"},
    {"algorithm": "Ed25519", "source": "Generate"},
    {"algorithm": "Ed25519", "source": "Generate", "rotation": {"period": "24h", "overlap": "3h"}},
    {"algorithm": "HMAC-SHA256", "source": "Generate", "rotation": {"period": "48h", "overlap": "3h"}},
]
DESTINATION = st.fixed_dictionaries(
    {"name": st.sampled_from(["x", "y"]), "url": st.sampled_from(["https://a.example", "http://b.example"])},
    optional={"signingKeyRef": st.just({"name": "k"}), "retryPolicyRef": st.just({"name": "p"})},
)
ENDPOINT = st.fixed_dictionaries(
    {
        "verification": st.sampled_from(SCHEMES),
        "destinations": st.lists(DESTINATION, max_size=2, unique_by=lambda one: one["name"]),
    },
    optional={
        "relayRef": st.sampled_from([{"name": "r"}, {"name": "r", "namespace": "infra"}]),
        "suspend": st.booleans(),
    },
)
RELAY = st.fixed_dictionaries(
    {},
    optional={
        "egress": st.just({"allowHTTP": True}),
        "allowedNamespaces": st.sampled_from([{"from": "All"}, {"from": "Same"}]),
    },
)
LOG = st.fixed_dictionaries(
    {}, optional={"origin": st.sampled_from(["log.a", "log.b"]), "signingKeyRef": st.just({"name": "k"})}
)
SPECS = {
    ("Relay", "r"): RELAY,
    ("WebhookEndpoint", "e"): ENDPOINT,
    ("WebhookEndpoint", "f"): ENDPOINT,
    ("SigningKey", "k"): st.sampled_from(KEYS),
    ("RetryPolicy", "p"): st.just({}),
    ("AttestationLog", "l"): LOG,
    ("Secret", "s"): st.dictionaries(
        st.sampled_from(["a", "b", "username", "password"]),
        st.sampled_from(["u:p", "whsec_MTIz", "whsec_!", ""]),
        max_size=4,
    ),
}
DIRECTORY = st.fixed_dictionaries(
    {
        (kind, namespace, name): st.one_of(st.sampled_from([BROKEN, ABSENT]), spec)
        for (kind, name), spec in SPECS.items()
        for namespace in NAMESPACES
    }
)
STEP = st.tuples(DIRECTORY, st.integers(0, 100), st.booleans())


def _read(directory):
    """Return resources and broken identities, as a reader of files would."""
    resources, broken = [], []
    for (kind, namespace, name), spec in directory.items():
        if spec == ABSENT:
            continue
        core = kind == "Secret"
        document = {
            "apiVersion": "v1" if core else "kapsel.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
        }
        body = {} if spec == BROKEN else {"stringData" if core else "spec": spec}
        parsed = parse(document | body | ({"mistake": 1} if spec == BROKEN else {}))
        if isinstance(parsed, list):
            broken.append(parsed[0].resource)
        else:
            resources.append(parsed)
    return resources, broken


def _check_references(configuration):
    keys = {(row.namespace, row.name) for row in configuration.keys}
    endpoints = {row.id: row for row in configuration.endpoints}
    assert len(endpoints) == len(configuration.endpoints)
    assert {row.endpoint_id for row in configuration.destinations} <= endpoints.keys()
    needed = {
        (row.namespace, row.verification.key_name) for row in configuration.endpoints if row.verification.key_name
    }
    needed |= {(endpoints[row.endpoint_id].namespace, row.key_name) for row in configuration.destinations}
    if configuration.log is not None:
        needed.add((configuration.log.namespace, configuration.log.key_name))
    assert needed <= keys
    ids = [row.id for row in (*configuration.endpoints, *configuration.destinations, *configuration.keys)]
    assert len(set(ids)) == len(ids)
    versions = [(row.namespace, row.name, row.version) for row in configuration.keys]
    assert len(set(versions)) == len(versions)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEP, min_size=1, max_size=4))
def test_every_plan_is_whole_and_planning_again_changes_nothing(steps, now, entropy, other_entropy):
    configuration = Configuration()
    for directory, hours, complete in steps:
        now += timedelta(hours=hours)
        resources, broken = _read(directory)
        options = {"broken": broken, "complete": complete, "now": now}
        planned = plan(resources, existing=configuration, entropy=entropy, **options)
        _check_references(planned.configuration)
        assert plan(resources, existing=planned.configuration, entropy=other_entropy, **options) == planned
        configuration = planned.configuration


@settings(max_examples=30, deadline=None)
@given(directory=DIRECTORY, seed=st.text(max_size=3))
def test_the_same_input_gives_the_same_plan(directory, seed, now):
    resources, broken = _read(directory)

    def draw(size: int) -> bytes:
        nonlocal count
        count += 1
        return f"{seed}{count}".encode().ljust(size, b"\0")[:size]

    plans = []
    for _ in range(2):
        count = 0
        plans.append(plan(resources, existing=Configuration(), broken=broken, now=now, entropy=draw))

    assert plans[0] == plans[1]


@settings(max_examples=40, deadline=None)
@given(first=DIRECTORY, second=DIRECTORY)
def test_what_is_still_declared_never_loses_its_id(first, second, now, entropy):
    resources, broken = _read(first)
    before = plan(resources, existing=Configuration(), broken=broken, now=now, entropy=entropy).configuration
    resources, broken = _read(second)
    after = plan(resources, existing=before, broken=broken, now=now, entropy=entropy).configuration

    ids = {(row.namespace, row.name): row.id for row in before.endpoints}
    for row in after.endpoints:
        assert row.id == ids.get((row.namespace, row.name), row.id)
