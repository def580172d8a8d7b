"""What the plugin decides without a cluster: which Relay, which key, what a Replay is, what is completed."""

import argparse
import base64
from datetime import UTC, datetime
from typing import Any

import pytest

from kapsel_cli.completion import walk
from kapsel_cli.errors import CliError
from kapsel_cli.kubectl import complete, replay, secret
from kapsel_cli.kubectl.parser import build
from kapsel_cli.kubectl.relays import RelayName, choose
from kapsel_cli.replaying import manifest

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def endpoint(*destinations: dict[str, Any], **reference: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"destinations": list(destinations)}
    return {
        "metadata": {"namespace": "shop", "name": "orders"},
        "spec": spec | ({"relayRef": reference} if reference else {}),
    }


def test_the_only_relay_of_a_namespace_is_meant() -> None:
    assert choose("shop", [RelayName("shop", "main")], []) == RelayName("shop", "main")


def test_a_namespace_without_relay_means_the_one_that_its_endpoints_use() -> None:
    elsewhere = endpoint(name="main", namespace="webhooks")
    assert choose("shop", [], [elsewhere, elsewhere, endpoint()]) == RelayName("webhooks", "main")


def test_several_relays_have_to_be_told_apart() -> None:
    relays = [RelayName("shop", "two"), RelayName("shop", "one")]
    with pytest.raises(CliError, match=r"uses 2 Relays\. Say which one with --relay: shop/one, shop/two"):
        choose("shop", relays, [])
    with pytest.raises(CliError, match="has no Relay"):
        choose("shop", [], [endpoint()])


def parsed(*arguments: str) -> argparse.Namespace:
    return build().parse_args(["replay", *arguments])


def test_a_replay_has_what_was_asked_for_and_nothing_else() -> None:
    made = manifest(parsed("orders", "--from", "2h"), "orders", "shop", NOW)
    assert made["metadata"] == {"name": "orders-20260301-120000", "namespace": "shop"}
    assert made["spec"] == {
        "endpointRef": {"name": "orders"},
        "selection": {"from": "2026-03-01T10:00:00.000Z", "to": "2026-03-01T12:00:00.000Z", "states": ["exhausted"]},
    }


def test_every_option_of_a_replay_gets_into_it() -> None:
    asked = parsed(
        "orders", "--from", "2026-03-01T09:00:00+01:00", "--to", "30m", "--state", "exhausted,cancelled",
        "--destination", "billing", "--destination", "crm", "--rate", "10", "--dry-run", "--ttl", "60", "--name", "x",
    )  # fmt: skip
    made = manifest(asked, "orders", "shop", NOW, asked.ttl)
    assert made["metadata"]["name"] == "x"
    assert made["spec"] == {
        "endpointRef": {"name": "orders"},
        "selection": {
            "from": "2026-03-01T08:00:00.000Z", "to": "2026-03-01T11:30:00.000Z", "states": ["exhausted", "cancelled"],
        },
        "destinations": ["billing", "crm"], "rate": 10, "dryRun": True, "ttlSecondsAfterFinished": 60,
    }  # fmt: skip


def test_a_replay_may_mean_reasons_faults_and_what_is_missing() -> None:
    asked = parsed(
        "orders",
        "--since",
        "2h",
        "--until",
        "1h",
        "--reason",
        "status_5xx,dns",
        "--fault",
        "ours",
        "--include-pending",
        "--filter",
        "event.id != ''",
    )
    assert manifest(asked, "orders", "shop", NOW)["spec"]["selection"] == {
        "from": "2026-03-01T10:00:00.000Z", "to": "2026-03-01T11:00:00.000Z", "states": ["exhausted"],
        "reasons": ["status_5xx", "dns"], "faults": ["ours"], "filter": "event.id != ''", "includePending": True,
    }  # fmt: skip
    missing = manifest(parsed("orders", "--from", "2h", "--state", "missing"), "orders", "shop", NOW)
    assert missing["spec"]["selection"]["states"] == ["missing"]


@pytest.mark.parametrize(
    ("option", "wrong"), [("--reason", "Status 500"), ("--fault", "mine"), ("--state", "pending"), ("--reason", "")]
)
def test_a_selection_that_cannot_be_is_refused(option: str, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("orders", "--from", "2h", option, wrong)
    assert "is no" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["yesterday", "2026-03-01", "2026-03-01T09:00:00", "2d", ""])
