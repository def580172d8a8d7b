"""What the operator reads of destinations, and the condition that it makes of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from kapsel_operator.planned import DestinationView
from kapsel_operator.statuses import delivering
from kapsel_store import circuits, configuration, overview
from kapsel_store.circuits import CircuitRow
from kapsel_store.overview import Doing
from kapsel_store.rows import Configuration, DestinationRow, EndpointRow, Verification


async def test_a_destination_that_was_warned_of_has_the_condition_until_it_is_disabled_or_does_well(database) -> None:
    connection = await (await database.pool()).acquire()
    orders = EndpointRow(id=uuid4(), namespace="shop", name="orders", verification=Verification(scheme="none"))
    billing = DestinationRow(id=uuid4(), endpoint_id=orders.id, name="billing", url="http://127.0.0.1:9/")
    desired = Configuration(endpoints=(orders,), destinations=(billing,))
    await configuration.apply(connection, database.sealing, desired, actor="test")
    shown = DestinationView(id=billing.id, name=billing.name, suspend=False)

    async def after(**fields: object) -> str:
        def changed(row: CircuitRow, now: datetime) -> CircuitRow:
            return replace(row, **{name: now if value == "now" else value for name, value in fields.items()})

        await circuits.change(connection, billing.id, changed)
        found = await overview.doing(connection, datetime.now(UTC))
        return delivering([(shown, found.get(billing.id, Doing()))]).reason

    assert await after(failing_since="now") == "Idle"
    assert await after(warned_at="now") == "DisableWarning"
    open_until = datetime.now(UTC) + timedelta(hours=1)
    assert await after(state="open", open_until=open_until) == "DisableWarning"
    assert await after(disabled_at="now", disabled_reason="failing") == "Disabled"
    fresh = {"state": "closed", "open_until": None, "disabled_at": None, "disabled_reason": None}
    assert await after(**fresh, failing_since=None, warned_at=None) == "Idle"
