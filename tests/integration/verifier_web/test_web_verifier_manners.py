"""What the page owes whoever opens it: it keeps to itself, can be read and used by everybody, and is what it was."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from browser import Browser
from browser.verifier import Verifier, vector
from browser.verifier_pictures import take_all


def test_nothing_is_asked_of_the_network(verifier: Verifier, single_file: Path) -> None:
    verifier.give(vector("valid"))
    assert verifier.page.requested() == [single_file.as_uri()]


@pytest.mark.parametrize(
    "attempt",
    [
        "fetch('http://127.0.0.1:9/proof').catch(() => null)",
        "navigator.sendBeacon('http://127.0.0.1:9/proof', 'proof')",
        "Object.assign(new Image(), { src: 'http://127.0.0.1:9/proof' })",
        "new WebSocket('ws://127.0.0.1:9/proof')",
        "document.body.append(Object.assign(document.createElement('iframe'), { src: 'http://127.0.0.1:9/proof' }))",
        "given.action = 'http://127.0.0.1:9/proof'; given.submit()",
    ],
)
def test_the_page_could_not_send_anything_if_it_wanted_to(verifier: Verifier, attempt: str) -> None:
    blocked = verifier.page.run(
        f"""() => new Promise((resolve) => {{
          document.addEventListener("securitypolicyviolation", (event) => resolve(event.blockedURI));
          try {{ {attempt}; }} catch {{}}
        }})"""
    )
    assert "127.0.0.1:9" in blocked


def test_nothing_in_a_file_becomes_part_of_the_page(verifier: Verifier) -> None:
    case = vector("valid")
    hostile = "<img src=x onerror='document.title=1'><script>document.title=1</script>\u202e"
    verifier.fill("keys", case["keys"][0])
    verifier.choose("proof", "proof.json", json.dumps({**json.loads(case["proof"]), hostile: 1}))
    verifier.says("refused", "<img src=x")
    assert "\u202e" not in verifier.shown()
    assert verifier.page.run("() => document.images.length + document.scripts.length") == 1
    assert verifier.page.complaints() == []


def test_the_keyboard_reaches_every_field_in_order_and_shows_where_it_is(verifier: Verifier) -> None:
    page = verifier.page
    reached = []
    for _ in range(5):
        page.press("Tab")
        reached.append(page.run("() => document.activeElement.id || document.activeElement.localName"))
        assert page.run("() => getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert reached == ["proof", "keys", "keySet", "summary", "button"]
    page.run("() => document.querySelector('summary').focus()")
    page.press("Enter", "\r")
    page.wait_until("() => document.getElementById('more').open")


def test_every_field_has_a_name_and_the_verdict_is_announced(verifier: Verifier) -> None:
    verifier.open_all()
    nodes = verifier.page.call("Accessibility.getFullAXTree")["nodes"]
    fields = [node for node in nodes if node.get("role", {}).get("value") in ("textbox", "button", "checkbox")]
    assert len(fields) > 15
    assert [node for node in fields if not node.get("name", {}).get("value")] == []
    verifier.give(vector("valid"))
    announced = verifier.page.run("() => document.querySelector('[role=status]').textContent")
    assert announced.startswith("Verified: claimed. ")


# The contrast (WCAG 2) of each piece of text that is visible with what is painted below it.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const paint = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (colours) => paint(colours).map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const grounds = (element) => {
    const found = [];
    for (let one = element; one; one = one.parentElement) found.unshift(getComputedStyle(one).backgroundColor);
    return ["white", ...found];
  };
  const seen = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || element.closest(".unseen, script, style")) continue;
    if (!element.checkVisibility()) continue;
    const [text, ground] = [light([...grounds(element), getComputedStyle(element).color]), light(grounds(element))];
    const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    seen.push([walker.currentNode.data.trim().slice(0, 40), contrast]);
  }
  return seen;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["acknowledged-valid-unchecked", "inclusion-index"])
def test_all_text_can_be_read_in_both_schemes(verifier: Verifier, scheme: str, name: str) -> None:
    verifier.page.emulate(prefers_color_scheme=scheme)
    verifier.give(vector(name))
    verifier.open_all()
    contrasts = verifier.page.run(CONTRASTS)
    assert len(contrasts) > 40
    assert [(text, contrast) for text, contrast in contrasts if contrast < 4.5] == []


@pytest.mark.parametrize("name", ["acknowledged-valid", "inclusion-index", "malformed-unknown-member"])
def test_a_narrow_screen_shows_all_without_scrolling_sideways(verifier: Verifier, name: str) -> None:
    verifier.page.resize(360, 740)
    verifier.give(vector(name))
    verifier.open_all()
    assert verifier.page.run("() => document.documentElement.scrollWidth") == 360


def test_two_copies_of_the_single_file_are_the_same(single_file: Path, web: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    made = subprocess.run([sys.executable, web / "bundle.py", again], check=True, capture_output=True, text=True)
    assert again.read_bytes() == single_file.read_bytes()
    assert made.stdout.split()[1:] == [str(again)]


@pytest.mark.parametrize(
    ("part", "addition", "says"),
    [
        ("words.js", "export default 1;\n", "not known here: export default 1;"),
        ("bytes.js", 'import { shown } from "./strict.js";\n', "modules need each other"),
        ("style.css", "/* </style> */\n", "an end tag within"),
        ("index.html", '<link rel="stylesheet" href="style.css">\n', "does not hold exactly once"),
    ],
)
def test_no_page_is_made_of_parts_that_do_not_fit_into_one(
    web: Path, tmp_path: Path, part: str, addition: str, says: str
) -> None:
    copy = shutil.copytree(web, tmp_path / "web")
    with (copy / part).open("a") as file:
        file.write(addition)
    command = [sys.executable, copy / "bundle.py", tmp_path / "page"]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    assert made.returncode == 1
    assert says in made.stderr
    assert not (tmp_path / "page").exists()


def test_the_pictures_in_the_docs_can_be_made_anew(
    chromium: Browser, single_file: Path, web: Path, tmp_path: Path
) -> None:
    docs = web.parents[1] / "docs"
    made = take_all(chromium, single_file.as_uri(), tmp_path)
    linked = re.findall(r"\(images/(web-verifier-[\w-]+\.png)\)", (docs / "web-verifier.md").read_text())
    assert sorted(made) == sorted(linked) == sorted(path.name for path in docs.glob("images/web-verifier-*.png"))
    for name, png in made.items():
        # Fonts differ between machines, sizes do not.
        assert png[:24] == (docs / "images" / name).read_bytes()[:24]
        assert len(png) > 20_000