def test_a_time_that_is_none_is_refused(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("orders", "--from", wrong)
    assert "is neither a duration such as 2h nor a time" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, "waits to be counted"),
        ({"matched": 12}, "12 deliveries are meant, 0 made anew, 0 delivered"),
        (
            {"matched": 12, "enqueued": 10, "delivered": 7, "failed": 1},
            "12 deliveries are meant, 10 made anew, 7 delivered, 1 failed",
        ),
    ],
)
def test_how_far_a_replay_is_takes_one_line(status: dict[str, int], said: str) -> None:
    assert replay.progress({"spec": {}, "status": status}) == said


def test_a_dry_run_only_counts() -> None:
    assert replay.progress({"spec": {"dryRun": True}, "status": {"matched": 3}}) == "3 deliveries are meant"


def entries(**values: str) -> dict[str, str]:
    return {name.replace("_", "."): base64.b64encode(value.encode()).decode() for name, value in values.items()}


def test_the_newest_live_version_of_a_key_is_shown() -> None:
    data = entries(v1="whsec_1", v2="whsec_2", v3="whsec_3")
    assert secret.choose(data, secret.Holder("out-key", (1, 2)), None) == ("whsec_2", [1, 3])
    assert secret.choose(data, secret.Holder("orders-signing", ()), None) == ("whsec_3", [1, 2])
    assert secret.choose(data, secret.Holder("out-key", (1, 2)), 3) == ("whsec_3", [1, 2])
    with pytest.raises(CliError, match=r"the Secret out-key holds no version 9\. It holds: 1, 2, 3"):
        secret.choose(data, secret.Holder("out-key", ()), 9)
    with pytest.raises(CliError, match=r"the Secret out-key holds no version\. It holds: none"):
        secret.choose(entries(other="x"), secret.Holder("out-key", ()), None)


def test_of_a_key_pair_only_the_public_half_is_shown() -> None:
    data = entries(v1="whsk_secret", v1_pub="whpk_public")
    assert secret.choose(data, secret.Holder("out-key", ()), None) == ("whpk_public", [])


def test_destinations_with_different_keys_have_to_be_told_apart() -> None:
    one, other = {"name": "billing"}, {"name": "crm", "signingKeyRef": {"name": "out"}}
    assert secret.destination(endpoint(one, {"name": "copy"}), None) == one
    assert secret.destination(endpoint(one, other), "crm") == other
    with pytest.raises(CliError, match="Say which with --destination: billing, crm"):
        secret.destination(endpoint(one, other), None)
    with pytest.raises(CliError, match=r"shop/orders has no destination nobody\. It has: billing, crm"):
        secret.destination(endpoint(one, other), "nobody")
    with pytest.raises(CliError, match="has no destination, so nothing is signed for it"):
        secret.destination(endpoint(), None)


def completed(*words: str) -> tuple[list[str], str]:
    tree = {command.path: command for command in walk(build(), "kapsel")}
    found, directive = complete.complete(tree, words)
    return [line.partition("\t")[0] for line in found], directive


def test_words_options_and_their_values_are_completed() -> None:
    assert completed("sta") == (["status"], complete.NO_FILES)
    assert "tail" in completed("")[0]
    assert not any(word.startswith("-") for word in completed("")[0])
    assert completed("status", "--all") == (["--all-namespaces"], complete.NO_FILES)
    assert completed("events", "-o", "") == (["table", "wide", "json", "yaml"], complete.NO_FILES)
    assert completed("get", "del") == (["deliveries"], complete.NO_FILES)
    assert completed("proof", "x", "--file", "") == ([], complete.FILES)
    assert completed("nothing", "--x", "") == completed("")


def test_commands_are_named_as_they_are_typed_here() -> None:
    tree = {parser.prog: parser for parser in parsers(build())}
    assert "kubectl kapsel retry 0199a1b2" in str(tree["kubectl kapsel retry"].description)
    for name, parser in tree.items():
        described = f"{parser.description} {' '.join(str(action.help) for action in parser._actions)}"
        assert "`kapsel " not in described, name
        assert "  kapsel " not in described, name
        assert "xargs kapsel" not in described, name


def parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found += [one for child in action.choices.values() for one in parsers(child)]
    return found
