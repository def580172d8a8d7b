"""The plan meets the real store: what was planned is what is loaded, and planning on it writes nothing."""

import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import yaml

from kapsel_resources.manifests import parse
from kapsel_resources.plan import plan
from kapsel_store import configuration

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


def _unordered(rows):
    return (
        rows.relay,
        rows.log,
        {row.id: row for row in rows.endpoints},
        {row.id: row for row in rows.destinations},
        {row.id: row for row in rows.keys},
    )
