"""The bytes of a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from kapsel_deliverer.exchange import header_lines, request_lines


def test_a_request_begins_with_its_target_and_host() -> None:
    head = request_lines(URL("https://example.com/a%20b?c=d"), {"X-Team": "billing"})
    assert head == b"POST /a%20b?c=d HTTP/1.1\r\nhost: example.com\r\nX-Team: billing\r\n"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://example.com:8443", b"example.com:8443"),
        ("http://example.com:80/", b"example.com"),
        ("http://[2606:4700::1]:8080/", b"[2606:4700::1]:8080"),
        ("https://bücher.example/", b"xn--bcher-kva.example"),
    ],
)
def test_the_host_is_named_as_the_url_names_it(url: str, host: bytes) -> None:
    assert request_lines(URL(url), {}).split(b"\r\n")[1] == b"host: " + host


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\rb", "\r\n", "a\0"])
def test_a_value_that_would_read_as_another_line_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="line break"):
        header_lines({"x-team": value, "x-other": "fine"})


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "ü"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        request_lines(URL("https://example.com/"), {name: "x"})


@given(st.dictionaries(st.from_regex(r"[a-z-]{1,10}", fullmatch=True), st.text(max_size=20), max_size=5))
def test_headers_are_as_many_lines_or_refused(headers: dict[str, str]) -> None:
    try:
        lines = header_lines(headers)
    except ValueError:
        assert any(set(value) & set("\r\n\0") for value in headers.values())
    else:
        assert len(lines.split(b"\r\n")) == len(headers) + 1
