"""Certificates and kubeconfigs of one cluster: a CA, the API server's certificate, a bearer token for each user.

Called by the control plane before it starts. Tokens in a file are the shortest way to several users.
"""

import base64
import json
import secrets
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

NAMES = (
    *("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"),
    "localhost",
)
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def certificates(directory: Path, addresses: Sequence[str]) -> None:
    """Make ca.crt, ca.key, sa.key, and api.crt with api.key for an API server at these addresses."""
    directory.mkdir(parents=True, exist_ok=True)
    days = ("-nodes", "-days", "30")
    ca = ("-keyout", directory / "ca.key", "-out", directory / "ca.crt")
    _openssl("req", "-x509", *CURVE, *days, "-subj", "/CN=kapsel-cluster", *ca)
    _openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", directory / "sa.key")
    names = ",".join([f"DNS:{name}" for name in NAMES] + [f"IP:{address}" for address in addresses])
    api = ("-keyout", directory / "api.key", "-out", directory / "api.crt")
    signer = ("-CA", directory / "ca.crt", "-CAkey", directory / "ca.key")
    subject = ("-subj", "/CN=kube-apiserver", "-addext", f"subjectAltName={names}")
    _openssl("req", "-x509", *CURVE, *days, *subject, *signer, *api)


def tokens(directory: Path, users: Mapping[str, str]) -> dict[str, str]:
    """Write tokens.csv for the API server, {user: group}, and return the token of each user."""
    made = {user: secrets.token_urlsafe(24) for user in users}
    lines = [f"{made[user]},{user},{user}" + (f',"{group}"' if group else "") for user, group in users.items()]
    _private(directory / "tokens.csv", "\n".join(lines) + "\n")
    return made


def kubeconfig(path: Path, *, server: str, ca: Path, user: str, token: str) -> None:
    """Write how `user` reaches the API server."""
    authority = base64.b64encode(ca.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "kapsel",
        "clusters": [{"name": "kapsel", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": {"token": token}}],
        "contexts": [{"name": "kapsel", "context": {"cluster": "kapsel", "user": user}}],
    }
    _private(path, json.dumps(config, indent=1))


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)
