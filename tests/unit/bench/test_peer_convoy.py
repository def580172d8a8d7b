"""How Convoy is configured."""

from typing import Any
from urllib.parse import parse_qs

import pytest
from peer_convoy import configured


@pytest.fixture
def configuration() -> dict[str, Any]:
    return configured("postgresql:///kapsel?host=%2Ftmp%2Fa+socket&port=5433&user=postgres", 6380, 5005)


def test_convoy_reaches_postgres_by_its_socket(configuration: dict[str, Any]) -> None:
    found = configuration["database"]
    assert (found["host"], found["port"], found["username"], found["database"]) == ("", 5433, "postgres", "kapsel")
    assert parse_qs(found["options"])["host"] == ["/tmp/a socket"]


def test_convoy_keeps_its_connections_to_postgres(configuration: dict[str, Any]) -> None:
    assert configuration["database"]["max_idle_conn"] == configuration["database"]["max_open_conn"] > 0


def test_convoy_and_its_redis_are_on_loopback_at_the_ports_they_were_given(configuration: dict[str, Any]) -> None:
    assert configuration["redis"] == {"scheme": "redis", "host": "127.0.0.1", "port": 6380}
    assert configuration["server"]["http"]["port"] == 5005
    assert configuration["host"] == "127.0.0.1:5005"


def test_convoy_tells_nobody_that_it_runs(configuration: dict[str, Any]) -> None:
    assert configuration["analytics"] == {"enabled": False}
