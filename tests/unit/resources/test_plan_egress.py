"""What a destination and a Relay name in Secrets: resolved, sealed into rows, and said when it is not there."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kapsel_resources import keys
from kapsel_resources.plan import Plan, plan
from kapsel_store.rows import Configuration, OAuth2, Proxy, Tls

PEM = Path(__file__).parents[2] / "integration" / "deliverer" / "tls"
CA = (PEM / "private-ca.pem").read_text()
PRIVATE, _, CERTIFICATE = (PEM / "client.pem").read_text().partition("-----BEGIN CERTIFICATE-----")
CERTIFICATE = f"-----BEGIN CERTIFICATE-----{CERTIFICATE}"
OTHER_PRIVATE = (PEM / "stranger.pem").read_text().partition("-----BEGIN CERTIFICATE-----")[0]
OAUTH2 = {
    "tokenURL": "https://login.example.com/token",
    "clientIdSecretRef": {"name": "client", "key": "id"},
    "clientSecretSecretRef": {"name": "client", "key": "secret"},
}
SECRET_HEADER = {"name": "X-Key", "valueFrom": {"secretKeyRef": {"name": "api", "key": "k"}}}
HEADERS = [{"name": "X-Team", "value": "a"}, SECRET_HEADER]
NOTHING = Configuration()
TLS = {"caSecretRef": {"name": "ca"}, "clientCertificateSecretRef": {"name": "client-tls"}, "minVersion": "1.3"}


@pytest.fixture
def run(resource, secret, now, entropy) -> Callable[..., Plan]:
    """Plan one endpoint whose destination is declared so, with these Secrets."""

    def planned(
        *others: object, existing: Configuration = NOTHING, relay: dict | None = None, **destination: object
    ) -> Plan:
        declared = {"name": "a", "url": "https://a.example.com", **destination}
        around = resource("Relay", "main", {"egress": relay or {}})
        endpoint = resource("WebhookEndpoint", "orders", {"verification": {"none": {}}, "destinations": [declared]})
        return plan([around, endpoint, *others], existing=existing, now=now, entropy=entropy)

    return planned


@pytest.fixture
def everything(secret) -> list[object]:
    return [
        secret("api", k="the-key\n"),
        secret("client", id="kapsel", secret="hush"),
        secret("ca", **{"ca.crt": CA}),
        secret("client-tls", **{"tls.crt": CERTIFICATE, "tls.key": PRIVATE}),
        secret("proxy", username="me", password="hush"),
    ]


def said(planned: Plan) -> list[tuple[str, str]]:
    return [(problem.reason, problem.field) for problem in planned.problems]


def test_what_stands_in_secrets_goes_into_rows_of_its_own_and_never_into_that_of_the_destination(run, everything):
    proxy = {"url": "http://proxy.example.com:3128", "credentialsSecretRef": {"name": "proxy"}}
    planned = run(*everything, headers=HEADERS, tls=TLS, oauth2=OAUTH2, relay={"proxy": proxy})

    assert said(planned) == []
    (row,) = planned.configuration.destinations
    assert row.headers == (("X-Team", "a"),)
    assert row.secret_headers == (("X-Key", "secret/api/k"),)
    assert row.tls == Tls(ca_name="ca/ca/ca.crt", certificate_name="certificate/client-tls", min_version="1.3")
    assert row.oauth2 == OAuth2(
        token_url="https://login.example.com/token",
        client_id_name="secret/client/id",
        client_secret_name="secret/client/secret",
    )
    assert planned.configuration.relay.proxy == Proxy(
        url="http://proxy.example.com:3128", credentials_name="basic/proxy"
    )
    found = {key.name: key.secret for key in planned.configuration.keys}
    assert (found["secret/api/k"], found["secret/client/secret"]) == (b"the-key", b"hush")
    assert (found["basic/proxy"], found["ca/ca/ca.crt"]) == (b"me:hush", CA.encode())
    assert found["certificate/client-tls"] == f"{PRIVATE}\n{CERTIFICATE}".encode()
    assert all(keys.is_credential(name) for name in found if name.partition("/")[0] not in ("endpoint", "log"))


def test_planning_again_changes_nothing_and_a_new_value_makes_a_new_version(run, everything, secret):
    first = run(*everything, headers=HEADERS)
    again = run(*everything, headers=HEADERS, existing=first.configuration)
    assert again.configuration == first.configuration

    changed = run(secret("api", k="another"), headers=HEADERS, existing=first.configuration)
    (key,) = [key for key in changed.configuration.keys if key.name == "secret/api/k"]
    assert (key.version, key.secret) == (2, b"another")


@pytest.mark.parametrize(
    ("destination", "lacking", "reason", "field"),
    [
        ({"headers": HEADERS}, {"api": None}, "SecretNotFound", "headers[1].valueFrom.secretKeyRef"),
        ({"headers": HEADERS}, {"api": {"x": "y"}}, "SecretEntryNotFound", "headers[1].valueFrom.secretKeyRef"),
        ({"headers": HEADERS}, {"api": {"k": "a\r\nb: c"}}, "InvalidKey", "headers[1].valueFrom.secretKeyRef"),
        ({"headers": HEADERS}, {"api": {"k": "ü"}}, "InvalidKey", "headers[1].valueFrom.secretKeyRef"),
        ({"oauth2": OAUTH2}, {"client": {"id": "a"}}, "SecretEntryNotFound", "oauth2.clientSecretSecretRef"),
        ({"oauth2": OAUTH2}, {"client": {"secret": "a"}}, "SecretEntryNotFound", "oauth2.clientIdSecretRef"),
        ({"oauth2": {**OAUTH2, "tls": TLS}}, {"ca": None}, "SecretNotFound", "oauth2.tls.caSecretRef"),
        ({"tls": TLS}, {"ca": {"ca.crt": "hello"}}, "InvalidKey", "tls.caSecretRef"),
        ({"tls": TLS}, {"ca": {"ca.crt": PRIVATE}}, "InvalidKey", "tls.caSecretRef"),
        (
            {"tls": TLS},
            {"client-tls": {"tls.crt": CERTIFICATE}},
            "SecretEntryNotFound",
            "tls.clientCertificateSecretRef",
        ),
        (
            {"tls": TLS},
            {"client-tls": {"tls.crt": CERTIFICATE, "tls.key": OTHER_PRIVATE}},
            "InvalidKey",
            "tls.clientCertificateSecretRef",
        ),
        (
            {"oauth2": {**OAUTH2, "tokenURL": "https://169.254.169.254/"}},
            {},
            "AddressDenied",
            "oauth2.tokenURL",
        ),
    ],
)
def test_what_is_not_there_stalls_the_endpoint_and_what_was_good_stays(
    run, everything, secret, destination, lacking, reason, field
):
    good = run(*everything).configuration
    present = [one for one in everything if one.metadata.name not in lacking]
    present += [secret(name, **entries) for name, entries in lacking.items() if entries]

    planned = run(*present, existing=good, **destination)

    assert said(planned) == [(reason, f"spec.destinations[0].{field}")]
    assert planned.configuration.destinations == good.destinations
    (status,) = [one for one in planned.statuses if one.resource.kind == "WebhookEndpoint"]
    assert status.stalled
    assert "BEGIN" not in status.message
    assert "hush" not in status.message


def test_a_proxy_without_its_credentials_stalls_the_relay_and_deliveries_still_go_to_it_alone(run, everything):
    proxy = {"url": "http://proxy.example.com:3128", "credentialsSecretRef": {"name": "absent"}}
    planned = run(relay={"proxy": proxy})

    assert said(planned) == [("SecretNotFound", "spec.egress.proxy.credentialsSecretRef")]
    (status,) = [one for one in planned.statuses if one.resource.kind == "Relay"]
    assert status.stalled
    assert planned.configuration.relay.proxy is not None
    assert len(planned.configuration.destinations) == 1


def test_the_authorities_of_a_proxy_are_a_key_of_the_relay_and_what_is_wrong_with_them_is_told_of_it(run, secret):
    proxy = {"url": "https://proxy.example.com:3128", "caSecretRef": {"name": "our-ca", "key": "root.pem"}}
    planned = run(secret("our-ca", **{"root.pem": CA}), relay={"proxy": proxy})
    assert said(planned) == []
    assert planned.configuration.relay.proxy == Proxy(
        url="https://proxy.example.com:3128", ca_name="ca/our-ca/root.pem"
    )
    assert {key.name: key.secret for key in planned.configuration.keys}["ca/our-ca/root.pem"] == CA.encode()
    assert keys.users(planned.configuration)["shop", "ca/our-ca/root.pem"] == ["relay shop/main"]

    for wrong, reason in (
        ([], "SecretNotFound"),
        ([secret("our-ca", **{"ca.crt": CA})], "SecretEntryNotFound"),
        ([secret("our-ca", **{"root.pem": "no PEM"})], "InvalidKey"),
    ):
        planned = run(*wrong, relay={"proxy": proxy})
        assert said(planned) == [(reason, "spec.egress.proxy.caSecretRef")]
        (status,) = [one for one in planned.statuses if one.resource.kind == "Relay"]
        assert status.stalled
        assert planned.configuration.relay.proxy is not None


def test_who_uses_a_secret_is_known(run, everything):
    configuration = run(*everything, headers=HEADERS).configuration
    assert keys.users(configuration)["shop", "secret/api/k"] == ["destination shop/orders/a"]


def test_resources_tell_which_secrets_must_be_read_for_them(resource):
    destination = {"name": "a", "url": "https://a.example.com", "headers": HEADERS, "tls": TLS, "oauth2": OAUTH2}
    endpoint = resource("WebhookEndpoint", "orders", {"verification": {"none": {}}, "destinations": [destination]})
    proxy = {
        "url": "https://proxy.example.com:3128",
        "credentialsSecretRef": {"name": "proxy"},
        "caSecretRef": {"name": "proxy-ca"},
    }
    relay = resource("Relay", "main", {"egress": {"proxy": proxy}})

    assert endpoint.spec.secret_names() == {"api", "client", "ca", "client-tls"}
    assert relay.spec.secret_names() == {"proxy", "proxy-ca"}
    assert resource("Relay", "other", {}).spec.secret_names() == frozenset()
