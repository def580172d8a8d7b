"""`kapsel try` by manifests: what becomes of a file at each destination, and what is wrong where."""

import io
import json

import pytest

from kapsel_cli.__main__ import main
from kapsel_cli.trial import Mistake

MANIFEST = """\
apiVersion: kapsel.dev/v1alpha1
kind: WebhookEndpoint
metadata: {name: orders, namespace: shop}
spec:
  verification:
    github: {signingKeyRef: {name: of-no-matter-here}}
  maxBodyBytes: 200
  destinations:
"""
CHAT = """\
  - name: chat
    url: https://chat.example.com/hooks
    filter: event.type == "push" && event.headers["x-region"] == "eu"
    ordering: {type: PerKey, key: string(event.body.user.id)}
    transform:
      body: '{"user": event.body.user.id, "type": event.type}'
      headers:
      - {name: X-Ref, value: event.body.ref}
"""
REFUNDS = """\
  - name: refunds
    url: https://refunds.example.com/hooks
    filter: event.body.refund.amount > 100
"""
BODY = '{"ref": "main", "user": {"id": 7}}'


@pytest.fixture
def kapsel(tmp_path, capsys, monkeypatch):
    """Run the command on a folder of manifests."""

    def run(destinations: str, *arguments: str, body: str | bytes = BODY) -> tuple[int, str, str]:
        (tmp_path / "k8s").mkdir(exist_ok=True)
        (tmp_path / "k8s" / "orders.yaml").write_text(MANIFEST + destinations)
        (tmp_path / "event").write_bytes(body.encode() if isinstance(body, str) else body)
        monkeypatch.chdir(tmp_path)
        file = () if "-" in arguments else ("event",)
        code = main(("try", "shop/orders", "--manifests", "k8s", *file, *arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_who_gets_an_event_and_as_what_is_said(kapsel) -> None:
    code, out, err = kapsel(CHAT, "--type", "push", "--header", "X-Region: eu")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "an event of type push, 34 bytes of JSON",
        "",
        "chat gets it",
        "  order key  7",
        "  header     x-ref: main",
        "  body       application/json, 24 bytes:",
        '  {"type":"push","user":7}',
    ]


def test_who_does_not_get_it_is_told_the_reason(kapsel) -> None:
    code, out, _ = kapsel(CHAT, "--type", "push", "--header", "X-Region: us")
    assert code == 0
    assert "chat does not get it: its filter gives false" in out.splitlines()


@pytest.mark.parametrize(
    ("url", "stalls", "says"),
    [
        ("https://127.0.0.1/", "AddressDenied", "not allowed by the Relay; allowed: a public address"),
        ("https://[::ffff:127.0.0.1]/", "AddressDenied", "not allowed by the Relay; allowed: a public address"),
        ("https://1.2.3.4%2e5/", "UrlInvalid", "; allowed: an absolute URL such as https://billing.example.com/hooks"),
        ("http://chat.example.com/", "PlainHTTP", "the Relay does not allow plain http; allowed: https"),
    ],
)
def test_a_url_that_the_plan_refuses_gets_nothing(kapsel, url: str, stalls: str, says: str) -> None:
    code, out, _ = kapsel(f"  - name: chat\n    url: {url}\n")
    said = out.splitlines()[2:]
    assert (code, said[0]) == (1, f"chat is not taken: the endpoint would be Stalled with {stalls}")
    assert said[1].startswith("  k8s/orders.yaml:10: url: ")
    assert says in said[1]
    relay = "---\napiVersion: kapsel.dev/v1alpha1\nkind: Relay\nmetadata: {name: main, namespace: shop}\nspec: "
    allows = "{egress: {allowHTTP: true, allowedCIDRs: [127.0.0.0/8]}}\n"
    code, out, _ = kapsel(f"  - name: chat\n    url: {url}\n{relay}{allows}")
    assert (code, "chat gets it" in out) == ((1, False) if "%2e" in url or "[" in url else (0, True))
    code, out, _ = kapsel(f"  - name: chat\n    url: {url}\n{relay}{{of: [which, nobody, can, tell]}}\n")
    assert (code, "chat gets it" in out) == ((1, False) if "%2e" in url else (0, True))


def test_what_fails_is_shown_in_its_expression_and_by_the_exit_code(kapsel) -> None:
    code, out, _ = kapsel(REFUNDS)
    assert code == 1
    assert out.splitlines()[2:] == [
        "refunds does not get it while this fails: the try is recorded as `unsent`, and made again",
        "  k8s/orders.yaml:11: filter: the event has no refund (character 12)",
        "    event.body.refund.amount > 100",
        "               ^",
    ]


def test_a_transform_and_an_order_key_that_fail_are_told_each(kapsel) -> None:
    headers = CHAT.replace("value: event.body.ref", "value: event.body.user").replace("user.id)", "customer)")
    code, out, _ = kapsel(headers, "--type", "push", "--header", "X-Region: eu")
    assert code == 1
    assert "  k8s/orders.yaml:12: ordering.key: the event has no customer (character 19)" in out.splitlines()
    assert (
        "  k8s/orders.yaml:16: transform.headers[0].value: it gives a map, where a string belongs (character 12)"
        in out.splitlines()
    )


def test_an_expression_that_would_stall_the_endpoint_is_told_as_that(kapsel) -> None:
    code, out, _ = kapsel(REFUNDS.replace("event.body", "evnt.body"))
    assert code == 1
    assert "refunds is not taken: the endpoint would be Stalled with ExpressionInvalid" in out.splitlines()
    assert "filter: there is no evnt (character 1); allowed: event" in out


def test_all_of_it_is_there_as_json(kapsel) -> None:
    code, out, _ = kapsel(CHAT + REFUNDS, "--type", "push", "--header", "X-Region: eu", "-o", "json")
    said = json.loads(out)
    assert code == 1
    assert said["event"]["type"] == "push"
    chat, refunds = said["destinations"]
    assert (chat["result"], chat["order_key"], chat["headers"], chat["body"]) == (
        *("sent", "7", {"x-ref": "main"}, '{"type":"push","user":7}'),
    )
    assert (refunds["result"], refunds["mistakes"][0]["character"]) == ("failed", 12)
    assert refunds["mistakes"][0]["declared_at"] == "k8s/orders.yaml:19"


def test_one_destination_may_be_asked_alone(kapsel) -> None:
    code, out, _ = kapsel(CHAT + REFUNDS, "--destination", "chat", "--type", "push", "--header", "X-Region: eu")
    assert (code, "refunds" in out) == (0, False)
    code, _, err = kapsel(CHAT, "--destination", "chatt")
    assert (code, err) == (1, "kapsel: shop/orders has no destination chatt. It has: chat.\n")


def test_a_body_that_is_no_json_goes_as_it_came(kapsel) -> None:
    plain = "  - {name: all, url: 'https://a.example.com', transform: {body: event.body}}\n"
    code, out, _ = kapsel(plain, body=b"a=1\xff")
    assert code == 0
    assert out.splitlines() == [
        *("an event without a type, 4 bytes that are no JSON", "", "all gets it", "  body       as it came"),
    ]


def test_what_the_endpoint_would_not_take_is_said(kapsel) -> None:
    code, out, _ = kapsel("  - {name: all, url: 'https://a.example.com', suspend: true}\n", body=f'"{"x" * 300}"')
    assert code == 0
    assert "the endpoint takes at most 200 bytes: it would be refused with 413" in out.splitlines()
    assert "  later: the manifest suspends the destination" in out.splitlines()


def test_an_expression_sees_no_header_that_is_not_stored(kapsel) -> None:
    guarded = "  - {name: all, url: 'https://a.example.com', filter: '!(\"authorization\" in event.headers)'}\n"
    code, out, _ = kapsel(guarded, "--header", "Authorization: Bearer x")
    assert (code, out.splitlines()[2]) == (0, "all gets it")


def test_the_body_may_come_in_on_standard_input(kapsel, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(BODY.encode())))
    code, out, _ = kapsel(CHAT, "-", "--type", "issues")
    assert (code, out.splitlines()[0]) == (0, "an event of type issues, 34 bytes of JSON")


