"""What somebody is told whose load generator cannot do its work."""

import shutil
import socket

import pytest
from stack import Load

pytestmark = pytest.mark.skipif(shutil.which("go") is None, reason="the load generator is built with Go")


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    return Load(tmp_path_factory.mktemp("load"))


def test_a_sink_whose_port_is_taken_is_said_in_one_sentence_with_what_to_do(load: Load) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sink = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SystemExit) as ended:
            load.run("http://127.0.0.1:9/", "-reps", "1", "-sink", sink)
    assert str(ended.value) == (
        f"the load generator failed: listen tcp {sink}: bind: address already in use; "
        "end the program that listens there (ss -ltnp names it) and run the bench again"
    )


def test_whatever_else_it_says_last_is_passed_on(load: Load) -> None:
    with pytest.raises(SystemExit, match=r"^the load generator failed: .*; mend that and run the bench again$"):
        load.run("http://127.0.0.1:9/", "-reps", "1", "-sink", "nowhere")
