"""A browser, the page as it is served from verifier/web, and the page as the one file that works from a disk."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, Page, find

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
  const judged = {};
  for (const [name, one] of Object.entries(cases)) {
    const { refusal, verified, assurance } = await judge(async () => ({
      proof: hex(one.proof_hex) ?? utf8(one.proof),
      keys: one.keys,
      keySets: "key_set" in one ? [utf8(one.key_set)] : [],
      policy: utf8(one.policy),
      headers: one.block_headers?.map(utf8),
      minDifficulty: "min_difficulty" in one ? BigInt(one.min_difficulty) : undefined,
      destinationKeys: one.destination_keys?.map(utf8),
      require: one.require,
      knownCheckpoint: utf8(one.known_checkpoint),
      consistency: utf8(one.consistency),
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


@pytest.fixture(scope="module")
def modules(chromium: Browser, site: str) -> Iterator[Page]:
    """The page as it is served, from which its modules can be imported."""
    with chromium.page() as page:
        page.open(f"{site}/index.html")
        yield page


@pytest.fixture(scope="module")
def judge(modules: Page) -> Judge:
    """Judges cases by name, each a mapping as tests/vectors/README.md describes."""
    return partial(modules.run, JUDGE)
