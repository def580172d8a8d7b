import json
from dataclasses import replace
from datetime import timedelta

import pytest

from kapsel_resources.kinds.model import Identity
from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store.key_backends import VaultKey
from kapsel_store.rows import Acknowledgement, Batch, Configuration, Ordering, Policy, RelayRow

EMPTY = Configuration()
ENDPOINT = Identity("WebhookEndpoint", "shop", "orders")


@pytest.fixture
def run(now, entropy):
    def run(*resources, existing=EMPTY, **options):
        return plan(resources, existing=existing, **{"now": now, "entropy": entropy, **options})

    return run


@pytest.fixture
def endpoint(resource):
    def endpoint(name="orders", namespace="shop", verification=None, destinations=({},), **spec):
        defaults = {"name": "billing", "url": "https://billing.example.com/"}
        return resource(
            "WebhookEndpoint",
            name,
            {
                "verification": verification or {"none": {}},
                "destinations": [defaults | one for one in destinations],
                **spec,
            },
            namespace,
        )

    return endpoint


@pytest.fixture
def key(resource):
    def key(name="k", secret="s", entries=None, algorithm="HMAC-SHA256"):
        reference = {"name": secret} | ({"keys": entries} if entries else {})
        return resource("SigningKey", name, {"algorithm": algorithm, "source": "Secret", "secretRef": reference})

    return key


def _versions(planned, name, namespace="shop"):
    return [row for row in planned.configuration.keys if (row.namespace, row.name) == (namespace, name)]


def _said(planned):
    return [(problem.reason, problem.field) for problem in planned.problems]


def _status(planned, identity):
    return next(status for status in planned.statuses if status.resource == identity)


# What comes out of good resources


def test_an_endpoint_alone_gets_a_relay_a_log_a_key_and_a_policy(run, endpoint):
    planned = run(endpoint())

    configuration = planned.configuration
    assert planned.problems == ()
    assert configuration.relay == RelayRow(namespace="default", name="main")
    assert configuration.log.origin == "kapsel.local/default/main"
    (row,) = configuration.destinations
    assert (row.key_name, row.policy) == ("endpoint/orders", Policy())
    assert row.endpoint_id == configuration.endpoints[0].id
    assert [key.algorithm for key in _versions(planned, "endpoint/orders")] == ["HMAC-SHA256"]
    (log_key,) = _versions(planned, configuration.log.key_name, "default")
    assert (log_key.algorithm, len(log_key.secret), len(log_key.public)) == ("Ed25519", 32, 32)


def test_planning_again_on_the_result_draws_nothing_and_changes_nothing(run, endpoint, no_entropy):
    planned = run(endpoint())

    again = run(endpoint(), existing=replace(planned.configuration, generation=7), entropy=no_entropy)

    assert again == planned


def test_the_order_of_the_resources_does_not_matter(run, endpoint, resource, secret, key, entropy):
    resources = [endpoint("a"), endpoint("b"), resource("Relay", "main"), secret("s", a="x"), key()]
    existing = run(*resources).configuration

    assert run(*resources, existing=existing) == run(*reversed(resources), existing=existing)


def test_nothing_at_all_is_a_relay_with_a_log(run):
    planned = run()

    assert planned.configuration.endpoints == ()
    assert planned.configuration.log is not None
    assert planned.statuses == ()


def test_references_are_resolved_into_the_rows(run, endpoint, resource, secret, key):
    planned = run(
        secret("s", one="text"),
        key(),
        resource("RetryPolicy", "fast", {"maxAttempts": 2}),
        endpoint(
            verification={"github": {"signingKeyRef": {"name": "k"}}},
            destinations=[{"signingKeyRef": {"name": "k"}, "retryPolicyRef": {"name": "fast"}}],
        ),
    )

    assert planned.problems == ()
    assert planned.configuration.endpoints[0].verification.key_name == "literal/k"
    (row,) = planned.configuration.destinations
    assert (row.key_name, row.policy.max_attempts) == ("standard/k", 2)


def test_the_retention_of_the_relay_holds_for_endpoints_that_say_nothing(run, endpoint, resource):
    planned = run(resource("Relay", "main", {"retention": "2h"}), endpoint("a"), endpoint("b", retention="5h"))

    assert [row.retention for row in planned.configuration.endpoints] == [timedelta(hours=2), timedelta(hours=5)]


def test_keys_of_acknowledgements_are_written_in_one_way_and_once_each(run, endpoint):
    text, digits = "whpk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", bytes(range(32)).hex()
    named = {"required": True, "publicKeys": [text, "ab" * 32, digits], "tolerance": "30s"}
    destinations = (
        {"name": "a", "acknowledgement": named},
        {"name": "b", "acknowledgement": {"wellKnown": {}}},
        {"name": "c"},
    )

    planned = run(endpoint(destinations=destinations))

    assert [row.acknowledgement for row in planned.configuration.destinations] == [
        Acknowledgement(required=True, public_keys=(digits, "ab" * 32), tolerance=timedelta(seconds=30)),
        Acknowledgement(),
        None,
    ]


