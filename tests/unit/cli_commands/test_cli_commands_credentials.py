"""`kapsel send --manifests` signs with what the manifests hold, so that the receiver takes it."""

import base64
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from multidict import CIMultiDict
from nacl.signing import SigningKey

from kapsel_cli import credentials, manifests, providers
from kapsel_cli.errors import CliError
from kapsel_receiver.signatures import Verified, verify
from kapsel_resources.plan import plan
from kapsel_store.rows import Configuration

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SEED = bytes(range(32))
KINDS = {
    "github": "{github: {signingKeyRef: {name: text}}}",
    "stripe": "{stripe: {signingKeyRef: {name: text}}}",
    "shopify": "{shopify: {signingKeyRef: {name: text}}}",
    "slack": "{slack: {signingKeyRef: {name: text}}}",
    "standard": "{standardWebhooks: {signingKeyRef: {name: text}}}",
    "asymmetric": "{standardWebhooks: {signingKeyRef: {name: pair}}}",
    "hmac": "{hmac: {signingKeyRef: {name: long}, header: X-Sig, algorithm: sha512, encoding: base64}}",
    "dated": "{hmac: {signingKeyRef: {name: text}, header: X-Sig, prefix: 'v0=', timestampHeader: X-Time}}",
    "basic": "{basic: {secretRef: {name: login}}}",
    "bearer": "{bearer: {secretRef: {name: token}}}",
    "open": "{none: {}}",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    text = base64.b64encode(b"a secret of the provider's").decode()
    parts = [
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: text}}\nstringData: {{key: whsec_{text}}}",
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: pair}}\nstringData: {{key: '{SEED.hex()}'}}",
        f"apiVersion: v1\nkind: Secret\nmetadata: {{name: public}}\nstringData: {{key: 'whpk_{public()}'}}",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\nstringData: {username: me, password: it's me}",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {token: abc}",
    ]
    algorithms = {"text": "HMAC-SHA256", "long": "HMAC-SHA512", "pair": "Ed25519", "public": "Ed25519"}
    for name, algorithm in algorithms.items():
        secret = "text" if name == "long" else name
        parts.append(
            f"apiVersion: kapsel.dev/v1alpha1\nkind: SigningKey\nmetadata: {{name: {name}}}\n"
            f"spec: {{algorithm: {algorithm}, source: Secret, secretRef: {{name: {secret}}}}}"
        )
    for name, verification in {**KINDS, "half": "{standardWebhooks: {signingKeyRef: {name: public}}}"}.items():
        parts.append(
            f"apiVersion: kapsel.dev/v1alpha1\nkind: WebhookEndpoint\nmetadata: {{name: {name}}}\n"
            f"spec:\n  verification: {verification}\n  destinations: [{{name: d, url: 'https://a.example/'}}]"
        )
    parts.append("apiVersion: kapsel.dev/v1alpha1\nkind: Relay\nmetadata: {name: main}\nspec: {}")
    (tmp_path / "all.yaml").write_text("\n---\n".join(parts))
    return tmp_path


def public() -> str:
    return base64.b64encode(bytes(SigningKey(SEED).verify_key)).decode()


@pytest.mark.parametrize("name", KINDS)
def test_what_is_sent_is_what_the_receiver_accepts(directory: Path, name: str) -> None:
    resources = manifests.read(directory).resources
    planned = plan(resources, existing=Configuration(), now=NOW, entropy=lambda count: uuid4().bytes * (count // 16))
    (row,) = [row for row in planned.configuration.endpoints if row.name == name]
    found = credentials.read(directory, "default", name)
    webhook = providers.Outgoing(body=b'{"a": 1}', secret=found.secret, id="1", type="test", now=NOW)
    headers = CIMultiDict(providers.headers(found.verification, webhook))
    keys = [key for key in planned.configuration.keys if key.name == row.verification.key_name]
    assert isinstance(verify(row.verification, headers, b'{"a": 1}', keys, NOW + timedelta(seconds=1)), Verified)


def test_what_the_manifests_lack_is_said(directory: Path) -> None:
    with pytest.raises(CliError, match="declares no WebhookEndpoint default/nothing"):
        credentials.read(directory, "default", "nothing")
    with pytest.raises(CliError, match="only the public half"):
        credentials.read(directory, "default", "half")
