import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import SigningKey

from kapsel_resources import key_values
from kapsel_resources.key_values import KeyValueError

SEED = bytes(range(32))
PUBLIC = bytes(SigningKey(SEED).verify_key)


@pytest.mark.parametrize("value", [b"whsec_MTIz", b"It's a secret", b"\x00\xff"])
def test_a_literal_secret_is_used_as_it_stands(value):
    assert key_values.literal(value).secret == value


@pytest.mark.parametrize("ending", [b"\n", b"\r\n", b"\n\n"])
def test_line_ends_after_a_value_are_ignored(ending):
    assert key_values.literal(b"secret" + ending).secret == b"secret"


def test_a_standard_webhooks_secret_is_the_bytes_behind_the_prefix():
    assert key_values.standard(b"whsec_MTIz").secret == b"123"
    assert key_values.standard(b"no prefix").secret == b"no prefix"


@pytest.mark.parametrize(
    "value",
    [
        SEED.hex().encode(),
        SEED.hex().upper().encode(),
        base64.b64encode(SEED),
        b"whsk_" + base64.b64encode(SEED),
        b"whsk_" + base64.b64encode(SEED + PUBLIC),
        base64.b64encode(SEED) + b"\n",
    ],
)
def test_every_form_of_a_seed_gives_the_same_pair(value):
    assert key_values.ed25519(value) == key_values.KeyValue(secret=SEED, public=PUBLIC)


def test_a_public_key_has_no_secret_half():
    value = key_values.ed25519(b"whpk_" + base64.b64encode(PUBLIC))

    assert (value.secret, value.public) == (b"", PUBLIC)


@pytest.mark.parametrize(
    ("read", "value", "wrong"),
    [
        (key_values.literal, b"", "the value is empty"),
        (key_values.literal, b"\n", "the value is empty"),
        (key_values.literal, b"x" * 5000, "the value has 5000 bytes"),
        (key_values.standard, b"whsec_", "there is nothing behind whsec_"),
        (key_values.standard, b"whsec_not base64", "the value is not base64"),
        (key_values.standard, b"whsec_MTIz=", "the value is not base64 as it should be written"),
        (key_values.ed25519, b"whpk_MTIz", "the public key has 3 bytes"),
        (key_values.ed25519, b"MTIz", "the key has 3 bytes"),
        (key_values.ed25519, b"whsk_" + base64.b64encode(SEED + SEED), "the public half does not belong to the seed"),
        (key_values.ed25519, b"-----BEGIN PRIVATE KEY-----", "the value is not base64"),
    ],
)
def test_a_value_that_is_no_key_is_refused_without_being_shown(read, value, wrong):
    with pytest.raises(KeyValueError) as caught:
        read(value)

    assert caught.value.wrong == wrong


@given(st.binary(max_size=100))
def test_any_bytes_are_a_key_or_a_key_value_error(value):
    for read in (key_values.literal, key_values.standard, key_values.ed25519):
        try:
            assert read(value).secret or read(value).public
        except KeyValueError:
            pass


@given(st.binary(min_size=1, max_size=64))
def test_a_shared_secret_is_read_as_it_was_written(secret):
    assert key_values.standard(key_values.shared_text(secret).encode()).secret == secret


@given(st.binary(min_size=32, max_size=32))
def test_a_public_key_is_read_as_it_was_written(public):
    assert key_values.ed25519(key_values.public_text(public).encode()).public == public
