"""The settings of a process: a frozen model, filled once from the environment in `__main__`, then passed on.

Nothing else in kapsel reads the environment. Each component subclasses ProcessSettings, or DataPlaneSettings if it
works on one database; the tables in docs/settings.md come from `reference`. Starting the process, and what an error
does to it, is left to `process`.
"""

import difflib
import os
import re
import socket
import typing
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Final, Literal, TypeVar

import annotated_types
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined

from kapsel_runtime.errors import SettingsError

PREFIX: Final = "KAPSEL_"
FILE_SUFFIX: Final = "_FILE"

# Stricter than pydantic, which also takes 1_000, 5.0 for a whole number, nan, and for seconds clock times and ISO 8601.
_NUMBER: Final = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?")
_FORMS: Final[Mapping[object, re.Pattern[str]]] = {
    bool: re.compile("true|false"),
    int: re.compile(r"-?[0-9]{1,18}"),
    float: _NUMBER,
    timedelta: _NUMBER,
}
_KINDS: Final[Mapping[object, str]] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    timedelta: "number of seconds",
    Path: "path",
}

Settings = TypeVar("Settings", bound=BaseModel)


def _instance() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


class ProcessSettings(BaseModel):
    """What can be set of every process."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    instance: str = Field(
        default_factory=_instance,
        min_length=1,
        max_length=200,
        description="Name of this process in logs and in the list of live processes, unique among them. Default: the "
        "host's name and the process id.",
    )
    health_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address on which health and metrics are served. Default: this machine only, since metrics name "
        "endpoints and destinations; 0.0.0.0 in a pod, where probes come from outside.",
    )
    health_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Port on which health and metrics are served. Default 0: any free one, so that several processes "
        "fit on one machine; each reports its own in the list of live processes.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="Least severe level that is logged. Default info: what changes, and not each webhook.",
    )
    drain_timeout: float = Field(
        default=25.0,
        gt=0,
        le=3600,
        description="Seconds from the first SIGTERM or SIGINT until the process exits even if work is still under way. "
        "Default 25: below the 30 after which Kubernetes kills.",
    )


class DatabaseSettings(BaseModel):
    """Which database."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    database_url: SecretStr = Field(
        description="URL of the Postgres database, with user and password: postgresql://user:password@host:5432/name. "
        "Required: a guessed database could be somebody else's.",
    )
    database_direct_url: SecretStr | None = Field(
        default=None,
        description="URL that leads to Postgres itself, where the other one leads through a pooler in transaction "
        "mode, such as PgBouncer. Whatever needs a session of its own goes there: listening for hints, and all of the "
        "attestor. Default: none, the one URL leads to Postgres itself.",
    )
    database_schema: str = Field(
        default="kapsel",
        pattern=r"^[a-z_][a-z0-9_]{0,62}$",
        description="Schema of the database that holds all tables. Default kapsel: apart from what else is in there.",
    )

    @property
    def session_url(self) -> str:
        """Return the URL of connections that keep a session."""
        return (self.database_direct_url or self.database_url).get_secret_value()

    @property
    def is_pooled(self) -> bool:
        """Whether the other URL leads through a pooler that lends a connection for one transaction."""
        return self.database_direct_url is not None


class DataPlaneSettings(DatabaseSettings, ProcessSettings):
    """What can be set of every process that works on the database of one Relay."""

    database_role: str | None = Field(
        default=None,
        min_length=1,
        description="Role that this process takes after it has connected, so that one login serves all components and "
        "each still has only its own rights. Default: none, the rights of the user in the URL.",
    )
    sealing_key_file: Path = Field(
        description="File of the keys that seal secrets in the database, in hex, one a line; the first seals, all "
        "open. Required: without it no secret can be read, and it must not lie in the database.",
    )


def load(model: type[Settings], environ: Mapping[str, str]) -> Settings:
    """Return the settings in `environ`.

    Field `x` comes from KAPSEL_X, or, if it is secret, from the file that KAPSEL_X_FILE names. Raises SettingsError for
    an unknown KAPSEL_ variable, a missing one, an empty one and a wrong one.
    """
    sources = _sources(model)
    _refuse_unknown(environ, sources)
    values: dict[str, object] = {}
    for variable, name in sources.items():
        if variable not in environ:
            continue
        if name in values:
            raise SettingsError(f"Set {_variable(name)} or {variable}, not both.", variable)
        text = _text(variable, environ[variable], from_file=variable != _variable(name))
        values[name] = _value(variable, text, name, model.model_fields[name])
    try:
        return model.model_validate(values)
    except ValidationError as error:
        # Not chained: a validation error can repeat what was put in, and that may be a secret.
        raise _explained(model, error.errors(include_url=False)[0]) from None