def test_a_destination_goes_in_order_of_its_key_or_not_at_all(run, endpoint):
    ordering = {"type": "PerKey", "key": "event.body.customer"}
    destinations = (
        {"name": "a", "ordering": ordering},
        {"name": "b", "ordering": ordering | {"onExhausted": "Skip"}},
        {"name": "c", "ordering": {"type": "None"}},
        {"name": "d"},
    )

    planned = run(endpoint(destinations=destinations))

    assert [row.ordering for row in planned.configuration.destinations] == [
        Ordering(key="event.body.customer", on_exhausted="Block"),
        Ordering(key="event.body.customer", on_exhausted="Skip"),
        None,
        None,
    ]


def test_deliveries_go_together_as_declared_and_as_many_are_under_way_as_one_batch_has(run, endpoint):
    destinations = (
        {"name": "a", "batch": {}},
        {"name": "b", "batch": {"maxEvents": 2, "maxBytes": 2048, "interval": "1h"}},
        {"name": "c", "batch": {"maxEvents": 10}, "maxInFlight": 40},
        {"name": "d"},
    )

    planned = run(endpoint(destinations=destinations))

    assert planned.problems == ()
    assert [(row.batch, row.max_in_flight) for row in planned.configuration.destinations] == [
        (Batch(), 100),
        (Batch(max_events=2, max_bytes=2048, interval=timedelta(hours=1)), 32),
        (Batch(max_events=10), 40),
        (None, 32),
    ]


def test_a_relay_that_lets_fewer_be_under_way_than_a_batch_has_is_told(run, endpoint, resource):
    relay = resource("Relay", "main", {"defaults": {"maxInFlight": 20}})
    planned = run(relay, endpoint(destinations=[{"batch": {}}]))
    assert _said(planned) == [("BatchTooLarge", "spec.destinations[0].batch.maxEvents")]
    assert run(relay, endpoint(destinations=[{"batch": {}, "maxInFlight": 100}])).problems == ()
    assert run(relay, endpoint(destinations=[{"batch": {"maxEvents": 20}}])).problems == ()


def test_a_batch_that_goes_when_its_deliveries_are_over_is_told(run, endpoint, resource):
    relay = resource("Relay", "main", {"defaults": {"retry": {"maxAge": "5m"}}})
    planned = run(relay, endpoint(destinations=[{"batch": {"interval": "5m"}}]))
    assert _said(planned) == [("BatchTooSlow", "spec.destinations[0].batch.interval")]
    assert "after 5m" in str(planned.problems[0])
    assert run(relay, endpoint(destinations=[{"batch": {"interval": "4m59s"}}])).problems == ()
    assert run(endpoint(destinations=[{"batch": {"interval": "1h"}}])).problems == ()


def test_an_order_key_that_is_no_expression_is_told_where_it_stands(run, endpoint):
    keys = ("event.body.", "event.nothing", "size(event.body)", "true")
    for key in keys:
        planned = run(endpoint(destinations=[{"ordering": {"type": "PerKey", "key": key}}]))
        assert _said(planned) == [("ExpressionInvalid", "spec.destinations[0].ordering.key")], key


def test_an_endpoint_that_is_gone_leaves_with_its_key_and_comes_back_as_another(run, endpoint):
    first = run(endpoint()).configuration
    without = run(existing=first).configuration
    second = run(endpoint(), existing=without).configuration

    assert (without.endpoints, [row for row in without.keys if row.name == "endpoint/orders"]) == ((), [])
    assert second.endpoints[0].id != first.endpoints[0].id


def test_ids_stay_when_an_endpoint_changes(run, endpoint):
    first = run(endpoint()).configuration
    second = run(endpoint(suspend=True, destinations=[{"url": "https://other.example"}]), existing=first).configuration

    assert second.endpoints[0].suspend
    assert [row.id for row in second.endpoints] == [row.id for row in first.endpoints]
    assert [row.id for row in second.destinations] == [row.id for row in first.destinations]


# Keys


def test_the_use_decides_how_a_whsec_text_is_read(run, endpoint, secret, key):
    planned = run(
        secret("s", one="whsec_MTIz"),
        key(),
        endpoint("a", verification={"stripe": {"signingKeyRef": {"name": "k"}}}),
        endpoint("b", verification={"standardWebhooks": {"signingKeyRef": {"name": "k"}}}),
    )

    assert planned.problems == ()
    assert [row.secret for row in _versions(planned, "literal/k")] == [b"whsec_MTIz"]
    assert [row.secret for row in _versions(planned, "standard/k")] == [b"123"]


def test_every_entry_is_a_live_version_and_what_leaves_the_secret_is_dead(run, endpoint, secret, key):
    github = endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}})
    first = run(secret("s", a="old"), key(), github)
    both = run(secret("s", a="old", b="new"), key(), github, existing=first.configuration)
    after = run(secret("s", b="new"), key(), github, existing=both.configuration)

    versions = [[(row.version, row.secret) for row in _versions(one, "literal/k")] for one in (first, both, after)]
    assert versions == [[(1, b"old")], [(1, b"old"), (2, b"new")], [(2, b"new")]]
    assert all(row.not_after is None for row in _versions(both, "literal/k"))


