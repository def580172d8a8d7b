"""All objects of a Relay: which there are, in which order, and what holds for each."""

import itertools
import re
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest

from kapsel_operator.manifests.build import build, held, key_of, problems
from kapsel_operator.manifests.facts import Capability, Database, Image
from kapsel_operator.manifests.names import label_value, object_name

LABEL = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
SERVICE_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")

relay_names = st.from_regex(
    r"[a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?){0,2}", fullmatch=True
)
tags = st.from_regex(r"[a-zA-Z0-9_][-._a-zA-Z0-9]{0,127}", fullmatch=True)
workloads = st.one_of(
    st.builds(lambda n: {"replicas": n}, st.integers(0, 4)),
    st.just({"autoscaling": {"minReplicas": 1, "maxReplicas": 3}}),
    st.just({"autoscaling": {"type": "KEDA", "maxReplicas": 3}}),
)
databases = st.sampled_from([{"secretRef": {"name": "database"}}, {"cnpgClusterRef": {"name": "pg"}}, {"embedded": {}}])
exposures = st.sampled_from(
    [
        {"type": "ClusterIP"},
        {"type": "LoadBalancer"},
        {"type": "Ingress", "hostname": "hooks.example.com"},
        {"type": "HTTPRoute", "hostname": "hooks.example.com", "gatewayRef": {"name": "public"}},
    ]
)
specs = st.fixed_dictionaries(
    {"receiver": workloads, "deliverer": workloads, "console": workloads, "database": databases, "exposure": exposures}
)
known = st.fixed_dictionaries(
    {
        "schema": st.sampled_from(["Current", "Outdated", "Newer", "Unknown"]),
        "sealing_key_digest": st.sampled_from([None, "s1"]),
        "database": st.sampled_from([None, Database(secret="database", key="uri", digest="d1")]),
        "capabilities": st.sets(st.sampled_from(list(Capability))).map(frozenset),
        "image": tags.map(lambda tag: Image(repository="localhost/kapsel", version=tag)),
    }
)


def every_mapping(value: Any) -> Any:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from every_mapping(one)


@hypothesis.given(name=relay_names, spec=specs, around=known)
@hypothesis.settings(deadline=None, max_examples=150)
def test_whatever_a_relay_is_called_its_objects_have_names_and_labels_that_a_server_takes(
    relay: Any, facts: Any, name: str, spec: dict[str, Any], around: dict[str, Any]
) -> None:
    made = build(relay(spec, name=name), facts(**around))
    for manifest in made:
        metadata = manifest["metadata"]
        assert SERVICE_NAME.fullmatch(metadata["name"])
        assert len(metadata["name"]) <= (52 if manifest["kind"] == "StatefulSet" else 63)
        for mapping in every_mapping(manifest):
            for labels in (mapping.get("labels"), mapping.get("matchLabels")):
                assert all(LABEL.fullmatch(value) and len(value) <= 63 for value in (labels or {}).values())
    assert len({key_of(manifest) for manifest in made}) == len(made)


@hypothesis.given(spec=specs, around=known)
@hypothesis.settings(deadline=None, max_examples=100)
def test_the_same_facts_give_the_same_objects_and_nothing_is_both_applied_and_held(
    relay: Any, facts: Any, spec: dict[str, Any], around: dict[str, Any]
) -> None:
    one, surroundings = relay(spec), facts(**around)
    assert build(one, surroundings) == build(relay(dict(reversed(spec.items()))), surroundings)
    assert not held(one, surroundings) & {key_of(manifest) for manifest in build(one, surroundings)}


@hypothesis.given(spec=specs, around=known)
@hypothesis.settings(deadline=None, max_examples=100)
def test_a_workload_never_vanishes_because_something_is_missing(
    relay: Any, facts: Any, spec: dict[str, Any], around: dict[str, Any]
) -> None:
    """What an owner's cluster has is deleted only when the Relay asks for it no more."""
    one = relay(spec)
    complete = facts(**{**around, "schema": "Current", "sealing_key_digest": "s1", "database": DATABASE})
    lasting = {key_of(manifest) for manifest in build(one, complete)}
    now = facts(**around)
    kept = {key_of(manifest) for manifest in build(one, now)} | held(one, now)
    assert {key for key in lasting if key.kind in ("Deployment", "StatefulSet")} <= kept