def reference(model: type[BaseModel]) -> list[tuple[str, str, str, str]]:
    """Return variable, type, default and description of each setting, in order, for the documentation."""
    return [
        (_variable(name), _allowed(name, field), _default(field), field.description or "")
        for name, field in model.model_fields.items()
    ]


def _allowed(name: str, field: FieldInfo) -> str:
    """Return in words which values a field takes."""
    kind = _kind(field)
    if kind is SecretStr:
        return f"secret text, here or in the file that {_variable(name)}{FILE_SUFFIX} names"
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(kind))
    rules = " and ".join(_rules(field))
    return f"{_KINDS.get(kind, 'text')}, {rules}" if rules else _KINDS.get(kind, "text")


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _sources(model: type[BaseModel]) -> dict[str, str]:
    """Return the variables that are read, each with its field."""
    sources = {}
    for name, field in model.model_fields.items():
        sources[_variable(name)] = name
        if _kind(field) is SecretStr:
            sources[_variable(name) + FILE_SUFFIX] = name
    return sources


def _refuse_unknown(environ: Mapping[str, str], known: Mapping[str, str]) -> None:
    for variable in sorted(environ):
        if variable.startswith(PREFIX) and variable not in known:
            near = difflib.get_close_matches(variable, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}."
            raise SettingsError(f"{variable} is not a setting of this process: {hint}", variable)


def _text(variable: str, value: str, *, from_file: bool) -> str:
    if not value:
        raise SettingsError(f"{variable} is empty: give it a value or do not set it.", variable)
    if not from_file:
        return value
    try:
        content = Path(value).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        # Not chained: a decoding error holds the content.
        raise SettingsError(f"{variable} names {value!r}, which cannot be read: {reason}.", variable) from None
    if not content:
        raise SettingsError(f"{variable} names {value!r}, which is empty.", variable)
    return content


def _value(variable: str, text: str, name: str, field: FieldInfo) -> object:
    kind = _kind(field)
    if kind in _FORMS and not _FORMS[kind].fullmatch(text):
        raise SettingsError(f"{variable} is {text!r}, but must be {_expected(name, field)}.", variable)
    return timedelta(seconds=float(text)) if kind is timedelta else text


def _explained(model: type[BaseModel], problem: ErrorDetails) -> SettingsError:
    reason = problem["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    if not problem["loc"]:
        return SettingsError(f"The settings do not fit together: {reason}.")
    name = str(problem["loc"][0])
    field, variable = model.model_fields[name], _variable(name)
    if problem["type"] == "missing":
        return SettingsError(f"{variable} is missing: set it to {_expected(name, field)}.", variable)
    given = "wrong" if _kind(field) is SecretStr else repr(str(_plain(problem["input"])))
    why = f" ({reason})" if problem["type"] in ("value_error", "assertion_error") else ""
    return SettingsError(f"{variable} is {given}{why}, but must be {_expected(name, field)}.", variable)


def _expected(name: str, field: FieldInfo) -> str:
    article = "a " if _kind(field) in (int, float, timedelta, Path) else ""
    return article + _allowed(name, field)


def _kind(field: FieldInfo) -> object:
    """Return the type of a field without `| None`."""
    members = typing.get_args(field.annotation)
    others = [member for member in members if member is not NoneType]
    return others[0] if NoneType in members and len(others) == 1 else field.annotation


def _rules(field: FieldInfo) -> Iterator[str]:
    for rule in field.metadata:
        match rule:
            case annotated_types.Ge(ge=bound):
                yield f"at least {_plain(bound)}"
            case annotated_types.Gt(gt=bound):
                yield f"above {_plain(bound)}"
            case annotated_types.Le(le=bound):
                yield f"at most {_plain(bound)}"
            case annotated_types.Lt(lt=bound):
                yield f"below {_plain(bound)}"
            case annotated_types.MaxLen(max_length=length):
                yield f"at most {length} characters"
            case _ if pattern := getattr(rule, "pattern", None):
                yield f"matching {pattern}"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default is PydanticUndefined:
        return "computed"
    return "none" if field.default is None else str(_plain(field.default))


def _plain(value: object) -> object:
    """Return a value as one would write it into the environment."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool):
        return str(value).lower()
    return int(value) if isinstance(value, float) and value.is_integer() else value