def test_only_the_named_entries_are_live(run, endpoint, secret, key):
    planned = run(
        secret("s", a="1", b="2", c="3"),
        key(entries=["c", "a"]),
        endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}}),
    )

    assert [row.secret for row in _versions(planned, "literal/k")] == [b"3", b"1"]


def test_a_generated_key_is_made_even_if_nobody_uses_it_yet_and_rotates(run, resource, now):
    declared = resource(
        "SigningKey",
        "k",
        {"algorithm": "Ed25519", "source": "Generate", "rotation": {"period": "24h", "overlap": "2h"}},
    )
    first = run(declared)
    second = run(declared, existing=first.configuration, now=now + timedelta(hours=24))

    assert [row.version for row in _versions(first, "generated/k")] == [1, 2]
    assert [row.version for row in _versions(second, "generated/k")] == [1, 2, 3]


def test_a_key_that_changes_its_source_never_passes_for_the_old_one(run, resource, endpoint, secret, key):
    github = endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}})
    first = run(secret("s", a="leaked"), key(), github)
    generated = resource("SigningKey", "k", {"algorithm": "HMAC-SHA256", "source": "Generate"})
    second = run(generated, github, existing=first.configuration)

    assert second.configuration.endpoints[0].verification.key_name == "generated/k"
    assert b"leaked" not in [row.secret for row in second.configuration.keys]


def test_a_generated_key_that_changes_its_algorithm_is_made_anew(run, resource):
    def generated(algorithm):
        return resource("SigningKey", "k", {"algorithm": algorithm, "source": "Generate"})

    first = run(generated("HMAC-SHA256")).configuration
    second = run(generated("Ed25519"), existing=first)

    assert [(row.algorithm, len(row.public)) for row in _versions(second, "generated/k")] == [("Ed25519", 32)]


def test_two_entries_with_the_same_value_are_one_version(run, endpoint, secret, key):
    planned = run(
        secret("s", a="same", b="same"), key(), endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}})
    )

    assert len(_versions(planned, "literal/k")) == 1


def test_the_number_of_a_version_is_never_given_to_another_one_that_is_live(run, endpoint, secret, key):
    github = endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}})
    existing = EMPTY
    for entries in ({"a": "1", "b": "2"}, {"b": "2"}, {"b": "2", "c": "3"}):
        existing = run(secret("s", **entries), key(), github, existing=existing).configuration

    assert [(row.version, row.secret) for row in existing.keys if row.name == "literal/k"] == [(2, b"2"), (3, b"3")]


def test_the_order_of_paths_is_no_change(run, endpoint):
    first = run(endpoint(paths=["Name", "Id"])).configuration

    assert run(endpoint(paths=["Id", "Name"]), existing=first).configuration == first


@pytest.mark.parametrize(
    ("scheme", "entries", "keys", "name", "secrets"),
    [
        ("basic", {"username": "u", "password": "p"}, None, "basic/s", [b"u:p"]),
        ("basic", {"username": "u\n", "password": "p\n"}, None, "basic/s", [b"u:p"]),
        ("basic", {"a": "u:p", "b": "v:q"}, None, "basic/s", [b"u:p", b"v:q"]),
        ("basic", {"a": "u:p", "b": "v:q"}, ["b"], "basic/s/b", [b"v:q"]),
        ("bearer", {"a": "t1", "b": "t2"}, None, "bearer/s", [b"t1", b"t2"]),
        ("bearer", {"a": "t1", "b": "t2"}, ["b", "a"], "bearer/s/b,a", [b"t2", b"t1"]),
    ],
)
def test_credentials_come_from_a_secret(run, endpoint, secret, scheme, entries, keys, name, secrets):
    reference = {"name": "s"} | ({"keys": keys} if keys else {})

    planned = run(secret("s", **entries), endpoint(verification={scheme: {"secretRef": reference}}))

    assert planned.problems == ()
    assert planned.configuration.endpoints[0].verification.key_name == name
    assert [row.secret for row in _versions(planned, name)] == secrets


@pytest.mark.parametrize(
    ("entries", "reason"),
    [(None, "SecretNotFound"), ({}, "SecretEntryNotFound"), ({"a": "no colon"}, "InvalidKey")],
)
def test_credentials_that_are_missing_or_wrong_are_a_problem_of_the_endpoint(run, endpoint, secret, entries, reason):
    secrets = [] if entries is None else [secret("s", **entries)]

    planned = run(*secrets, endpoint(verification={"basic": {"secretRef": {"name": "s"}}}))

    assert _said(planned) == [(reason, "spec.verification.basic.secretRef")]
    assert planned.configuration.endpoints == ()


