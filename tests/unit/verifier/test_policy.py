from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.signing import SigningKey

from kapsel_verifier import policy
from kapsel_verifier.cosignature import WitnessKey, cosign
from kapsel_verifier.errors import (
    MalformedPolicyError,
    QuorumError,
    SignatureError,
    TooLargeError,
    UntrustedKeyError,
    VerificationError,
)
from kapsel_verifier.note import Note, Signature, VerifierKey
from kapsel_verifier.policy import Group, WitnessLine, quorum_of

ORIGIN = "log.example/shop"
LOG = SigningKey(bytes([99]) * 32)
LOG_KEY = VerifierKey(ORIGIN, bytes(LOG.verify_key))
TEXT = f"{ORIGIN}\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
SECRETS = {name: SigningKey(bytes([number]) * 32) for number, name in enumerate(("X1", "X2", "X3", "Y1", "Y2", "Y3"))}
KEYS = {name: WitnessKey(f"witness.example/{name}", bytes(secret.verify_key)) for name, secret in SECRETS.items()}

# The example of C2SP tlog-policy, with keys.
EXAMPLE = f"""
# two organisations
log {LOG_KEY.encode()} https://log.example/shop

witness X1 {KEYS["X1"].encode()} https://x1.example
witness X2 {KEYS["X2"].encode()}
witness X3 {KEYS["X3"].encode()}
group X-witnesses 2 X1 X2 X3
\t witness  Y1\t{KEYS["Y1"].encode()}\t
witness Y2 {KEYS["Y2"].encode()}
witness Y3 {KEYS["Y3"].encode()}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def signed(*names: str, at: int = 1_700_000_000) -> Note:
    lines = [LOG_KEY.line(LOG.sign(TEXT.encode()).signature)]
    lines += [
        cosign(TEXT, at + number, KEYS[name], lambda m, n=name: SECRETS[n].sign(m).signature)  # type: ignore[misc]
        for number, name in enumerate(names)
    ]
    return Note.parse(f"{TEXT}\n{''.join(lines)}")


def test_the_example_of_the_specification_is_read() -> None:
    read = policy.parse(EXAMPLE)
    assert read.logs[0].key == LOG_KEY
    assert read.logs[0].url == "https://log.example/shop"
    assert [one.name for one in read.witnesses] == list(SECRETS)
    assert read.groups[0] == Group("X-witnesses", 2, ("X1", "X2", "X3"))
    assert read.groups[1].threshold == 1
    assert read.groups[2].threshold == 2
    assert read.quorum == "X-and-Y"


def test_a_policy_comes_back_as_it_was_written() -> None:
    read = policy.parse(EXAMPLE)
    assert policy.parse(read.encode()) == read
    assert policy.parse(EXAMPLE.encode()) == read


@pytest.mark.parametrize(
    ("names", "met"),
    [
        ((), False),
        (("X1", "X2"), False),
        (("X1", "Y1", "Y2", "Y3"), False),
        (("X1", "X3", "Y2"), True),
        (("X1", "X2", "X3", "Y1", "Y2", "Y3"), True),
        (("X1", "X2", "stranger"), False),
    ],
)
def test_the_quorum_is_what_its_groups_say(names: tuple[str, ...], met: bool) -> None:
    assert policy.parse(EXAMPLE).is_met_by(names) is met


def test_a_quorum_vouches_for_the_head_from_the_time_it_was_complete() -> None:
    judged = policy.parse(EXAMPLE).judge(signed("X1", "Y1", "X2", "X3"))
    assert judged.log == LOG_KEY
    assert len(judged.cosignatures) == 4
    assert judged.witnessed
    assert judged.witnessed_at == 1_700_000_002  # X1, Y1 and X2; X3 adds nothing


def test_without_a_quorum_the_head_is_refused_and_who_is_missing_is_said() -> None:
    with pytest.raises(QuorumError) as caught:
        policy.parse(EXAMPLE).judge(signed("X1", "Y1"))
    assert caught.value.signed == ("X1", "Y1")
    assert caught.value.missing == ("X2", "X3", "Y2", "Y3")
    assert "X2" in str(caught.value)


def test_who_is_missing_are_the_witnesses_below_the_quorum_alone() -> None:
    text = EXAMPLE.replace("quorum X-and-Y", "quorum Y-witnesses")
    assert policy.parse(text).missing(["Y1"]) == ("Y2", "Y3")
    assert policy.parse(EXAMPLE.replace("quorum X-and-Y", "quorum X2")).missing([]) == ("X2",)


def test_a_policy_may_do_without_witnesses() -> None:
    judged = policy.parse(f"log {LOG_KEY.encode()}\nquorum none\n").judge(signed())
    assert not judged.witnessed
    assert judged.cosignatures == ()


def test_a_policy_without_logs_leaves_the_log_to_the_caller() -> None:
    assert policy.parse("quorum none\n").judge(signed()).log is None


def test_a_log_that_is_not_listed_is_refused_even_if_all_witnesses_cosigned() -> None:
    other = VerifierKey("log.example/other", LOG_KEY.public_key)
    text = EXAMPLE.replace(LOG_KEY.encode(), other.encode())
    with pytest.raises(UntrustedKeyError):
        policy.parse(text).judge(signed(*SECRETS))
    stranger = VerifierKey(ORIGIN, bytes(SigningKey(bytes([50]) * 32).verify_key))
    with pytest.raises(UntrustedKeyError):
        policy.parse(EXAMPLE.replace(LOG_KEY.encode(), stranger.encode())).judge(signed(*SECRETS))


def test_a_forged_line_by_one_witness_refuses_the_head_whatever_the_others_say() -> None:
    honest = signed("X1", "X2", "Y1")
    assert policy.parse(EXAMPLE).judge(honest).witnessed
    forged = Signature(KEYS["Y3"].name, KEYS["Y3"].key_id, bytes(72))
    with pytest.raises(SignatureError):
        policy.parse(EXAMPLE).judge(Note(honest.text, (*honest.signatures, forged)))


@pytest.mark.parametrize(
    ("change", "to"),
    [
        ("quorum X-and-Y\n", ""),
        ("quorum X-and-Y\n", "quorum X-and-Y"),
        ("quorum X-and-Y\n", "quorum X-and-Y\nquorum none\n"),
        ("quorum X-and-Y\n", "quorum nobody\n"),
        ("quorum X-and-Y\n", "quorum X-and-Y Y1\n"),
        ("quorum X-and-Y\n", "quorum\n"),
        ("quorum X-and-Y\n", "Quorum X-and-Y\n"),
        ("quorum X-and-Y\n", "quorum X-and-Y # because\n"),
        ("quorum X-and-Y\n", "quorum X-and-Y\r\n"),
        ("quorum X-and-Y\n", "quorum X-and-Y\x00\n"),
        ("group X-witnesses 2", "group X-witnesses 0"),
        ("group X-witnesses 2", "group X-witnesses 4"),
        ("group X-witnesses 2", "group X-witnesses 02"),
        ("group X-witnesses 2", "group X-witnesses -1"),
        ("group X-witnesses 2", "group X-witnesses two"),
        ("group X-witnesses 2", "group X-witnesses 99999999999999999999"),
        ("group X-witnesses 2 X1 X2 X3", "group X-witnesses 2 X1 X1 X3"),
        ("group X-witnesses 2 X1 X2 X3", "group X-witnesses 2 X1 X2 Y1"),
        ("group X-witnesses 2 X1 X2 X3", "group X-witnesses 2"),
        ("group X-witnesses 2 X1", "group X-witnesses 2 none"),
        ("group Y-witnesses any Y1", "group Y-witnesses any X1"),
        ("group Y-witnesses", "group X1"),
        ("group Y-witnesses", "group none"),
        ("witness X2", "witness X1"),
        ("witness X2", "witness none"),
        ("witness X2 ", "witness "),
        (KEYS["X2"].encode(), KEYS["X1"].encode()),
        (KEYS["X2"].encode(), WitnessKey("another-name", KEYS["X1"].public_key).encode()),
        (KEYS["X2"].encode(), VerifierKey("x", KEYS["X2"].public_key).encode()),
        (KEYS["X2"].encode(), KEYS["X2"].encode() + "A"),
        (LOG_KEY.encode(), KEYS["X1"].encode()),
        (LOG_KEY.encode(), LOG_KEY.encode() + " https://a https://b"),
        ("log ", f"log {VerifierKey('log.example/again', LOG_KEY.public_key).encode()}\nlog "),
        ("log ", "logs "),
    ],
)
def test_what_is_no_policy_is_refused_with_its_line(change: str, to: str) -> None:
    assert change in EXAMPLE
    with pytest.raises(MalformedPolicyError):
        policy.parse(EXAMPLE.replace(change, to, 1))


def test_the_line_that_is_wrong_is_named() -> None:
    with pytest.raises(MalformedPolicyError, match="line 2 of the policy"):
        policy.parse("# a comment\nwitnes x\nquorum none\n")


def test_names_are_octets_and_different_octets_are_different_names() -> None:
    key, other = KEYS["X1"].encode().encode(), KEYS["X2"].encode().encode()
    read = policy.parse(b"witness \xff " + key + b"\nwitness \xfe " + other + b"\ngroup g all \xff \xfe\nquorum g\n")
    assert read.witnesses[0].name != read.witnesses[1].name
    assert policy.parse(read.encode()) == read
    with pytest.raises(QuorumError) as caught:
        read.judge(signed())
    assert str(caught.value).isascii()


def test_a_key_name_that_no_note_can_have_is_refused() -> None:
    with pytest.raises(MalformedPolicyError):
        policy.parse(b"log \xff+00000000+AQ==\nquorum none\n")


def test_a_huge_file_is_refused_unread() -> None:
    with pytest.raises(TooLargeError):
        policy.parse(b"#" * (policy.MAX_POLICY_SIZE + 1))


@settings(deadline=None)
@given(st.data())
def test_a_mutated_policy_is_refused_or_says_something_that_can_be_said_again(data: st.DataObject) -> None:
    text = bytearray(EXAMPLE.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(text) - 1))
        text[where : where + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        read = policy.parse(bytes(text))
    except VerificationError:
        return
    assert policy.parse(read.encode()) == read


def test_a_long_chain_of_groups_is_judged_without_recursion() -> None:
    lines = [f"witness w {KEYS['X1'].encode()}", "group g0 any w"]
    lines += [f"group g{number} any g{number - 1}" for number in range(1, 5000)]
    read = policy.parse("\n".join([*lines, "quorum g4999", ""]))
    assert read.is_met_by({"w"})
    assert read.missing(()) == ("w",)


def test_a_simple_quorum_is_made_from_witnesses_and_a_number() -> None:
    lines = [WitnessLine(name, key) for name, key in KEYS.items()]
    two = quorum_of(lines, 2)
    assert not two.is_met_by({"X1"})
    assert two.is_met_by({"X1", "Y3"})
    assert policy.parse(two.encode()) == two
    assert quorum_of(lines, 0).is_met_by(())
    named = quorum_of([WitnessLine("quorum", KEYS["X1"])], 1)
    assert named.is_met_by({"quorum"})
    assert not named.is_met_by(())
    with pytest.raises(MalformedPolicyError):
        quorum_of(lines, 7)
    with pytest.raises(MalformedPolicyError):
        quorum_of([lines[0], lines[0]], 1)


def test_a_real_log_of_attempts_is_judged(log: ModuleType) -> None:
    read = policy.parse(f"log {log.vkey().encode()}\nquorum none\n")
    assert read.judge(Note.parse(log.PROOF.checkpoint)).log == log.vkey()
