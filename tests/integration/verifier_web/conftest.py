"""A browser, the page as it is served from verifier/web and as the one file that works from a disk, and its model."""

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import proof_vectors
import pytest
from browser import Browser, Page, find
from browser.verifier import Verifier

from kapsel_verifier import report
from kapsel_verifier.errors import VerificationError

ROOT = Path(__file__).parents[3]
WEB = ROOT / "verifier" / "web"
VECTORS = ROOT / "tests" / "vectors"

Judge = Callable[[dict[str, Any]], dict[str, Any]]

# Judges cases of tests/vectors with the page's own modules; the result of each is what kapsel-verify --json prints.
JUDGE = """async (cases) => {
  const { judge } = await import("/judge.js");
  const { refusalJson, verifiedJson } = await import("/words.js");
  const given = (read) => (text) => (text === undefined ? undefined : read(text));
  const hex = given((text) => Uint8Array.from(text.match(/../g) ?? [], (pair) => parseInt(pair, 16)));
  const utf8 = given((text) => new TextEncoder().encode(text));
  const data = (one, name) => hex(one[`${name}_hex`]) ?? utf8(one[name]);
  const listed = (found) => (found === undefined ? undefined : [found]);
  const judged = {};
  for (const [name, one] of Object.entries(cases)) {
    const { refusal, verified, assurance } = await judge(async () => ({
      proof: data(one, "proof"),
      keys: one.keys,
      keySets: listed(data(one, "key_set")),
      successors: data(one, "successors"),
      policy: data(one, "policy"),
      headers: one.block_headers?.map(utf8),
      minDifficulty: "min_difficulty" in one ? BigInt(one.min_difficulty) : undefined,
      destinationKeys: listed(data(one, "destination_key_set")) ?? one.destination_keys?.map(utf8),
      require: one.require,
      knownCheckpoint: utf8(one.known_checkpoint),
      consistency: data(one, "consistency"),
      body: hex(one.payload),
      salt: hex(one.payload_salt),
      expected: one.expected && new Map(Object.entries(one.expected)),
      nowMs: one.now_ms,
      maxAgeMs: one.max_age_ms,
    }));
    judged[name] = refusal === null ? verifiedJson(verified, assurance) : refusalJson(refusal);
  }
  return judged;
}"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is that of the library
        pass


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find()
    if program is None:
        remedy = "the page of the verifier is tested in Chromium, and there is none: apt-get install chromium"
        if os.environ.get("CI"):
            pytest.fail(remedy)
        pytest.skip(remedy)
    with Browser(program, tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    """The address at which verifier/web is served."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(WEB))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def single_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page as `make web-verifier` writes it."""
    target = tmp_path_factory.mktemp("dist") / "made" / "kapsel-verify.html"
    subprocess.run([sys.executable, WEB / "bundle.py", target], check=True, capture_output=True)
    return target


@pytest.fixture(scope="session")
def web() -> Path:
    """The folder of the page's parts."""
    return WEB


@pytest.fixture
def verifier(chromium: Browser, single_file: Path, tmp_path: Path) -> Iterator[Verifier]:
    """The single file, opened from the disk."""
    with chromium.page() as page:
        page.open(single_file.as_uri())
        yield Verifier(page, tmp_path)


@pytest.fixture(scope="module")
def modules(chromium: Browser, site: str) -> Iterator[Page]:
    """The page as it is served, from which its modules can be imported."""
    with chromium.page() as page:
        page.open(f"{site}/index.html")
        yield page


@pytest.fixture(scope="session")
def vectors() -> ModuleType:
    """The generator of the test vectors, so that tests share its log and its keys."""
    spec = importlib.util.spec_from_file_location("kapsel_vectors_generate", VECTORS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def judge(modules: Page) -> Judge:
    """Judges cases by name, each a mapping as tests/vectors/README.md describes."""

    def judged(cases: dict[str, Any]) -> dict[str, Any]:
        # A few at a time: each call has a deadline.
        found: dict[str, Any] = {}
        waiting = iter(cases.items())
        while batch := dict(islice(waiting, 200)):
            found |= modules.run(JUDGE, batch)
        return found

    return judged


@pytest.fixture(scope="session")
def python_says() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """What kapsel-verify --json prints for a case of tests/vectors; of a refusal only the class and its exit code."""
    return _python_says


def _python_says(case: dict[str, Any]) -> dict[str, Any]:
    try:
        return report.to_json(proof_vectors.judge(case))
    except VerificationError as error:
        return {"verified": False, "error": type(error).__name__, "exit_code": error.exit_code}