@pytest.mark.parametrize(
    ("algorithm", "verification", "is_fine"),
    [
        ("HMAC-SHA256", {"github": {}}, True),
        ("HMAC-SHA512", {"github": {}}, False),
        ("Ed25519", {"stripe": {}}, False),
        ("Ed25519", {"standardWebhooks": {}}, True),
        ("HMAC-SHA512", {"standardWebhooks": {}}, False),
        ("HMAC-SHA512", {"hmac": {"header": "X-S", "algorithm": "sha512"}}, True),
        ("HMAC-SHA256", {"hmac": {"header": "X-S", "algorithm": "sha512"}}, False),
        ("HMAC-SHA256", {"hmac": {"header": "X-S", "algorithm": "sha1"}}, True),
    ],
)
def test_a_key_must_be_of_the_algorithm_of_its_use(run, endpoint, resource, algorithm, verification, is_fine):
    ((scheme, member),) = verification.items()

    planned = run(
        resource("SigningKey", "k", {"algorithm": algorithm, "source": "Generate"}),
        endpoint(verification={scheme: {"signingKeyRef": {"name": "k"}, **member}}),
    )

    expected = [] if is_fine else [("WrongAlgorithm", f"spec.verification.{scheme}.signingKeyRef")]
    assert _said(planned) == expected


def test_a_public_key_verifies_and_cannot_sign(run, endpoint, secret, key):
    public = "whpk_" + "A" * 43 + "="
    planned = run(
        secret("s", a=public),
        key(algorithm="Ed25519"),
        endpoint("a", verification={"standardWebhooks": {"signingKeyRef": {"name": "k"}}}),
        endpoint("b", destinations=[{"signingKeyRef": {"name": "k"}}]),
    )

    assert [row.name for row in planned.configuration.endpoints] == ["a"]
    assert _said(planned) == [("PublicKeyOnly", "spec.destinations[0].signingKeyRef")]


@pytest.mark.parametrize(
    ("source", "wrong", "allowed"),
    [
        ("evnt.body.action == 'created'", "there is no evnt (character 1)", "event, with id, type, endpoint"),
        ("event.bdy == 1", "there is no event.bdy (character 7)", "event.body"),
        ("event.body.action ==", "the expression ends too early (character 21)", "a CEL expression"),
        ("size(event.body)", "the expression gives a number", "one that gives true or false"),
        ("[1]" + ".map(x, x + x)" * 60 + " == [1]", "too much work", "fewer"),
    ],
)
def test_a_filter_that_can_never_work_is_told_with_its_place_and_stops_no_other_endpoint(
    run, endpoint, source, wrong, allowed
):
    planned = run(endpoint("a", destinations=[{"filter": source}]), endpoint("b", destinations=[{"filter": "true"}]))

    assert _said(planned) == [("ExpressionInvalid", "spec.destinations[0].filter")]
    assert wrong in planned.problems[0].wrong
    assert allowed in planned.problems[0].allowed
    assert [row.name for row in planned.configuration.endpoints] == ["b"]
    assert [row.filter for row in planned.configuration.destinations] == ["true"]


# Problems: what keeps running, and what is said


@pytest.mark.parametrize(
    ("destination", "reason", "field"),
    [
        ({"retryPolicyRef": {"name": "absent"}}, "RetryPolicyNotFound", "spec.destinations[0].retryPolicyRef"),
        ({"signingKeyRef": {"name": "absent"}}, "SigningKeyNotFound", "spec.destinations[0].signingKeyRef"),
        ({"url": "http://billing.example.com"}, "PlainHTTP", "spec.destinations[0].url"),
        ({"url": "https://10.20.3.4/"}, "AddressDenied", "spec.destinations[0].url"),
        ({"url": "https://1.2.3.4.5/"}, "UrlInvalid", "spec.destinations[0].url"),
    ],
)
def test_an_endpoint_with_a_problem_keeps_its_last_good_rows(run, endpoint, destination, reason, field):
    good = run(endpoint(), endpoint("other")).configuration

    planned = run(endpoint(destinations=[destination]), endpoint("other", suspend=True), existing=good)

    assert _said(planned) == [(reason, field)]
    other, orders = planned.configuration.endpoints[1], planned.configuration.endpoints[0]
    assert (orders.name, orders) == ("orders", good.endpoints[0])
    assert other.suspend
    assert planned.configuration.destinations[0] == good.destinations[0]
    assert _status(planned, ENDPOINT).stalled
    assert _status(planned, ENDPOINT).message.endswith("what was good of it stays in force")


def test_an_endpoint_that_never_was_good_is_left_out_with_its_key(run, endpoint):
    planned = run(endpoint(destinations=[{"retryPolicyRef": {"name": "absent"}}]))

    assert planned.configuration.endpoints == planned.configuration.destinations == ()
    assert _versions(planned, "endpoint/orders") == []
    assert _status(planned, ENDPOINT).message.endswith("it is not in force")


def test_all_problems_of_an_endpoint_are_told_at_once(run, endpoint):
    planned = run(
        endpoint(
            verification={"github": {"signingKeyRef": {"name": "a"}}},
            destinations=[{"signingKeyRef": {"name": "b"}, "retryPolicyRef": {"name": "c"}, "url": "http://x.example"}],
        )
    )

    assert len(planned.problems) == 4


def test_a_missing_name_is_answered_with_the_nearest_one(run, endpoint, resource):
    planned = run(
        resource("RetryPolicy", "patient"),
        resource("RetryPolicy", "other"),
        endpoint(destinations=[{"retryPolicyRef": {"name": "pateint"}}]),
    )

    assert [problem.allowed for problem in planned.problems] == ["did you mean patient? other, patient"]


