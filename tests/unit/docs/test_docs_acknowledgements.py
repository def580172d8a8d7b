"""What docs/acknowledgements.md shows is what examples/acknowledge holds, and its commands do what it says."""

import base64
import importlib.util
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "acknowledgements.md").read_text(encoding="utf-8")
EXAMPLES = ROOT / "examples" / "acknowledge"


@pytest.mark.parametrize("name", ["python/acknowledge.py", "go/acknowledge.go", "javascript/acknowledge.mjs"])
def test_the_page_shows_the_example_as_it_is(name: str) -> None:
    assert f"\n{(EXAMPLES / name).read_text(encoding='utf-8')}```\n" in PAGE


def test_the_middleware_is_as_short_as_it_should_be() -> None:
    source = (EXAMPLES / "python" / "acknowledge.py").read_text(encoding="utf-8")
    middleware = source[source.index("def acknowledge(") :].strip().splitlines()
    assert len(middleware) <= 30


def test_the_commands_of_the_page_make_a_key_and_check_a_signature(tmp_path: Path) -> None:
    lacking = [program for program in ("openssl", "jq") if shutil.which(program) is None]
    if lacking and os.environ.get("CI") != "true":
        pytest.skip(f"the commands need {' and '.join(lacking)}: install it with your package manager")
    make, show = re.findall(r"^\$ (openssl (?:genpkey|pkey) .*)$", PAGE, re.MULTILINE)
    *take, check = re.findall(r"^\$ (jq .*|\{ .* openssl pkey .*|openssl pkeyutl .*)$", PAGE, re.MULTILINE)
    assert len(take) == 4

    def shell(command: str, **variables: str) -> str:
        environment = {**os.environ, **variables}
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    shell(make)
    public = base64.b64decode(shell(show))
    spec = importlib.util.spec_from_file_location("acknowledge", EXAMPLES / "python" / "acknowledge.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    key = example.read_key(str(tmp_path / "key.pem"))
    assert bytes(key.verify_key) == public
    signed = key.sign(b"what is signed")
    members = {
        "acknowledgement_base": base64.b64encode(signed.message).decode(),
        "acknowledgement_signature": signed.signature.hex(),
    }
    leaf = base64.b64encode(json.dumps(members).encode()).decode()
    (tmp_path / "proof.json").write_text(json.dumps({"leaf_b64": leaf}))
    for command in take:
        shell(command, KEY=f"whpk_{base64.b64encode(public).decode()}")
    assert (tmp_path / "signature.bin").read_bytes() == signed.signature
    assert shell(check) == "Signature Verified Successfully"
    (tmp_path / "base.txt").write_bytes(b"what is signes")
    with pytest.raises(subprocess.CalledProcessError):
        shell(check)
