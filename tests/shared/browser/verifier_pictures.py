"""Makes the pictures of the web verifier in the documentation: `make screenshots`.

The page is the one that `make web-verifier` writes, what it judges are test vectors, and its clock stands still: the
same page gives the same pictures.
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from browser.chromium import Browser, Page, find
from browser.png import reduced
from browser.verifier import Verifier, vector

NOW_MS: Final = 1_767_312_000_000  # 2026-01-02 00:00 UTC, a day after the heads of the vectors


class Picture(NamedTuple):
    """One picture: which vector, seen how."""

    vector: str
    width: int = 1120
    height: int = 830
    scheme: str = "light"


PICTURES: Final[Mapping[str, Picture]] = {
    "web-verifier-acknowledged.png": Picture("acknowledged-valid", height=1290),
    "web-verifier-refused.png": Picture("inclusion-leaf-altered"),
    "web-verifier-dark.png": Picture("witnessed-valid", scheme="dark", height=690),
    "web-verifier-phone.png": Picture("valid", width=360, height=1180),
}


def take(page: Page, address: str, picture: Picture, folder: Path) -> bytes:
    """Give the page what the vector says and return what it then looks like."""
    case = vector(picture.vector)
    page.call("Page.addScriptToEvaluateOnNewDocument", source=f"Date.now = () => {NOW_MS}")
    page.resize(picture.width, picture.height)
    page.emulate(prefers_color_scheme=picture.scheme)
    page.open(address)
    verifier = Verifier(page, folder)
    if "policy" in case:
        verifier.choose("policy", "policy.txt", case["policy"])
    if "destination_keys" in case:
        page.run("() => { more.open = true; }")
        verifier.fill("destinationKeys", "\n".join(case["destination_keys"]))
    verifier.give(case)
    page.run("() => scrollTo(0, 0)")
    return page.screenshot()


def take_all(browser: Browser, address: str, folder: Path) -> dict[str, bytes]:
    """Return every picture by its name; `folder` is for the files that the page is given."""
    made = {}
    for name, picture in PICTURES.items():
        with browser.page() as page:
            made[name] = take(page, address, picture, folder)
    return made


def main(page: Path, target: Path) -> None:
    """Write the pictures of the page into a folder."""
    program = find()
    if program is None:
        sys.exit("the pictures are made with Chromium, and there is none: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder, Browser(program, Path(folder)) as browser:
        for name, png in take_all(browser, page.resolve().as_uri(), Path(folder)).items():
            (target / name).write_bytes(reduced(png))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
