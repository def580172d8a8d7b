"""What docs/acknowledgements.md shows is what examples/acknowledge holds, and its commands do what it says."""

import base64
import importlib.util
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
    if shutil.which("openssl") is None and os.environ.get("CI") != "true":
        pytest.skip("the commands need openssl: install it with your package manager")
    make, show = re.findall(r"^\$ (openssl (?:genpkey|pkey) .*)$", PAGE, re.MULTILINE)
    (check,) = re.findall(r"^\$ (openssl pkeyutl .*)$", PAGE, re.MULTILINE)

    def shell(command: str) -> str:
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
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
    (tmp_path / "base.txt").write_bytes(b"what is signed")
    (tmp_path / "signature.bin").write_bytes(key.sign(b"what is signed").signature)
    shell("openssl pkey -in key.pem -pubout -out destination.pem")
    assert shell(check) == "Signature Verified Successfully"
    (tmp_path / "base.txt").write_bytes(b"what is signes")
    with pytest.raises(subprocess.CalledProcessError):
        shell(check)