def test_a_key_whose_secret_is_gone_keeps_its_versions_and_only_the_key_stalls(run, endpoint, secret, key):
    github = endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}})
    good = run(secret("s", a="x"), key(), github).configuration

    planned = run(key(), github, existing=good)

    assert planned.configuration == good
    assert _said(planned) == [("SecretNotFound", "spec.secretRef")]
    assert not _status(planned, ENDPOINT).stalled
    assert _status(planned, Identity("SigningKey", "shop", "k")).stalled


def test_a_key_that_never_had_a_version_stalls_what_needs_it(run, endpoint, key):
    planned = run(key(), endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}}))

    assert sorted(_said(planned)) == [
        ("SecretNotFound", "spec.secretRef"),
        ("SigningKeyNotReady", "spec.verification.github.signingKeyRef"),
    ]


@pytest.mark.parametrize(
    ("entries", "named", "reason"),
    [
        ({"a": "x"}, ["b"], "SecretEntryNotFound"),
        ({}, None, "SecretEntryNotFound"),
        ({"a": ""}, None, "InvalidKey"),
    ],
)
def test_a_secret_that_gives_no_key_is_a_problem_of_the_signing_key(run, secret, key, entries, named, reason):
    planned = run(secret("s", **entries), key(entries=named))

    assert _said(planned) == [(reason, "spec.secretRef")]


@pytest.mark.parametrize("left", [{"b": "good"}, {"b": "good", "c": ""}])
def test_a_revoked_key_is_dead_even_if_something_is_wrong_with_the_rest(run, endpoint, secret, key, left):
    github = endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}})
    named = key(entries=["a", "b"]) if "c" not in left else key()
    good = run(secret("s", a="leaked", b="good"), named, github).configuration

    planned = run(secret("s", **left), named, github, existing=good)

    assert [row.secret for row in _versions(planned, "literal/k")] == [b"good"]
    assert [problem.resource.kind for problem in planned.problems] == ["SigningKey"]


def test_a_wrong_whsec_text_is_a_problem_only_where_it_must_be_decoded(run, endpoint, secret, key):
    stripe = endpoint("a", verification={"stripe": {"signingKeyRef": {"name": "k"}}})
    standard = endpoint("b", verification={"standardWebhooks": {"signingKeyRef": {"name": "k"}}})

    assert _said(run(secret("s", a="whsec_!"), key(), stripe)) == []
    assert ("InvalidKey", "spec.secretRef") in _said(run(secret("s", a="whsec_!"), key(), standard))


def test_a_deleted_key_goes_on_for_the_endpoint_that_still_names_it(run, endpoint, secret, key):
    github = endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}})
    good = run(secret("s", a="x"), key(), github).configuration

    planned = run(github, existing=good)

    assert planned.configuration == good
    assert _said(planned) == [("SigningKeyNotFound", "spec.verification.github.signingKeyRef")]


def test_resources_whose_manifest_is_broken_keep_what_they_had(run, endpoint, resource, secret, key):
    generated = resource("SigningKey", "g", {"algorithm": "Ed25519", "source": "Generate"})
    log = resource("AttestationLog", "l", {"origin": "log.example/a"})
    resources = [
        secret("s", a="x"),
        key(),
        generated,
        log,
        endpoint(verification={"github": {"signingKeyRef": {"name": "k"}}}),
    ]
    good = run(*resources).configuration
    broken = [one.identity for one in resources]

    planned = run(existing=good, broken=broken)

    assert planned.configuration == good
    assert {status.reason for status in planned.statuses} == {"InvalidManifest"}


def test_what_a_broken_manifest_is_needed_for_says_so(run, endpoint, resource):
    policy = resource("RetryPolicy", "p")
    named = endpoint(destinations=[{"retryPolicyRef": {"name": "p"}}])
    good = run(policy, named).configuration

    planned = run(named, existing=good, broken=[policy.identity])

    assert planned.configuration == good
    assert _said(planned) == [("RetryPolicyNotReadable", "spec.destinations[0].retryPolicyRef")]


def test_nothing_is_removed_while_there_may_be_more_than_was_read(run, endpoint, resource):
    generated = resource("SigningKey", "g", {"algorithm": "Ed25519", "source": "Generate"})
    good = run(resource("Relay", "main"), generated, endpoint(), endpoint("b")).configuration

    assert run(existing=good, complete=False).configuration == good
    planned = run(resource("Relay", "main"), endpoint("b", suspend=True), existing=good, complete=False).configuration
    assert [(row.name, row.suspend) for row in planned.endpoints] == [("b", True), ("orders", False)]
    assert planned.keys == good.keys


def test_a_resource_that_is_declared_twice_counts_once(run, endpoint):
    planned = run(endpoint(), endpoint(suspend=True))

    assert not planned.configuration.endpoints[0].suspend
    assert _said(planned) == [("DeclaredTwice", "metadata.name")]


# Relays


