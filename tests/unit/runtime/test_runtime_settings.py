"""Settings: what the environment gives arrives, and everything else is refused in one sentence."""

import re
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator

from kapsel_runtime.errors import SettingsError
from kapsel_runtime.settings import DataPlaneSettings, load, reference

REQUIRED = {"KAPSEL_DATABASE_URL": "postgresql://u:hunter2@db/kapsel", "KAPSEL_SEALING_KEY_FILE": "/run/keys"}


class ExampleSettings(DataPlaneSettings):
    example_pause: timedelta = Field(default=timedelta(seconds=1.5), ge=timedelta(seconds=1), description="Seconds.")
    example_token: SecretStr | None = Field(default=None, description="Token.")
    example_eager: bool = Field(default=False, description="Eager.")
    example_even: int = Field(default=2, lt=100, description="Even.")

    @field_validator("example_even")
    @classmethod
    def _even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("it is odd")
        return value

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.example_eager and self.example_even == 4:
            raise ValueError("eager does not go with 4")
        return self


def refusal(**variables: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(ExampleSettings, REQUIRED | variables)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence[-1] in ".?"
    return caught.value


def test_defaults_hold_for_what_is_not_set() -> None:
    settings = load(DataPlaneSettings, REQUIRED | {"PATH": "/bin", "HOME": "/"})
    assert settings.database_url.get_secret_value() == REQUIRED["KAPSEL_DATABASE_URL"]
    assert settings.sealing_key_file == Path("/run/keys")
    assert (settings.health_host, settings.health_port, settings.drain_timeout) == ("127.0.0.1", 0, 25.0)
    assert settings.instance


@given(
    port=st.integers(0, 65535),
    drain=st.integers(1, 3600_000).map(lambda ms: ms / 1000),
    pause=st.integers(1_000_000, 10**12).map(lambda us: timedelta(microseconds=us)),
    eager=st.booleans(),
    instance=st.text(min_size=1, max_size=200),
)
def test_values_written_into_the_environment_come_back(
    port: int, drain: float, pause: timedelta, eager: bool, instance: str
) -> None:
    settings = load(
        ExampleSettings,
        REQUIRED
        | {
            "KAPSEL_HEALTH_PORT": str(port),
            "KAPSEL_DRAIN_TIMEOUT": f"{drain:.3f}",
            "KAPSEL_EXAMPLE_PAUSE": f"{pause // timedelta(seconds=1)}.{pause.microseconds:06d}",
            "KAPSEL_EXAMPLE_EAGER": str(eager).lower(),
            "KAPSEL_INSTANCE": instance,
        },
    )
    assert (settings.health_port, settings.drain_timeout) == (port, drain)
    assert abs(settings.example_pause - pause) <= timedelta(microseconds=1)
    assert (settings.example_eager, settings.instance) == (eager, instance)


@given(st.from_regex(r"KAPSEL_[A-Z_]{1,30}", fullmatch=True))
def test_any_variable_that_no_field_reads_is_refused_by_name(variable: str) -> None:
    known = {row[0] for row in reference(DataPlaneSettings)} | {"KAPSEL_DATABASE_URL_FILE"}
    if variable not in known:
        with pytest.raises(SettingsError, match=rf"^{variable} is not a setting of this process") as caught:
            load(DataPlaneSettings, REQUIRED | {variable: "1"})
        assert caught.value.variable == variable


@given(st.sampled_from(["HEALTH_PORT", "DRAIN_TIMEOUT", "EXAMPLE_PAUSE", "EXAMPLE_EAGER"]), st.text())
def test_text_that_is_no_number_is_refused_with_the_name_of_its_variable(field: str, text: str) -> None:
    if not re.fullmatch(r"[0-9.]+|true|false", text):
        assert refusal(**{f"KAPSEL_{field}": text}).variable == f"KAPSEL_{field}"


@pytest.mark.parametrize(
    "text", ["nan", "inf", "-1", "1e3", "1_000", " 5", "5 ", "5s", "PT5S", "00:00:05", "٥", "0", "1\n"]
)
def test_a_duration_is_plain_seconds_within_its_bounds(text: str) -> None:
    assert "number of seconds, at least 1" in str(refusal(KAPSEL_EXAMPLE_PAUSE=text))


def test_a_misspelt_variable_is_refused_with_the_nearest_name() -> None:
    error = refusal(KAPSEL_DRIAN_TIMEOUT="5")
    assert str(error).endswith("did you mean KAPSEL_DRAIN_TIMEOUT?")


def test_a_missing_setting_is_named_with_what_it_takes() -> None:
    with pytest.raises(SettingsError, match=r"^KAPSEL_SEALING_KEY_FILE is missing: set it to a path\.$"):
        load(DataPlaneSettings, {"KAPSEL_DATABASE_URL": "postgresql://db/kapsel"})


def test_a_wrong_value_is_shown_with_what_is_allowed() -> None:
    assert str(refusal(KAPSEL_HEALTH_PORT="99999")) == (
        "KAPSEL_HEALTH_PORT is '99999', but must be a whole number, at least 0 and at most 65535."
    )
    assert str(refusal(KAPSEL_LOG_LEVEL="loud")) == (
        "KAPSEL_LOG_LEVEL is 'loud', but must be one of debug, info, warning, error."
    )


def test_a_rule_of_the_component_itself_is_told() -> None:
    assert str(refusal(KAPSEL_EXAMPLE_EVEN="3")).startswith("KAPSEL_EXAMPLE_EVEN is '3' (it is odd), but must be")
    together = refusal(KAPSEL_EXAMPLE_EVEN="4", KAPSEL_EXAMPLE_EAGER="true")
    assert str(together) == "The settings do not fit together: eager does not go with 4."
    assert together.variable is None


def test_an_empty_value_is_not_taken_for_an_absent_one() -> None:
    assert "KAPSEL_DATABASE_ROLE is empty" in str(refusal(KAPSEL_DATABASE_ROLE=""))


def test_a_secret_may_come_from_a_file_whose_outer_white_space_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("  s3cret\n")
    settings = load(ExampleSettings, REQUIRED | {"KAPSEL_EXAMPLE_TOKEN_FILE": str(tmp_path / "token")})
    assert settings.example_token == SecretStr("s3cret")


def test_a_secret_file_that_gives_nothing_is_refused(tmp_path: Path) -> None:
    assert "No such file" in str(refusal(KAPSEL_EXAMPLE_TOKEN_FILE=str(tmp_path / "absent")))
    (tmp_path / "blank").write_text(" \n")
    assert "is empty" in str(refusal(KAPSEL_EXAMPLE_TOKEN_FILE=str(tmp_path / "blank")))
    (tmp_path / "binary").write_bytes(b"\xffhunter2")
    error = refusal(KAPSEL_EXAMPLE_TOKEN_FILE=str(tmp_path / "binary"))
    assert "it is not UTF-8 text" in str(error)
    assert error.__suppress_context__


def test_a_secret_from_two_places_is_refused() -> None:
    assert "not both" in str(refusal(KAPSEL_DATABASE_URL_FILE="/run/url"))


def test_only_secrets_have_files() -> None:
    assert refusal(KAPSEL_DATABASE_ROLE_FILE="/run/role").variable == "KAPSEL_DATABASE_ROLE_FILE"


def test_secrets_stay_masked_in_the_settings_and_in_refusals() -> None:
    settings = load(ExampleSettings, REQUIRED)
    assert "hunter2" not in f"{settings!r} {settings} {settings.model_dump_json()}"
    error = refusal(KAPSEL_DATABASE_SCHEMA="Not a schema")
    assert "hunter2" not in "".join(traceback.format_exception(error))
    assert error.__cause__ is None


def test_settings_do_not_change() -> None:
    settings = load(DataPlaneSettings, REQUIRED)
    with pytest.raises(ValidationError):
        settings.health_port = 1  # type: ignore[misc]


def test_the_reference_lists_each_variable_with_type_default_and_description() -> None:
    rows = {variable: (kind, default) for variable, kind, default, _ in reference(ExampleSettings)}
    assert rows["KAPSEL_DATABASE_URL"] == (
        "secret text, here or in the file that KAPSEL_DATABASE_URL_FILE names",
        "required",
    )
    assert rows["KAPSEL_EXAMPLE_PAUSE"] == ("number of seconds, at least 1", "1.5")
    assert rows["KAPSEL_EXAMPLE_EAGER"] == ("true or false", "false")
    assert rows["KAPSEL_EXAMPLE_EVEN"] == ("whole number, below 100", "2")
    assert rows["KAPSEL_DATABASE_ROLE"] == ("text", "none")
    assert rows["KAPSEL_INSTANCE"] == ("text, at most 200 characters", "computed")


def test_each_default_of_the_reference_is_accepted_as_a_value() -> None:
    defaults = {row[0]: row[2] for row in reference(ExampleSettings) if row[2] not in ("required", "none", "computed")}
    given_by_hand = load(ExampleSettings, REQUIRED | defaults | {"KAPSEL_INSTANCE": "a"})
    assert given_by_hand == load(ExampleSettings, REQUIRED | {"KAPSEL_INSTANCE": "a"})


def test_each_setting_of_every_process_says_what_it_is_for() -> None:
    for variable, _, default, description in reference(DataPlaneSettings):
        assert len(description) > 40, variable
        assert ("Required:" if default == "required" else "Default") in description, variable