def test_manifests_that_cannot_be_read_are_named_with_file_and_line(kapsel) -> None:
    code, out, err = kapsel(REFUNDS.replace("filter:", "filtre:"))
    assert (code, out) == (1, "")
    assert err.startswith("k8s/orders.yaml:11: WebhookEndpoint shop/orders: spec.destinations[0].filtre: there is no")


def test_an_endpoint_that_is_not_there_is_named(kapsel, tmp_path, capsys) -> None:
    kapsel(REFUNDS)
    assert main(("try", "shop/order", "event", "--manifests", "k8s")) == 1
    assert capsys.readouterr().err == "kapsel: k8s declares no endpoint called shop/order. It has: shop/orders.\n"
    assert main(("try", "shop/orders", "event", "--manifests", "k9s")) == 1
    assert capsys.readouterr().err.startswith("kapsel: k9s is not a directory.")


def test_a_type_for_a_provider_that_names_none_in_a_header_is_refused(kapsel, tmp_path) -> None:
    kapsel(REFUNDS)
    file = tmp_path / "k8s" / "orders.yaml"
    file.write_text(file.read_text().replace("github:", "stripe:"))
    assert main(("try", "orders", "event", "--manifests", "k8s", "--type", "push")) == 1


@pytest.mark.parametrize("wrong", [("--header", "X-Region"), ("--header", ": eu"), ("--event", "1"), ("event",)])
def test_arguments_that_are_wrong_end_with_2(kapsel, wrong: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(("try", "shop/orders", "event", *wrong))
    assert ended.value.code == 2


def test_a_file_that_is_not_there_is_named(kapsel, capsys) -> None:
    kapsel(REFUNDS)
    assert main(("try", "orders", "no-such-file", "--manifests", "k8s")) == 1
    assert capsys.readouterr().err.startswith("kapsel: no-such-file cannot be read:")


def test_of_a_long_line_what_is_around_the_mistake_is_shown() -> None:
    source = "first\n" + "a" * 300 + "!" + "b" * 300
    line, mark = Mistake(where="filter", reason="type", said="", source=source, at=306).excerpt
    assert (len(line), line[mark.index("^")]) == (100, "!")