def test_several_relays_need_a_name_and_nothing_changes_without_one(run, endpoint, resource):
    relays = [resource("Relay", "a"), resource("Relay", "b")]
    good = run(endpoint()).configuration

    planned = run(*relays, endpoint(suspend=True), existing=good)

    assert planned.configuration == good
    assert [(problem.reason, problem.allowed) for problem in planned.problems] == [
        ("RelayAmbiguous", "name one: shop/a, shop/b")
    ]


def test_each_relay_carries_its_own_endpoints(run, endpoint, resource):
    resources = [
        resource("Relay", "a"),
        resource("Relay", "b"),
        endpoint("one", relayRef={"name": "a"}),
        endpoint("two", relayRef={"name": "b"}),
        endpoint("none"),
        endpoint("lost", relayRef={"name": "c"}),
    ]

    planned = run(*resources, relay=("shop", "a"))

    assert [row.name for row in planned.configuration.endpoints] == ["one"]
    assert planned.configuration.log.origin == "kapsel.local/shop/a"
    accepted = [status.resource.name for status in planned.statuses if status.reason == "Accepted"]
    assert accepted == ["a", "one"]
    assert sorted((problem.resource.name, problem.reason) for problem in planned.problems) == [
        ("lost", "RelayNotFound"),
        ("none", "RelayAmbiguous"),
    ]


def test_a_relay_that_is_not_there_is_a_problem(run, resource):
    planned = run(resource("Relay", "a"), relay=("shop", "b"))

    assert [problem.reason for problem in planned.problems] == ["RelayNotFound"]


def test_who_names_no_relay_is_told_of_those_that_are_open_to_it_and_of_no_others(run, endpoint, resource):
    relays = [
        resource("Relay", "main", {"allowedNamespaces": {"from": "All"}}, namespace="infra"),
        resource("Relay", "closed", namespace="secret"),
    ]

    planned = run(*relays, endpoint("lost", relayRef={"name": "nope"}), relay=("infra", "main"))

    assert [problem.allowed for problem in planned.problems] == ["infra/main"]


def test_a_broken_relay_changes_nothing(run, endpoint, resource):
    relay = resource("Relay", "main", {"egress": {"allowHTTP": True}})
    good = run(relay, endpoint()).configuration

    assert run(endpoint(suspend=True), existing=good, broken=[relay.identity]).configuration == good


@pytest.mark.parametrize(
    ("allowed", "labels", "carried"),
    [
        (None, {}, False),
        ({"from": "Same"}, {}, False),
        ({"from": "All"}, {}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "shop"}}}, {"team": "shop"}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "shop"}}}, {"team": "other"}, False),
        ({"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "shop"}}}, {}, True),
    ],
)
@pytest.mark.parametrize("relay_ref", [{}, {"relayRef": {"name": "main", "namespace": "infra"}}])
def test_the_relay_decides_which_namespaces_may_use_it(run, endpoint, resource, allowed, labels, carried, relay_ref):
    relay = resource("Relay", "main", {"allowedNamespaces": allowed} if allowed else {}, namespace="infra")
    namespace = parse({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": labels}})

    planned = run(relay, namespace, endpoint(**relay_ref), endpoint("own", namespace="infra"))

    names = [row.name for row in planned.configuration.endpoints]
    assert names == (["own", "orders"] if carried else ["own"])
    assert _said(planned) == ([] if carried else [("NotAllowed", "spec.relayRef")])


def test_a_permission_that_is_withdrawn_is_not_kept(run, endpoint, resource):
    open_to_all = resource("Relay", "main", {"allowedNamespaces": {"from": "All"}}, namespace="infra")
    closed = resource("Relay", "main", {}, namespace="infra")
    good = run(open_to_all, endpoint()).configuration

    assert run(closed, endpoint(), existing=good).configuration.endpoints == ()


def test_egress_rules_reach_the_row(run, resource):
    relay = resource("Relay", "main", {"egress": {"allowedCIDRs": ["10.0.0.0/8"], "allowHTTP": True}})

    row = run(relay).configuration.relay

    assert (row.namespace, row.name, row.allowed_cidrs, row.allow_http) == ("shop", "main", ("10.0.0.0/8",), True)


# Logs


def test_a_declared_log_is_the_log(run, resource):
    log = resource("AttestationLog", "l", {"origin": "log.example/a", "publication": {"interval": "1s", "pending": 5}})

    planned = run(log)

    row = planned.configuration.log
    assert (row.namespace, row.name, row.origin, row.key_name) == ("shop", "l", "log.example/a", "log/log.example/a")
    assert (row.publish_interval, row.publish_pending) == (timedelta(seconds=1), 5)
    assert len(_versions(planned, "log/log.example/a")) == 1


def test_the_key_of_an_origin_outlives_its_use(run, resource):
    def log(origin):
        return resource("AttestationLog", "l", {"origin": origin})

    first = run(log("log.example/a")).configuration
    second = run(log("log.example/b"), existing=first).configuration
    third = run(log("log.example/a"), existing=second)

    (before,) = [row for row in first.keys if row.name == "log/log.example/a"]
    assert _versions(third, "log/log.example/a") == [before]
    assert second.log.key_name != first.log.key_name


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        (None, "SigningKeyNotFound"),
        ({"algorithm": "HMAC-SHA256", "source": "Generate"}, "WrongAlgorithm"),
        ({"algorithm": "Ed25519", "source": "Secret", "secretRef": {"name": "mixed"}}, "SigningKeyUnfit"),
        ({"algorithm": "Ed25519", "source": "Secret", "secretRef": {"name": "public"}}, "SigningKeyUnfit"),
        ({"algorithm": "Ed25519", "source": "Secret", "secretRef": {"name": "absent"}}, "SigningKeyNotReady"),
    ],
)
def test_a_log_needs_a_key_that_can_sign_and_keeps_the_one_it_has(run, resource, secret, spec, reason):
    public = "whpk_" + "A" * 43 + "="
    secrets = [secret("mixed", a=public, b="B" * 42 + "A="), secret("public", a=public)]
    good = run(resource("AttestationLog", "l", {"origin": "log.example/a"})).configuration
    named = resource("AttestationLog", "l", {"origin": "log.example/b", "signingKeyRef": {"name": "k"}})
    keys = [] if spec is None else [resource("SigningKey", "k", spec)]

    planned = run(*secrets, *keys, named, existing=good)

    assert (reason, "spec.signingKeyRef") in _said(planned)
    assert planned.configuration.log == good.log
    assert len(_versions(planned, "log/log.example/a")) == 1


