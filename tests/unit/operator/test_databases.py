"""What is wrong with a database, in one word, and whether waiting helps."""

import socket

import asyncpg
import pytest

from kapsel_operator.databases import is_url, trouble
from kapsel_store.errors import EditedMigrationError, NewerSchemaError, OldServerError, SealingError


@pytest.mark.parametrize(
    ("error", "reason", "stalled"),
    [
        (asyncpg.exceptions.ClientConfigurationError("scheme"), "DatabaseUrlInvalid", True),
        (asyncpg.InvalidPasswordError("no"), "DatabaseRefused", True),
        (asyncpg.InvalidCatalogNameError("no"), "DatabaseRefused", True),
        (asyncpg.InsufficientPrivilegeError("no"), "DatabaseRefused", True),
        (NewerSchemaError("newer"), "SchemaNewer", True),
        (EditedMigrationError("edited"), "SchemaDiffers", True),
        (OldServerError("old"), "PostgresTooOld", True),
        (SealingError("other"), "SealingKeyWrong", True),
        (ConnectionRefusedError(111, "refused"), "DatabaseUnreachable", False),
        (socket.gaierror(-2, "Name or service not known"), "DatabaseUnreachable", False),
        (TimeoutError(), "DatabaseUnreachable", False),
        (asyncpg.CannotConnectNowError("starting up"), "DatabaseUnreachable", False),
        (asyncpg.ReadOnlySQLTransactionError("standby"), "DatabaseUnreachable", False),
    ],
)
def test_each_error_has_a_reason(error: Exception, reason: str, stalled: bool) -> None:
    found = trouble(error, "postgresql://u:p@db.example.com/kapsel")
    assert found is not None
    assert (found.reason, found.stalled) == (reason, stalled)
    assert found.message


def test_a_bug_is_not_taken_for_the_database_s_fault() -> None:
    assert trouble(KeyError("x"), "postgresql://db/kapsel") is None
    assert trouble(asyncpg.UndefinedColumnError("x"), "postgresql://db/kapsel") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:p@db:5432/kapsel", True),
        ("postgres://db/kapsel", True),
        ("postgresql:///kapsel?host=/run/postgres", True),
        ("postgresql://", False),
        ("postgresql://u@db:port/kapsel", False),
        ("postgresql://[::1/kapsel", False),
        ("mysql://db/kapsel", False),
        ("db.example.com", False),
        ("", False),
    ],
)
def test_what_is_no_url_of_postgres_is_seen_before_anybody_connects(text: str, expected: bool) -> None:
    assert is_url(text) is expected
