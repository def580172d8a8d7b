"""The verifier runs where there is nothing but the standard library, pynacl and cffi."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

PROGRAM = """
import json, os, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
import kapsel_verifier.cli
def loaded():
    return sorted({name.partition(".")[0] for name in sys.modules})
code = kapsel_verifier.cli.main(sys.argv[3:])
by_the_command = loaded()
for name in os.listdir(kapsel_verifier.__path__[0]):
    if name.endswith(".py") and not name.startswith("__"):
        __import__("kapsel_verifier." + name[:-3])
print(json.dumps([code, by_the_command, loaded()]), file=sys.stderr)
"""


def test_the_package_verifies_where_only_pynacl_can_be_imported(log: ModuleType, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for name in ("nacl", "_cffi_backend"):
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        source = origin.parent if origin.name == "__init__.py" else origin
        (site / source.name).symlink_to(source)
    spec = importlib.util.find_spec("kapsel_verifier")
    assert spec is not None
    assert spec.origin is not None
    package = tmp_path / "package"
    package.mkdir()
    (package / "kapsel_verifier").symlink_to(Path(spec.origin).parent)
    (tmp_path / "proof.json").write_bytes(log.PROOF.encode())
    arguments = ["--proof", str(tmp_path / "proof.json"), "--public-key", log.vkey().encode()]

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, str(site), str(package), *arguments],
        capture_output=True, timeout=240, check=True,
    )  # fmt: skip

    code, by_the_command, loaded = json.loads(done.stderr)
    assert code == 0
    assert done.stdout.startswith(b"Proof verified successfully!\n")
    allowed = sys.stdlib_module_names | {"__main__", "kapsel_verifier", "nacl", "_sodium", "_cffi_backend"}
    assert set(loaded) - allowed == set()
    # Each of these costs the command line a tenth of its time.
    assert {"dataclasses", "inspect", "pathlib", "datetime", "asyncio", "argparse"} & set(by_the_command) == set()