def test_a_log_is_dated_by_two_of_the_calendars_that_it_names_unless_it_says_otherwise(run, resource):
    def anchoring(**spec):
        return run(resource("AttestationLog", "l", spec)).configuration.log.anchoring

    assert anchoring() is None
    one, two, three = (f"https://{name}.example.com" for name in "abc")
    assert anchoring(anchoring={"calendars": [one]}).minimum == 1
    three_of_them = anchoring(anchoring={"calendars": [one, two, three], "interval": "30m", "timeout": "3s"})
    assert (three_of_them.calendars, three_of_them.minimum) == ((one, two, three), 2)
    assert (three_of_them.interval, three_of_them.timeout) == (timedelta(minutes=30), timedelta(seconds=3))
    assert anchoring(anchoring={"calendars": [one, two, three], "minimum": 3}).minimum == 3


def test_a_log_may_bring_its_own_key_and_nobody_else_may_use_it(run, resource, endpoint):
    planned = run(
        resource("SigningKey", "k", {"algorithm": "Ed25519", "source": "Generate"}),
        resource("AttestationLog", "l", {"signingKeyRef": {"name": "k"}}),
        endpoint(destinations=[{"signingKeyRef": {"name": "k"}}]),
    )

    assert (planned.configuration.log.key_name, planned.configuration.log.origin) == (
        "generated/k",
        "kapsel.local/shop/l",
    )
    assert _said(planned) == [("SigningKeyTaken", "spec.destinations[0].signingKeyRef")]


@pytest.mark.parametrize(
    "spec",
    [
        {"algorithm": "Ed25519", "source": "Generate", "rotation": {"period": "24h", "overlap": "1h"}},
        {"algorithm": "Ed25519", "source": "Secret", "secretRef": {"name": "two"}},
    ],
)
def test_the_key_of_a_log_may_have_several_versions(run, resource, secret, spec):
    planned = run(
        secret("two", a="A" * 43 + "=", b="B" * 42 + "A="),
        resource("SigningKey", "k", spec),
        resource("AttestationLog", "l", {"signingKeyRef": {"name": "k"}}),
    )

    assert _said(planned) == []
    assert len(_versions(planned, planned.configuration.log.key_name)) == 2


VAULT = {"address": "https://vault.example", "key": "log", "versions": [3], "tokenSecretRef": {"name": "v", "key": "t"}}


def _in_vault(**changed):
    return {"algorithm": "Ed25519", "source": "Vault", "vault": {**VAULT, **changed}}


def test_a_log_may_have_a_key_that_kapsel_does_not_hold(run, resource, secret):
    log = resource("AttestationLog", "l", {"signingKeyRef": {"name": "k"}})

    first = run(secret("v", t="hvs.token\n"), resource("SigningKey", "k", _in_vault()), log)

    assert _said(first) == []
    assert first.configuration.log.key_name == "external/k"
    (row,) = _versions(first, "external/k")
    assert (row.version, row.public, json.loads(row.secret)) == (1, None, {"token": "hvs.token"})
    assert row.backend == VaultKey(address="https://vault.example", mount="transit", key="log", version=3)

    second = run(
        secret("v", t="hvs.renewed"),
        resource("SigningKey", "k", _in_vault(versions=[3, 4])),
        log,
        existing=first.configuration,
    )

    old, new = _versions(second, "external/k")
    assert (old.id, old.version, json.loads(old.secret)) == (row.id, 1, {"token": "hvs.renewed"})
    assert (new.version, new.backend.version) == (2, 4)
    again = run(
        secret("v", t="hvs.renewed"),
        resource("SigningKey", "k", _in_vault(versions=[3, 4])),
        log,
        existing=second.configuration,
    )
    assert again.configuration == second.configuration


