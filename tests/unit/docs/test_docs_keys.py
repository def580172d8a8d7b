"""The ceremony of docs/keys-of-a-log.md, done as it is written there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kapsel_resources import key_values
from kapsel_resources.manifests import parse
from kapsel_verifier.note import VerifierKey

PAGE = (Path(__file__).parents[3] / "docs" / "keys-of-a-log.md").read_text(encoding="utf-8")


def blocks(language: str, section: str) -> list[str]:
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_ceremony_makes_a_seed_its_vkey_and_its_fingerprint(tmp_path: Path) -> None:
    script = "set -eu\n" + "\n".join(blocks("sh", "The ceremony"))
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}

    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True, timeout=240
    )

    shown, fingerprint = done.stdout.split()
    key = VerifierKey.parse(shown)
    value = key_values.ed25519((tmp_path / "log-2026.seed").read_bytes())
    assert (key.name, key.public_key) == ("log.example.com/orders", value.public)
    assert fingerprint == key.key_id.hex()
    assert (tmp_path / "log-2026.pem").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("block", [*blocks("yaml", "Where the private half lives"), *blocks("yaml", "Rotation")])
def test_every_manifest_of_the_page_is_read_without_a_problem(block: str) -> None:
    block = block.replace("<log-2026.seed>", "A" * 43 + "=")
    whole = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "SigningKey", "metadata": {"name": "log"}}
    for document in yaml.safe_load_all(block):
        if document.get("kind") == "NetworkPolicy":
            continue
        found = parse({**whole, **document})
        assert not isinstance(found, list), [str(problem) for problem in found]