DATABASE = Database(secret="database", key="uri", digest="d1")


@pytest.mark.parametrize("name", ["a" * 253, "a-" * 100 + "a", "4-shops", "shop.eu.example", "a" * 53 + "-b"])
def test_a_name_that_no_service_could_have_is_shortened_and_stays_readable(name: str) -> None:
    for suffix, longest in (("receiver", 63), ("migrate-01234567", 63), ("postgres", 52)):
        made = object_name(name, suffix, longest)
        assert len(made) <= longest
        assert SERVICE_NAME.fullmatch(made)
        assert made.endswith(suffix)
        assert made.removeprefix("r").startswith(name[:4].partition(".")[0])


@hypothesis.given(first=relay_names, second=relay_names)
def test_objects_of_two_relays_do_not_have_the_same_name(first: str, second: str) -> None:
    hypothesis.assume(first != second)
    for suffix in ("receiver", "postgres"):
        assert object_name(first, suffix) != object_name(second, suffix)
        assert label_value(first) != label_value(second)


def test_objects_are_called_after_the_relay_and_their_component(relay: Any, facts: Any) -> None:
    made = build(relay({"database": {"embedded": {}}}), facts())
    names = {(one["kind"], one["metadata"]["name"]) for one in made}
    for component in ("receiver", "deliverer", "console"):
        assert {(kind, f"main-{component}") for kind in ("Deployment", "Service", "ServiceAccount")} <= names
    assert ("StatefulSet", "main-postgres") in names


def test_what_pods_need_is_applied_before_the_pods(relay: Any, facts: Any) -> None:
    made = [one["kind"] for one in build(relay({"database": {"embedded": {}}}), facts())]
    order = ["ServiceAccount", "Role", "RoleBinding", "NetworkPolicy", "Service", "StatefulSet", "Deployment"]
    assert [kind for kind, _ in itertools.groupby(made) if kind in order] == order


def test_all_objects_belong_to_the_relay(shaped: Any) -> None:
    relay, facts = shaped
    for manifest in build(relay, facts):
        (owner,) = manifest["metadata"]["ownerReferences"]
        if manifest["metadata"]["namespace"] == relay.metadata.namespace:
            assert (owner["uid"], owner["controller"]) == (facts.owner_uid, True)
        else:
            assert owner["uid"] == facts.log.uid


@pytest.mark.parametrize("missing", [{"schema": "Outdated"}, {"schema": "Newer"}, {"schema": "Unknown"}])
def test_pods_of_a_new_version_wait_for_their_schema_and_the_old_ones_go_on(
    relay: Any, facts: Any, missing: dict[str, Any]
) -> None:
    one, now = relay({"database": {"secretRef": {"name": "database"}}}), facts(**missing)
    assert not [manifest for manifest in build(one, now) if manifest["kind"] == "Deployment"]
    assert {key.name for key in held(one, now) if key.kind == "Deployment"} == {
        "main-receiver",
        "main-deliverer",
        "main-console",
    }


def test_pods_that_work_keep_their_way_to_the_database_while_its_secret_is_gone(relay: Any, facts: Any) -> None:
    """As when a tool deletes the Secret and makes it anew with another password."""
    one, now = relay({"database": {"secretRef": {"name": "database"}}}), facts(database=None)
    before = {key_of(manifest): manifest for manifest in build(one, facts()) if manifest["kind"] == "NetworkPolicy"}
    assert before.keys() <= held(one, now)
    off = relay({"database": {"secretRef": {"name": "database"}}, "networkPolicy": "Disabled"})
    assert before.keys().isdisjoint({*held(off, now), *map(key_of, build(off, now))})


