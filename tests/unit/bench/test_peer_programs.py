"""How programs of peers are found, and what one is told who lacks what they are made of."""

import re
from pathlib import Path

import pytest
from peer_convoy import CONVOY
from peer_programs import Edit, built, redis_server


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty PATH; returns its cache."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return tmp_path / "cache"


def test_what_is_built_is_pinned_by_version_and_checksum() -> None:
    assert re.fullmatch(r"v\d+\.\d+\.\d+", CONVOY.version)
    assert re.fullmatch(r"h1:[A-Za-z0-9+/]{43}=", CONVOY.checksum)


def test_without_go_one_is_told_where_to_get_it(bare_machine: Path) -> None:
    with pytest.raises(SystemExit, match=r"^convoy v\S+ must be built: install Go \(https://go\.dev/dl\)"):
        built(CONVOY, bare_machine)


def test_a_program_in_the_cache_needs_no_go(bare_machine: Path) -> None:
    made = bare_machine / "bin" / f"convoy-{CONVOY.version}"
    made.parent.mkdir(parents=True)
    made.touch()
    assert built(CONVOY, bare_machine) == made


def test_without_redis_and_debian_one_is_told_to_install_it(bare_machine: Path) -> None:
    with pytest.raises(SystemExit, match="redis-server is missing: install redis-server"):
        redis_server(bare_machine)


def test_an_unpacked_redis_is_started_with_the_libraries_beside_it(bare_machine: Path) -> None:
    libraries = bare_machine / "redis" / "usr" / "lib" / "some-arch"
    libraries.mkdir(parents=True)
    (libraries / "libjemalloc.so.2").touch()
    program = redis_server(bare_machine)
    assert program.path == bare_machine / "redis" / "usr" / "bin" / "redis-server"
    assert program.environment == {"LD_LIBRARY_PATH": str(libraries)}


def test_an_edit_changes_the_one_place_it_is_for() -> None:
    edit = Edit(path="server.go", old='":%d"', new='"127.0.0.1:%d"')
    assert edit.apply('Addr: ":%d"') == 'Addr: "127.0.0.1:%d"'


@pytest.mark.parametrize("text", ["nothing of it", '":%d" and ":%d"'])
def test_a_source_that_is_not_as_expected_is_not_built(text: str) -> None:
    with pytest.raises(SystemExit, match=r"server\.go is not what it was"):
        Edit(path="server.go", old='":%d"', new="").apply(text)
