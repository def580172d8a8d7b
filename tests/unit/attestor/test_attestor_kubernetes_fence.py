"""The fence and the report in a status, as documents: strict both ways, and a condition turns only when it does."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from kapsel_attestor import kubernetes_fence
from kapsel_attestor.api_server import ApiServer
from kapsel_attestor.errors import FenceAwayError, RefusedError
from kapsel_attestor.fence import Fenced
from kapsel_attestor.kubernetes_fence import KubernetesFence
from kapsel_attestor.places import Statuses
from kapsel_attestor.status_report import (
    MOST_KEYS,
    Standing,
    alarm,
    conditions,
    key_documents,
    newly_frozen,
    stands,
    status,
)
from kapsel_resources.kinds.status import AttestationLogStatus
from kapsel_store.log_keys import LogKey
from kapsel_store.rows import LogRow
from kapsel_store.tlog import HeadRow

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FENCED = Fenced(origin="log.example.com/orders", tree_size=812, root=bytes(range(32)), timestamp_ms=1777863721987)
HEAD = HeadRow(
    log_id=1,
    timestamp_ms=int(NOW.timestamp() * 1000),
    tree_size=812,
    root=bytes(range(32)),
    checkpoint="log.example.com/orders\n812\n",
    sth_signature=bytes(64),
    public_key=bytes(32),
)
DUE = timedelta(minutes=10)


def found(*told: dict[str, object], **more: object) -> dict[str, object]:
    metadata = {"name": "log", "namespace": "shop", "uid": "u", "generation": 3, "resourceVersion": "7"}
    return {"metadata": metadata, "status": {"conditions": list(told), **more}}


def test_a_fence_is_read_as_it_was_written() -> None:
    assert kubernetes_fence.parse(kubernetes_fence.document(FENCED)) == FENCED


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"treeSize": "812"}, "treeSize is not an integer"),
        ({"treeSize": -1}, "treeSize is not an integer"),
        ({"rootHash": "AB" * 32}, "rootHash is not 32 bytes in lower-case hex"),
        ({"timestampMs": True}, "timestampMs is not an integer"),
        ({"more": 1}, "may not have"),
    ],
)
def test_a_fence_that_is_not_one_is_refused_with_what_is_wrong(changed: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        kubernetes_fence.parse({**kubernetes_fence.document(FENCED), **changed})
    with pytest.raises(ValueError, match="not an object"):
        kubernetes_fence.parse([])


def test_the_remedy_is_a_command_that_can_be_pasted() -> None:
    guard = KubernetesFence(ApiServer("https://127.0.0.1:1", Path()), "shop", "log", FENCED.origin)
    assert guard.remedy(FENCED).startswith(
        'run: kubectl patch attestationlog log -n shop --subresource=status --type=merge -p \'{"status": {"fence": {'
    )


def test_the_fence_of_another_log_is_refused_in_words() -> None:
    place = Statuses(ApiServer("https://127.0.0.1:1", Path()), "shop", "log")
    row = LogRow(namespace="shop", name="other", origin="log.example.com/other", key_name="log")
    with pytest.raises(RefusedError, match="names shop/log: set it to shop/other"):
        place.open(row)


def test_a_token_that_is_not_mounted_is_named(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="token does not exist: mount the token"):
        ApiServer("https://127.0.0.1:1", tmp_path).request("GET", "/")


def test_an_api_server_that_nobody_serves_is_away(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("")
    with pytest.raises(FenceAwayError, match=r"the Kubernetes API at https://127\.0\.0\.1:1 does not answer"):
        ApiServer("https://127.0.0.1:1", tmp_path).request("GET", "/")


def said(standing: Standing, now: datetime = NOW) -> list[tuple[str, str, str]]:
    return [(one.type, one.status, one.reason) for one in conditions(standing, now)]


def test_a_log_that_goes_well_is_consistent_and_fresh() -> None:
    well = [("LogConsistent", "True", "Consistent"), ("CheckpointFresh", "True", "Fresh")]
    assert said(Standing(head=HEAD, due=DUE)) == well
    assert said(Standing(head=HEAD, due=DUE), NOW + DUE) == well


def test_a_frozen_log_is_neither() -> None:
    frozen = Standing(head=HEAD, due=DUE, frozen="it has 5 leaves")
    assert said(frozen) == [("LogConsistent", "False", "Frozen"), ("CheckpointFresh", "False", "NotSigned")]
    assert {one.message for one in conditions(frozen, NOW)} == {"it has 5 leaves"}


def test_while_a_person_has_to_act_consistency_is_unknown() -> None:
    refused = Standing(head=None, due=DUE, trouble="the fence is missing")
    assert said(refused) == [("LogConsistent", "Unknown", "NotSigned"), ("CheckpointFresh", "False", "NotSigned")]


def test_a_head_that_is_long_overdue_is_stale_and_none_is_not_fresh() -> None:
    assert said(Standing(head=HEAD, due=DUE), NOW + timedelta(minutes=12))[1] == ("CheckpointFresh", "False", "Stale")
    assert said(Standing(head=None, due=DUE))[1] == ("CheckpointFresh", "False", "NoHead")


def test_a_head_that_is_late_says_what_it_waits_for() -> None:
    for head, moment in ((HEAD, NOW + timedelta(minutes=12)), (None, NOW)):
        _, fresh = conditions(Standing(head=head, due=DUE, late="the signer does not answer"), moment)
        assert fresh.message.endswith(": the signer does not answer")
    assert conditions(Standing(head=HEAD, due=DUE, late="just now"), NOW)[1].status == "True"


def test_a_condition_keeps_its_time_until_it_turns() -> None:
    well = conditions(Standing(head=HEAD, due=DUE), NOW)
    first = status(found(), well, HEAD, NOW)
    later = NOW + timedelta(hours=1)
    again = status(found(*first["conditions"]), well, HEAD, later)
    assert again["conditions"] == first["conditions"]
    ill = conditions(Standing(head=HEAD, due=DUE, frozen="torn"), later)
    turned = status(found(*first["conditions"]), ill, HEAD, later)
    assert [one["lastTransitionTime"] for one in turned["conditions"]] == ["2026-03-01T13:00:00Z"] * 2


def test_what_stands_there_already_is_recognised_among_what_others_wrote() -> None:
    part = status(found(), conditions(Standing(head=HEAD, due=DUE), NOW), HEAD, NOW)
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "x"}
    assert stands(found(ready, *part["conditions"], head=part["head"], fence={}), part)
    assert not stands(found(ready, *part["conditions"]), part)
    assert not stands(found(ready, head=part["head"]), part)


def test_the_keys_of_a_log_are_told_with_the_time_in_which_they_sign() -> None:
    begin = HEAD.timestamp_ms
    history = [
        LogKey(number=1, public_key=bytes(32), not_before_ms=begin, not_after_ms=begin + 60_000),
        LogKey(number=2, public_key=b"\x01" * 32, not_before_ms=begin + 30_000, announced_in=4),
    ]
    keys = key_documents("log.example.com/orders", history)
    assert [(key["notBefore"], key.get("notAfter")) for key in keys] == [
        ("2026-03-01T12:00:00Z", "2026-03-01T12:01:00Z"),
        ("2026-03-01T12:00:30Z", None),
    ]
    assert keys[0]["publicKey"].startswith(f"log.example.com/orders+{keys[0]['id']}+")
    part = status(found(), conditions(Standing(head=HEAD, due=DUE), NOW), HEAD, NOW, keys)
    assert part["keys"] == keys
    AttestationLogStatus.model_validate({"keys": part["keys"]})
    assert stands(found(*part["conditions"], head=part["head"], keys=keys), part)
    assert not stands(found(*part["conditions"], head=part["head"], keys=keys[:1]), part)
    many = status(found(), (), HEAD, NOW, [{"id": str(number)} for number in range(MOST_KEYS + 1)])["keys"]
    assert [key["id"] for key in many] == [str(number) for number in range(1, MOST_KEYS + 1)]


def test_an_alarm_is_raised_when_a_log_freezes_and_not_again() -> None:
    frozen = conditions(Standing(head=HEAD, due=DUE, frozen="torn"), NOW)
    told = status(found(), frozen, HEAD, NOW)["conditions"]
    assert newly_frozen(found(), frozen)
    assert not newly_frozen(found(*told), frozen)
    assert not newly_frozen(found(), conditions(Standing(head=HEAD, due=DUE), NOW))
    event = alarm(found(), "torn", NOW)
    assert (event["type"], event["reason"], event["note"]) == ("Warning", "Frozen", "torn")
    assert event["regarding"]["name"] == "log"
