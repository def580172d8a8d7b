"""What one instance has for itself: the data directory, its lock, and its ports."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import own_ports

from kapsel_cli.data_dir import DataDir, Running, holder, read_state
from kapsel_cli.errors import CliError, DataInUseError, PortTakenError
from kapsel_cli.ports import reserved


@pytest.fixture
def data(tmp_path: Path) -> Iterator[DataDir]:
    taken = DataDir(tmp_path / "data")
    taken.take()
    yield taken
    taken.give_back()


def test_a_taken_directory_is_refused_with_the_pid_of_its_owner(data: DataDir) -> None:
    program = (
        f"from pathlib import Path; from kapsel_cli.data_dir import DataDir; DataDir(Path({str(data.path)!r})).take()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "DataInUseError: another kapsel up (pid " in done.stderr


def test_the_directory_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        again = DataDir(tmp_path / "data")
        again.take()
        with pytest.raises(DataInUseError):
            DataDir(tmp_path / "data").take()
        again.give_back()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CliError, match="--data-dir"):
        DataDir(tmp_path / "file" / "data").take()


def test_the_sealing_key_is_made_once_and_for_its_owner_alone(data: DataDir) -> None:
    data.ensure_sealing_key()
    key = data.sealing_key.read_text()
    data.ensure_sealing_key()
    assert data.sealing_key.read_text() == key
    assert len(bytes.fromhex(key)) == 32
    assert data.sealing_key.stat().st_mode & 0o777 == 0o600


def test_the_fence_is_next_to_the_data_and_each_log_has_its_own(data: DataDir) -> None:
    one, other = data.fence_file("log.example.com/a"), data.fence_file("log.example.com-a")
    assert one != other
    assert one.parent.is_dir()
    assert data.path not in one.parents
    assert one.parent.parent == data.path.parent


def test_the_state_says_where_to_go_and_is_gone_afterwards(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "data")
    data.take()
    running = Running(pid=1, ingest="http://a", console="http://b", metrics={"receiver": "http://c"})
    data.write_state(running)
    assert read_state(data.path) == running
    data.give_back()
    assert read_state(data.path) is None


def test_where_one_that_was_killed_could_be_reached_is_forgotten_when_the_next_one_starts(tmp_path: Path) -> None:
    killed, data = DataDir(tmp_path / "data"), DataDir(tmp_path / "data")
    killed.path.mkdir()
    killed.write_state(Running(pid=1, ingest="http://a", console="http://b", metrics={}))
    data.take()
    assert read_state(data.path) is None
    data.give_back()


def test_who_holds_a_directory_is_known_before_it_can_be_reached(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "data")
    assert holder(data.path) is None
    data.take()
    assert holder(data.path) == os.getpid()
    data.give_back()
    assert holder(data.path) is None
    data.take()
    os.truncate(data.path / "lock", 0)  # between taking and signing it
    assert holder(data.path) is None
    data.give_back()


def test_free_ports_are_all_different() -> None:
    with reserved("127.0.0.1", 0, 4) as chosen:
        ports = [chosen.ingest, chosen.console, *chosen.health]
    assert len(set(ports)) == len(ports) == 2 + 4 + 4 + 1 + 1


def test_a_reserved_port_is_nobody_else_s_but_the_processes_that_share_it() -> None:
    with reserved("127.0.0.1", 0, 1) as chosen:
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", chosen.console))
        with pytest.raises(PortTakenError), reserved("127.0.0.1", chosen.console, 1):
            pass
        with (
            socket.create_server(("127.0.0.1", chosen.console), reuse_port=True) as server,
            socket.create_connection(("127.0.0.1", chosen.console)) as client,
        ):
            taken, address = server.accept()  # for the reservation takes no connections itself
            taken.close()
            assert address == client.getsockname()
    with socket.create_server(("127.0.0.1", chosen.console)):
        pass


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        wrong = rf"port {port} on 127\.0\.0\.1 is taken\. .*--port"
        with pytest.raises(PortTakenError, match=wrong), reserved("127.0.0.1", port, 1):
            pass


def test_a_taken_port_is_named_with_the_flag_it_follows_from() -> None:
    with own_ports(2) as (base, taken), socket.create_server(("127.0.0.1", taken)):
        wrong = rf"port {taken} .* \(it follows from --port {base}\)"
        with pytest.raises(PortTakenError, match=wrong), reserved("127.0.0.1", base, 1):
            pass


def test_a_port_without_room_after_it_is_refused() -> None:
    with pytest.raises(CliError, match="no room"), reserved("127.0.0.1", 65_530, 1):
        pass


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(CliError, match="--host"), reserved("192.0.2.1", 8080, 1):
        pass
