"""From the witnesses that an AttestationLog names to what the attestor asks."""

from datetime import timedelta

import pytest
from nacl.signing import SigningKey

from kapsel_resources.plan import plan
from kapsel_store.rows import Configuration
from kapsel_verifier.cosignature import WitnessKey
from kapsel_verifier.note import VerifierKey

KEYS = [WitnessKey(f"witness.example/w{i}", bytes(SigningKey(bytes([i]) * 32).verify_key)) for i in range(4)]


def named(*keys):
    return [
        {
            "name": f"w{number}",
            "vkey": key if isinstance(key, str) else key.encode(),
            "url": f"https://w{number}.example",
        }
        for number, key in enumerate(keys)
    ]


@pytest.fixture
def run(now, entropy):
    return lambda *resources: plan(resources, existing=Configuration(), now=now, entropy=entropy)


@pytest.fixture
def log(run, resource):
    def log(spec, **more):
        return run(resource("AttestationLog", "l", {"witnessing": spec, **more}))

    return log


def test_without_witnesses_nobody_is_asked(run, resource):
    assert run(resource("AttestationLog", "l")).configuration.log.witnessing is None


def test_more_than_half_of_the_witnesses_make_the_quorum_unless_it_is_said(log):
    assert [log({"witnesses": named(*KEYS[:count])}).configuration.log.witnessing.quorum for count in (1, 2, 3, 4)] == [
        1,
        2,
        2,
        3,
    ]
    assert log({"witnesses": named(*KEYS), "quorum": 1}).configuration.log.witnessing.quorum == 1


def test_the_witnesses_are_asked_as_declared(log):
    spec = {"witnesses": named(KEYS[0]), "required": True, "timeout": "500ms"}
    planned = log(spec).configuration.log.witnessing
    assert (planned.witnesses[0].name, planned.witnesses[0].url) == ("w0", "https://w0.example")
    assert WitnessKey.parse(planned.witnesses[0].vkey) == KEYS[0]
    assert (planned.required, planned.timeout) == (True, timedelta(milliseconds=500))


@pytest.mark.parametrize(
    "keys",
    [
        (KEYS[0], VerifierKey(KEYS[1].name, KEYS[1].public_key).encode()),  # a log's key
        (KEYS[0], WitnessKey("witness.example/again", KEYS[0].public_key)),  # one witness under two names
        (KEYS[0], KEYS[1].encode()[:-4] + "AAAA"),
    ],
)
def test_a_key_that_is_no_other_witness_s_is_a_problem_of_its_field(log, keys):
    wrong = log({"witnesses": named(*keys)})
    (problem,) = wrong.problems
    assert problem.reason == "WitnessKeyInvalid"
    assert problem.path == ("spec", "witnessing", "witnesses", 1, "vkey")


@pytest.mark.parametrize("named_key", [False, True])
def test_the_log_is_not_its_own_witness(run, resource, now, entropy, named_key):
    key = [resource("SigningKey", "k", {"source": "Generate", "algorithm": "Ed25519"})] if named_key else []
    spec = {"signingKeyRef": {"name": "k"}} if named_key else {}
    before = run(*key, resource("AttestationLog", "l", spec)).configuration
    (own,) = [row.public for row in before.keys if row.algorithm == "Ed25519"]
    spec["witnessing"] = {"witnesses": named(KEYS[0], WitnessKey("witness.example/own", own))}
    after = plan([*key, resource("AttestationLog", "l", spec)], existing=before, now=now, entropy=entropy)
    (problem,) = after.problems
    assert problem.reason == "WitnessKeyInvalid"
    assert problem.path == ("spec", "witnessing", "witnesses", 1, "vkey")
    assert after.configuration.log.witnessing is None


def test_heads_that_need_their_witnesses_keep_to_the_budget_of_these(log):
    witnesses = named(KEYS[0])
    planned = log({"witnesses": witnesses, "required": True, "queriesPerDay": 1440}).configuration.log
    assert planned.publish_interval == timedelta(minutes=1)
    assert planned.publish_pending > 1_000_000
    rare = log({"witnesses": witnesses, "required": True, "queriesPerDay": 24}).configuration.log
    assert (rare.publish_interval, rare.idle_interval) == (timedelta(hours=1), timedelta(hours=1))
    free = log({"witnesses": witnesses, "queriesPerDay": 1440}).configuration.log
    assert free.publish_interval == timedelta(seconds=10)
    assert free.witnessing.queries_per_day == 1440
    slow = log(
        {"witnesses": witnesses, "required": True, "queriesPerDay": 1440}, publication={"interval": "5m"}
    ).configuration.log
    assert slow.publish_interval == timedelta(minutes=5)
