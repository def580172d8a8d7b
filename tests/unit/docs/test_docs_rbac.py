"""The page of rights says what the rules are: the operator's, those of the role it writes, and what people get."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kapsel_cli.kubectl.parser import build
from kapsel_operator.manifests.facts import Facts, Image, Log
from kapsel_operator.manifests.roles import attestor_role
from kapsel_operator.rbac import RULES, Rule, Scope
from kapsel_resources.kinds.relay import Relay

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rbac.md").read_text(encoding="utf-8")
SCOPES: dict[Scope, str] = {
    "watched": "In each watched namespace",
    "cluster": "In the whole cluster",
    "own": "In its own namespace",
}


def row(rule: Rule) -> str:
    group = f"`{rule.group}`" if rule.group else "core"
    resources = ", ".join(f"`{one}`" for one in rule.resources)
    return f"| {group} | {resources} | {', '.join(rule.verbs)} | {rule.reason} |"


@pytest.mark.parametrize("scope", SCOPES)
def test_the_table_of_a_scope_is_that_of_the_rules(scope: Scope) -> None:
    table = PAGE.partition(SCOPES[scope])[2].partition("|---|---|---|---|\n")[2].partition("\n\n")[0]
    assert table.splitlines() == [row(rule) for rule in RULES if rule.scope == scope]


def test_no_rule_is_for_everything_and_none_lists_secrets() -> None:
    assert not any("*" in (rule.group, *rule.resources, *rule.verbs) for rule in RULES)
    verbs = {verb for rule in RULES if "secrets" in rule.resources for verb in rule.verbs}
    assert verbs & {"list", "watch"} == set()


def test_the_right_of_an_attestor_is_the_one_on_the_page() -> None:
    relay = Relay.model_validate(
        {"apiVersion": "kapsel.dev/v1alpha1", "kind": "Relay", "metadata": {"name": "main", "namespace": "shop"}}
    )
    facts = Facts(owner_uid="u", image=Image(repository="r", version="v"), operator_namespace="o")
    role = attestor_role(relay, facts, Log(namespace="shop", name="log", uid="u"))
    rights = {(tuple(rule["resources"]), tuple(rule["verbs"])) for rule in role["rules"]}
    assert rights == {
        (("attestationlogs/status",), ("get", "patch")),
        (("events",), ("create",)),
    }
    assert [rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule] == [["log"]]
    assert "`get` and `patch` on the `attestationlogs/status` of the one AttestationLog" in PAGE
    assert "It posts an Event when the log is frozen: `create` on `events`" in PAGE


def test_what_people_get_is_what_the_chart_adds_to_their_roles() -> None:
    template = (ROOT / "charts" / "kapsel" / "templates" / "aggregate.yaml").read_text(encoding="utf-8")
    edited, owned = (re.findall(rf"\${name} := list (.*) }}}}", template)[0] for name in ("edited", "owned"))
    assert edited == '"webhookendpoints" "retrypolicies" "signingkeys" "replays"'
    assert owned == '"relays" "attestationlogs"'
    assert "status" not in "".join(line for line in template.splitlines() if not line.startswith("#"))
    assert "also write WebhookEndpoint, RetryPolicy, SigningKey and Replay |" in PAGE
    assert "also write Relay and AttestationLog |" in PAGE


def test_every_command_of_the_plugin_says_which_rights_it_takes() -> None:
    commands: Any = next(action for action in build()._actions if action.choices)
    table = PAGE.partition("| command | what it takes")[2]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)", row)}
    shown = {entry.dest.partition(" ")[0] for entry in commands._choices_actions}
    assert named == shown - {"get"}


def test_the_role_on_the_page_is_one() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert yaml.safe_load(text)["rules"][-1]["resources"] == ["services/proxy"]