def test_a_migration_runs_only_when_the_database_says_that_it_is_needed(relay: Any, facts: Any) -> None:
    one = relay({"database": {"secretRef": {"name": "database"}}})
    jobs = {
        schema: [manifest for manifest in build(one, facts(schema=schema)) if manifest["kind"] == "Job"]
        for schema in ("Current", "Outdated", "Newer", "Unknown")
    }
    assert {schema for schema, found in jobs.items() if found} == {"Outdated"}
    assert key_of(jobs["Outdated"][0]) in held(one, facts(schema="Current"))


def test_another_image_or_another_database_is_another_migration(relay: Any, facts: Any) -> None:
    one = relay({"database": {"secretRef": {"name": "database"}}})

    def job(**known: Any) -> str:
        found = build(one, facts(schema="Outdated", **known))
        return next(str(manifest["metadata"]["name"]) for manifest in found if manifest["kind"] == "Job")

    other = Database(secret="database", key="uri", digest="another")
    assert len({job(), job(database=other), job(image=Image(repository="localhost/kapsel", version="0.2.0"))}) == 3
    assert job() == job(sealing_key_digest="another")


@pytest.mark.parametrize(
    "changed",
    [
        {"image": Image(repository="localhost/kapsel", version="0.1.0", pull_secrets=("mine",))},
        {"image": Image(repository="localhost/kapsel", version="0.1.0", pull_policy="Always")},
        {"database": Database(secret="renamed", key="uri", digest="0123456789abcdef", roles=True)},
        {"capabilities": frozenset(Capability)},
    ],
)
def test_a_migration_whose_pods_would_be_others_is_another_one_for_no_job_can_be_changed(
    relay: Any, facts: Any, changed: dict[str, Any]
) -> None:
    """As when its image cannot be pulled, and somebody adds the pull secret that was missing."""
    one = relay({"database": {"secretRef": {"name": "database"}}})
    before, after = (
        next(manifest for manifest in build(one, facts(schema="Outdated", **known)) if manifest["kind"] == "Job")
        for known in ({}, changed)
    )
    assert before["spec"]["template"] != after["spec"]["template"]
    assert before["metadata"]["name"] != after["metadata"]["name"]


def test_the_schema_becomes_the_operators_also_where_the_pods_stay_at_an_older_version(relay: Any, facts: Any) -> None:
    pinned = Image(repository="localhost/kapsel", version="0.1.0", operator_version="0.2.0")
    one = relay({"version": "0.1.0", "database": {"secretRef": {"name": "database"}}})

    def images(schema: str) -> set[str]:
        made = build(one, facts(image=pinned, schema=schema))
        pods = [manifest["spec"]["template"]["spec"] for manifest in made if "template" in manifest.get("spec", {})]
        return {container["image"] for spec in pods for container in spec["containers"]}

    assert images("Outdated") == {"localhost/kapsel:0.2.0"}
    assert images("Current") == {"localhost/kapsel:0.1.0"}


def test_without_the_api_of_others_the_rest_is_built_and_the_lack_is_told(relay: Any, facts: Any) -> None:
    spec = {
        "deliverer": {"autoscaling": {"type": "KEDA", "minReplicas": 3, "maxReplicas": 9}},
        "database": {"cnpgClusterRef": {"name": "pg"}},
        "exposure": {"type": "HTTPRoute", "hostname": "h.example.com", "gatewayRef": {"name": "public"}},
    }
    bare = facts(capabilities=frozenset())
    made = {key_of(one)[1:4:2]: one for one in build(relay(spec), bare)}
    assert not {"ScaledObject", "HTTPRoute"} & {kind for kind, _ in made}
    assert made["Deployment", "main-deliverer"]["spec"]["replicas"] == 3
    assert [(one.reason, one.field) for one in problems(relay(spec), bare)] == [
        ("KedaNotInstalled", "spec.deliverer.autoscaling.type"),
        ("GatewayNotInstalled", "spec.exposure.type"),
        ("CnpgNotInstalled", "spec.database.cnpgClusterRef"),
    ]
    assert problems(relay(spec), facts()) == ()


def test_network_policies_can_be_left_to_others(relay: Any, facts: Any) -> None:
    made = build(relay({"networkPolicy": "Disabled"}), facts())
    assert "NetworkPolicy" not in {one["kind"] for one in made}
