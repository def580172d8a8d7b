"""The page of the web verifier, as a person uses it: for its tests and for its pictures."""

import json
from pathlib import Path
from typing import Any, Final

from browser.chromium import BrowserError, Page

VECTORS: Final = Path(__file__).parents[2] / "vectors"


def vector(name: str) -> dict[str, Any]:
    """Return a case of tests/vectors/proof."""
    case: dict[str, Any] = json.loads((VECTORS / "proof" / f"{name}.json").read_text())
    return case


class Verifier:
    """The page in a tab; `folder` is for the files that it is given."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page = page
        self._folder = folder

    def file(self, name: str, content: str | bytes) -> Path:
        """Write a file to give to the page."""
        path = self._folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def choose(self, field: str, name: str, content: str | bytes) -> None:
        """Choose a file of this content in a field."""
        self.page.choose(f"#{field}", self.file(name, content))

    def fill(self, field: str, text: str) -> None:
        """Put text into a field in place of what was there."""
        self.page.run(
            """(id, text) => {
              const field = document.getElementById(id);
              field.value = text;
              field.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            field,
            text,
        )

    def give(self, case: dict[str, Any]) -> None:
        """Give the proof of a case and its keys, and wait for the verdict of its vector."""
        self.fill("keys", "\n".join(case["keys"]))
        self.choose("proof", "proof.json", case["proof"])
        self.says("refused" if case["error"] else "verified")

    def start_again(self) -> None:
        """Press the button that empties all fields."""
        self.page.run("() => document.querySelector('[type=reset]').click()")
        self.says("waiting", "Waiting for a proof")

    def open_all(self) -> None:
        """Unfold what is folded."""
        self.page.run("() => document.querySelectorAll('details').forEach((part) => { part.open = true; })")

    def says(self, verdict: str, text: str = "") -> None:
        """Wait until the card has this verdict and this text; raises AssertionError."""
        condition = """(verdict, text) => {
          const card = document.getElementById("card");
          return card.dataset.verdict === verdict && card.innerText.includes(text);
        }"""
        try:
            self.page.wait_until(condition, verdict, text)
        except BrowserError as error:
            raise AssertionError(f"the page does not say {verdict}, {text}: {self.shown()}") from error

    def shown(self) -> str:
        """Return all that is shown of the result."""
        text: str = self.page.run("() => document.getElementById('result').innerText")
        return text

    def outcomes(self) -> list[str]:
        """Return what came of each step, in their order."""
        script = "() => Array.from(document.querySelectorAll('.steps li'), (step) => step.dataset.outcome)"
        found: list[str] = self.page.run(script)
        return found

    def levels(self) -> dict[str, str]:
        """Return what became of each level."""
        found: dict[str, str] = self.page.run(
            """() => Object.fromEntries(Array.from(document.querySelectorAll(".levels li"), (level) =>
                 [level.querySelector("strong").textContent, level.dataset.state]))"""
        )
        return found
