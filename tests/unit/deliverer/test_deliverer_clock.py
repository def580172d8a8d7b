"""Ages are told by the database's clock, whatever this machine's says."""

from datetime import UTC, datetime, timedelta

from kapsel_deliverer.clock import DatabaseClock


def test_it_goes_on_from_what_the_database_said() -> None:
    clock = DatabaseClock()
    said = datetime(2019, 1, 1, tzinfo=UTC)  # far from this machine's time
    clock.sample(said)
    first = clock.now()
    assert timedelta(0) <= first - said < timedelta(minutes=1)
    assert clock.now() >= first


def test_before_the_first_sample_it_is_this_machines_time() -> None:
    assert abs(DatabaseClock().now() - datetime.now(UTC)) < timedelta(minutes=1)