def test_what_opens_the_way_to_a_key_is_missed_by_its_name_and_the_last_good_stays(run, resource, secret):
    log = resource("AttestationLog", "l", {"signingKeyRef": {"name": "k"}})
    good = run(secret("v", t="hvs.token"), resource("SigningKey", "k", _in_vault()), log).configuration

    planned = run(secret("v", other="x"), resource("SigningKey", "k", _in_vault()), log, existing=good)

    assert _said(planned) == [("SecretEntryNotFound", "spec")]
    assert (planned.configuration.log, planned.configuration.keys) == (good.log, good.keys)


def test_what_opens_the_way_to_a_key_is_one_line(run, resource, secret):
    log = resource("AttestationLog", "l", {"signingKeyRef": {"name": "k"}})
    key = resource("SigningKey", "k", _in_vault())
    good = run(secret("v", t="hvs.token"), key, log).configuration

    planned = run(secret("v", t="hvs.token\n# rotated on monday\n"), key, log, existing=good)

    assert _said(planned) == [("InvalidKey", "spec")]
    assert "hvs.token" not in str(planned.problems)
    assert (planned.configuration.log, planned.configuration.keys) == (good.log, good.keys)


def test_the_optional_entry_of_credentials_may_be_missing(run, resource, secret):
    aws = {"keyIds": ["1234abcd"], "region": "eu-central-1", "credentialsSecretRef": {"name": "a"}}
    planned = run(
        secret("a", accessKeyId="AKIA", secretAccessKey="s"),
        resource("SigningKey", "k", {"algorithm": "Ed25519", "source": "AWSKMS", "awsKMS": aws}),
        resource("AttestationLog", "l", {"signingKeyRef": {"name": "k"}}),
    )

    assert _said(planned) == []
    (row,) = _versions(planned, "external/k")
    assert row.backend.endpoint == "https://kms.eu-central-1.amazonaws.com"
    assert json.loads(row.secret) == {"accessKeyId": "AKIA", "secretAccessKey": "s"}


def test_nothing_but_a_log_may_have_a_key_that_kapsel_does_not_hold(run, resource, secret, endpoint):
    planned = run(
        secret("v", t="hvs.token"),
        resource("SigningKey", "k", _in_vault()),
        endpoint(
            verification={"standardWebhooks": {"signingKeyRef": {"name": "k"}}},
            destinations=[{"signingKeyRef": {"name": "k"}}],
        ),
    )

    assert _said(planned) == [
        ("SigningKeyElsewhere", "spec.verification.standardWebhooks.signingKeyRef"),
        ("SigningKeyElsewhere", "spec.destinations[0].signingKeyRef"),
    ]


@pytest.mark.parametrize(
    ("retiring", "name"), [({}, "log/log.example/a"), ({"name": "old"}, "generated/old"), (None, None)]
)
def test_a_log_may_move_from_one_key_to_another(run, resource, endpoint, retiring, name):
    generated = {"algorithm": "Ed25519", "source": "Generate"}
    spec = {"origin": "log.example/a", "signingKeyRef": {"name": "new"}, "retiringSigningKey": retiring}
    planned = run(
        resource("SigningKey", "old", generated),
        resource("SigningKey", "new", generated),
        resource("AttestationLog", "l", spec),
        endpoint(destinations=[{"signingKeyRef": {"name": "old"}}]),
    )

    log = planned.configuration.log
    assert (log.key_name, log.retiring_key_name) == ("generated/new", name)
    used = [row.name for row in log.versions(planned.configuration.keys)]
    assert used == ([name, "generated/new"] if name else ["generated/new"])
    taken = [("SigningKeyTaken", "spec.destinations[0].signingKeyRef")] if name == "generated/old" else []
    assert _said(planned) == taken


def test_a_key_to_move_from_that_is_not_there_is_said_by_its_own_field(run, resource):
    planned = run(
        resource("SigningKey", "new", {"algorithm": "Ed25519", "source": "Generate"}),
        resource("AttestationLog", "l", {"signingKeyRef": {"name": "new"}, "retiringSigningKey": {"name": "gone"}}),
    )

    assert _said(planned) == [("SigningKeyNotFound", "spec.retiringSigningKey.name")]


def test_two_logs_are_one_too_many_and_the_old_one_goes_on(run, resource):
    log = resource("AttestationLog", "l", {"origin": "log.example/a"})
    good = run(log).configuration

    planned = run(log, resource("AttestationLog", "m"), existing=good)

    assert planned.configuration.log == good.log
    assert [problem.reason for problem in planned.problems] == ["LogAmbiguous", "LogAmbiguous"]


def test_a_log_of_another_namespace_is_refused_and_does_not_keep_ours_from_opening(run, resource):
    relay = resource("Relay", "main", {"allowedNamespaces": {"from": "All"}}, namespace="infra")
    stranger = resource("AttestationLog", "l")

    planned = run(relay, stranger)

    assert planned.configuration.log.origin == "kapsel.local/infra/main"
    assert _said(planned) == [("NotAllowed", "metadata.namespace")]


def test_a_broken_log_never_opens_another_one(run, resource):
    planned = run(broken=[Identity("AttestationLog", "shop", "l")])

    assert planned.configuration.log is None
