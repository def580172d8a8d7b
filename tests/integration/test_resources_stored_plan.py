"""The plan meets the real store: what was planned is what is loaded, and planning on it writes nothing."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store import configuration
from kapsel_store.rows import Configuration

EMPTY = Configuration()
DIRECTORY = Path(__file__).parents[2] / "examples" / "quickstart"


def _resources():
    return [parse(one) for path in sorted(DIRECTORY.rglob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]


async def test_a_plan_survives_the_store_and_planning_on_it_again_writes_nothing(database):
    connection = await database.connection()
    now = datetime.now(UTC)
    try:
        existing = await configuration.load(connection, database.sealing)
        first = plan(_resources(), existing=existing, now=now, entropy=os.urandom)
        generation = await configuration.apply(connection, database.sealing, first.configuration, actor="test")
        loaded = await configuration.load(connection, database.sealing)
        second = plan(_resources(), existing=loaded, now=now, entropy=os.urandom)

        assert _unordered(replace(loaded, generation=0)) == _unordered(first.configuration)
        assert second == first
        assert await configuration.apply(connection, database.sealing, second.configuration, actor="test") == generation
    finally:
        await connection.close()


async def test_the_stored_row_says_where_a_limit_comes_from_and_is_as_before_where_nobody_said_any(database):
    connection = await database.connection()
    patient = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "RetryPolicy", "metadata": {"name": "patient"}}
    endpoint = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "WebhookEndpoint", "metadata": {"name": "orders"}}
    destinations = [
        {"name": "plain", "url": "https://a.example/"},
        {"name": "special", "url": "https://b.example/", "retryPolicyRef": {"name": "patient"}, "timeout": "3s"},
    ]
    try:
        manifests = (
            patient | {"spec": {"maxAttempts": 7}},
            endpoint | {"spec": {"verification": {"none": {}}, "destinations": destinations}},
        )
        planned = plan(map(parse, manifests), existing=EMPTY, now=datetime.now(UTC), entropy=os.urandom)
        await configuration.apply(connection, database.sealing, planned.configuration, actor="test")

        loaded = await configuration.load(connection, database.sealing)
        stored = {row["name"]: json.loads(row["spec"]) for row in await connection.fetch("SELECT * FROM destinations")}
    finally:
        await connection.close()

    assert {row.name: dict(row.sources) for row in loaded.destinations} == {
        "plain": {},
        "special": {"maxAttempts": "RetryPolicy patient", "timeout": "destination"},
    }
    assert "sources" not in stored["plain"]


@pytest.mark.parametrize(
    "shaping",
    [
        {"filter": "event.id != '\0'"},
        {"transform": {"body": "'\0'"}},
        {"transform": {"headers": [{"name": "x", "value": "'\0'"}]}},
        {"ordering": {"type": "PerKey", "key": "'\0'"}},
    ],
)
async def test_no_expression_keeps_what_others_declare_from_being_stored(database, shaping):
    """Null characters, which manifests can have and Postgres cannot."""
    connection = await database.connection()
    endpoint = {"apiVersion": "kapsel.dev/v1alpha1", "kind": "WebhookEndpoint"}
    destination = {"name": "a", "url": "https://a.example/"}
    try:
        resources = [
            parse(
                endpoint
                | {"metadata": {"name": "x", "namespace": namespace}, "spec": {"verification": {"none": {}}, **of}}
            )
            for namespace, of in (
                ("fine", {"destinations": [destination]}),
                ("odd", {"destinations": [destination | shaping]}),
            )
        ]
        planned = plan(resources, existing=EMPTY, now=datetime.now(UTC), entropy=os.urandom)
        await configuration.apply(connection, database.sealing, planned.configuration, actor="test")
        loaded = await configuration.load(connection, database.sealing)
    finally:
        await connection.close()
    assert [row.namespace for row in loaded.endpoints] == ["fine"]
    assert [problem.reason for problem in planned.problems] == ["ExpressionInvalid"]


def _unordered(rows):
    return (
        rows.relay,
        rows.log,
        {row.id: row for row in rows.endpoints},
        {row.id: row for row in rows.destinations},
        {row.id: row for row in rows.keys},
    )
