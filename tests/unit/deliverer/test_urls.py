from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_egress import urls

PIECES = ["http", "https", ":", "//", "/", "[", "]", "::1", "1.2.3.4", "a", "@", "?", "#", ":80", ":0", ":65536", "%20"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:443/hooks?a=b@c",
        "http://127.0.0.1:9900/",
        "https://[::]/",
        "https://[2001:db8::1]:8443",
        "https://[::ffff:192.0.2.1]/",
        "https://[1:2:3:4:5:6:7:8]/",
        "https://[1:2:3:4:5:6:7::]/",
        "https://example.com:/",
    ],
)
def test_a_url_that_can_be_sent_to_is_taken(url):
    assert urls.wrong(url) is None


@pytest.mark.parametrize(
    "host",
    ["[1:2:3:4:5:6:7:8:9]", "[:::]", "[1::2::3]", "[12345::]", "[::256.0.0.1]", "[fe80::1%25eth0]", "[v1.a]", "[]"],
)
def test_what_is_no_address_in_brackets_is_refused(host):
    assert urls.wrong(f"https://{host}/") == "the host of the URL cannot be read"


@given(st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join).map("https://".__add__))
def test_what_is_taken_means_the_same_to_a_parser(url):
    if urls.wrong(url) is None:
        parts = urlsplit(url)

        assert parts.hostname
        assert parts.username is None
        assert parts.fragment == ""
        assert parts.port is None or 1 <= parts.port <= 65535
