"""Reference pages say what the code has: settings, commands, options, manifests, and code that works as printed."""

import argparse
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from nacl.signing import SigningKey

from kapsel_cli import settings_reference
from kapsel_cli.parser import build
from kapsel_deliverer.signing import Signer
from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store.rows import Configuration, KeyRow
from kapsel_verifier import options as verifier_options

DOCS = Path(__file__).parents[3] / "docs"
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def _page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def _blocks(page: str, language: str) -> list[str]:
    return [block.partition("```")[0] for block in page.split(f"```{language}\n")[1:]]


def test_the_settings_page_is_what_the_models_say() -> None:
    assert _page("settings.md") == settings_reference.render(), (
        "run: python -m kapsel_cli.settings_reference > docs/settings.md"
    )


def test_no_placeholder_is_left_in_the_settings_page() -> None:
    assert "<!--" not in settings_reference.render()


def _parsers(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, child in action.choices.items():
                yield from _parsers(child, (*path, name))
        else:
            yield path, action


def _part(command: str) -> str:
    """Return the part of the page about a command, with what is said of all commands."""
    parts = _page("cli.md").split("\n## ")
    return "".join(part for part in parts if re.match(rf"Options of every command|kapsel\b.*\b{command}\b", part))


@pytest.mark.parametrize("command", sorted({path[0] for path, _ in _parsers(build(), ()) if path}))
def test_a_command_has_its_part_of_the_page_with_every_option(command: str) -> None:
    actions = [action for path, action in _parsers(build(), ()) if path[:1] == (command,)]
    names = {name for action in actions for name in action.option_strings or [str(action.metavar or action.dest)]}

    part = _part(command)

    assert f"\n## kapsel {command}" in _page("cli.md") or command in ("cancel", "resume", "unblock")
    assert [name for name in sorted(names) if not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", part)] == []


def test_every_option_of_the_verifier_is_on_the_page() -> None:
    part = _page("cli.md").partition("## kapsel-verify")[2]
    options = [option for action in verifier_options.parser()._actions for option in action.option_strings]
    assert [option for option in options if option.startswith("--") and option != "--help" and option not in part] == []


def test_the_page_names_no_option_that_does_not_exist() -> None:
    known = {option for _, action in _parsers(build(), ()) for option in action.option_strings}
    known |= {option for action in verifier_options.parser()._actions for option in action.option_strings}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", _page("cli.md"))) <= known


def test_the_manifests_of_the_quickstart_have_no_problem() -> None:
    (text,) = _blocks(_page("quickstart.md"), "yaml")
    resources = [parse(document) for document in yaml.safe_load_all(text)]
    assert not any(isinstance(resource, list) for resource in resources)

    planned = plan(resources, existing=Configuration(), now=NOW, entropy=bytes)

    assert planned.problems == ()
    assert [destination.name for destination in planned.configuration.destinations] == ["build"]


def _functions() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for block in _blocks(_page("delivering.md"), "python"):
        exec(block, found)
    return found


def _signed(key: KeyRow, body: bytes) -> dict[str, str]:
    identifier, seconds = "01a1fe3a-51d2-74cd-acdb-3eb58fa4d677", int(NOW.timestamp())
    signature = Signer([key]).sign(identifier, seconds, body, NOW)
    assert signature is not None
    return {"webhook-id": identifier, "webhook-timestamp": str(seconds), "webhook-signature": signature}


def _key(**fields: Any) -> KeyRow:
    return KeyRow(
        id=UUID(int=1), namespace="shop", name="out", version=1, not_before=datetime(2026, 1, 1, tzinfo=UTC), **fields
    )


@pytest.mark.parametrize(
    ("text", "secret"), [("whsec_a2Fwc2VsIGlzIHRlc3RlZA==", b"kapsel is tested"), ("plain", b"plain")]
)
def test_the_printed_check_of_v1_tells_genuine_from_changed(text: str, secret: bytes) -> None:
    is_genuine = _functions()["is_genuine"]
    headers = _signed(_key(algorithm="HMAC-SHA256", secret=secret, public=None), b"{}")

    assert is_genuine(text, headers, b"{}", NOW.timestamp())
    assert not is_genuine(text, headers, b"{ }", NOW.timestamp())
    assert not is_genuine(text + "x", headers, b"{}", NOW.timestamp()) if text == "plain" else True
    assert not is_genuine(text, headers, b"{}", NOW.timestamp() + 301)


BROKEN = [
    {"webhook-id": None},
    {"webhook-timestamp": None},
    {"webhook-signature": None},
    {"webhook-timestamp": "soon"},
    {"webhook-timestamp": "9" * 5000},
    {"webhook-timestamp": "-1"},
    {"webhook-signature": ""},
    {"webhook-signature": "v1,é v1a,é"},
    {"webhook-signature": "v1,\udcff v1a,\udcff"},
    {"webhook-signature": "v1,AAAA v1a,AAAA v1a,A"},
    {"webhook-id": "\udcff"},
]


@pytest.mark.parametrize("changes", BROKEN, ids=ascii)
def test_what_a_stranger_sends_is_not_genuine_and_breaks_neither_printed_check(changes: dict[str, str | None]) -> None:
    pair = SigningKey(b"s" * 32)
    hmac_key = _key(algorithm="HMAC-SHA256", secret=b"plain", public=None)
    ed25519_key = _key(algorithm="Ed25519", secret=bytes(pair), public=bytes(pair.verify_key))
    for key in (hmac_key, ed25519_key):
        headers = {name: value for name, value in {**_signed(key, b"{}"), **changes}.items() if value is not None}
        assert not _functions()["is_genuine"]("plain", headers, b"{}", NOW.timestamp())
        assert not _functions()["is_genuine_v1a"](bytes(pair.verify_key), headers, b"{}")


def test_the_printed_check_of_v1a_tells_genuine_from_changed() -> None:
    is_genuine = _functions()["is_genuine_v1a"]
    pair = SigningKey(b"s" * 32)
    key = _key(algorithm="Ed25519", secret=bytes(pair), public=bytes(pair.verify_key))
    headers = _signed(key, b"{}")

    assert is_genuine(bytes(pair.verify_key), headers, b"{}")
    assert not is_genuine(bytes(pair.verify_key), headers, b"{ }")
    assert not is_genuine(bytes(SigningKey(b"t" * 32).verify_key), headers, b"{}")
