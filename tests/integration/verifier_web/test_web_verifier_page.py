"""The page as an auditor uses it: one file, opened from a disk, in a real browser that could reach the network."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, BrowserError, Page
from browser.verifier_pictures import take_all

VECTORS = Path(__file__).parents[2] / "vectors"


def vector(name: str) -> dict[str, Any]:
    case: dict[str, Any] = json.loads((VECTORS / "proof" / f"{name}.json").read_text())
    return case


@pytest.fixture
def page(chromium: Browser, single_file: Path) -> Iterator[Page]:
    with chromium.page() as page:
        page.open(single_file.as_uri())
        yield page


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def fill(page: Page, field: str, text: str) -> None:
    page.run(
        """(id, text) => {
          const field = document.getElementById(id);
          field.value = text;
          field.dispatchEvent(new Event("input", { bubbles: true }));
        }""",
        field,
        text,
    )


def shown(page: Page) -> str:
    text: str = page.run("() => document.getElementById('result').innerText")
    return text


def card(page: Page, verdict: str, text: str = "") -> None:
    """Wait until the card has this verdict and this text."""
    condition = """(verdict, text) => {
      const card = document.getElementById("card");
      return card.dataset.verdict === verdict && card.innerText.includes(text);
    }"""
    try:
        page.wait_until(condition, verdict, text)
    except BrowserError:
        pytest.fail(f"the page does not say {verdict}, {text}: {shown(page)}")


def waits_for(page: Page, text: str) -> None:
    card(page, "waiting", text)


def outcomes(page: Page) -> list[str]:
    found: list[str] = page.run(
        "() => Array.from(document.querySelectorAll('.steps li'), (step) => step.dataset.outcome)"
    )
    return found


def test_a_proof_that_is_dropped_with_a_trusted_key_is_verified(page: Page, tmp_path: Path) -> None:
    case = vector("valid")
    waits_for(page, "Waiting for a proof")
    page.drop("#proof-hint", write(tmp_path, "proof.json", case["proof"]))
    waits_for(page, "Waiting for a key")
    fill(page, "keys", case["keys"][0])
    card(page, "verified", "Verified: claimed")
    text = shown(page)
    for fact in ("leaf 5 in a tree of 13", "delivered, status 200", "log.example.com/shop", "What it does not prove"):
        assert fact in text
    assert set(outcomes(page)) == {"passed", "open"}
    assert page.complaints() == []


def test_a_changed_byte_is_refused_at_its_step_with_the_class_of_the_command(page: Page, tmp_path: Path) -> None:
    case = vector("valid")
    proof = json.loads(case["proof"])
    path = proof["inclusion_proof"]
    path[0] = ("1" if path[0][0] == "0" else "0") + path[0][1:]
    fill(page, "keys", case["keys"][0])
    page.drop("#proof-hint", write(tmp_path, "proof.json", case["proof"]))
    card(page, "verified")
    page.drop("#proof-hint", write(tmp_path, "changed.json", json.dumps(proof)))
    card(page, "refused", "Refused: InclusionError")
    card(page, "refused", "The path from the leaf does not lead to the root: this attempt is not, in this form")
    assert outcomes(page)[5:7] == ["refused", "open"]
    assert "Verified" not in shown(page)


def test_a_file_is_taken_wherever_it_is_dropped_and_never_opened_by_the_browser(page: Page, tmp_path: Path) -> None:
    case = vector("valid-key-set")
    page.drop("#keySet", write(tmp_path, "keys.json", case["key_set"]))
    page.drop("footer", write(tmp_path, "proof.json", case["proof"]))
    card(page, "verified")
    assert page.run("() => [keySet, proof].map((input) => input.files[0].name)") == ["keys.json", "proof.json"]


def test_files_can_be_chosen_too(page: Page, tmp_path: Path) -> None:
    case = vector("tlog-valid")
    page.choose("#keySet", write(tmp_path, "keys.txt", f"# mine\n{case['keys'][0]}\n"))
    page.choose("#proof", write(tmp_path, "attempt.tlog-proof", case["proof"]))
    card(page, "verified", "Verified: claimed")


def test_each_level_is_established_with_what_the_auditor_gives_for_it(page: Page, tmp_path: Path) -> None:
    case = vector("anchored-valid")
    assert "min_difficulty" in case  # the vector's block was not made by miners, and the page has no field for that
    page.choose("#proof", write(tmp_path, "proof.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    card(page, "verified")
    assert levels(page)["anchored"] == "unchecked"
    fill(page, "headers", case["block_headers"][0])
    card(page, "refused", "too easy to make")

    case = vector("acknowledged-valid")
    page.run("() => given.reset()")
    waits_for(page, "Waiting for a proof")
    page.choose("#proof", write(tmp_path, "acknowledged.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    card(page, "verified")
    assert levels(page)["acknowledged"] == "unchecked"
    fill(page, "destinationKeys", "00" * 32)
    card(page, "refused", "Refused: AcknowledgementError")
    fill(page, "destinationKeys", case["destination_keys"][0])
    card(page, "verified", "Verified: acknowledged")

    case = vector("witnessed-valid")
    page.run("() => given.reset()")
    waits_for(page, "Waiting for a proof")
    page.choose("#proof", write(tmp_path, "witnessed.json", case["proof"]))
    page.choose("#policy", write(tmp_path, "policy.txt", case["policy"]))
    fill(page, "keys", "\n".join(case["keys"]))
    card(page, "verified", "Verified: witnessed")
    assert levels(page) == case["levels"]


def levels(page: Page) -> dict[str, str]:
    found: dict[str, str] = page.run(
        """() => Object.fromEntries(Array.from(document.querySelectorAll(".levels li"), (level) =>
             [level.querySelector("strong").textContent, level.dataset.state]))"""
    )
    return found


def test_body_salt_head_and_expectations_are_checked(page: Page, tmp_path: Path) -> None:
    case = vector("valid-payload")
    page.choose("#proof", write(tmp_path, "proof.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    page.choose("#body", write(tmp_path, "body", bytes.fromhex(case["payload"])))
    fill(page, "salt", case["payload_salt"].upper())
    fill(page, "expected", "outcome=delivered\nresponse_status=200\n")
    opened = "the body given matches, and opens the commitment"
    page.wait_until("(text) => document.getElementById('report').innerText.includes(text)", opened)
    card(page, "verified")
    fill(page, "expected", "outcome=refused")
    card(page, "refused", "Outcome is delivered, not refused")
    fill(page, "expected", "")
    fill(page, "maxAge", "1")
    card(page, "refused", "Refused: StaleHeadError")
    fill(page, "maxAge", "")
    page.run("() => document.querySelector('[value=witnessed]').click()")
    card(page, "refused", "Refused: QuorumError")

    case = vector("known-valid-older")
    page.run("() => given.reset()")
    waits_for(page, "Waiting for a proof")
    page.choose("#proof", write(tmp_path, "later.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    page.choose("#knownCheckpoint", write(tmp_path, "checkpoint", case["known_checkpoint"]))
    card(page, "refused", "Refused: ConsistencyError")
    page.choose("#consistency", write(tmp_path, "consistency.json", case["consistency"]))
    card(page, "verified")


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("salt", "xyz", "The salt must be given in hex digits."),
        ("salt", "00", "The salt needs the body that was sent."),
        ("expected", "delivered", "What the record must say is given as name=value, not delivered."),
        ("maxAge", "soon", "How old the head may be is given as a whole number of days."),
    ],
)
def test_what_cannot_be_used_is_no_verdict(page: Page, tmp_path: Path, field: str, text: str, says: str) -> None:
    case = vector("valid")
    page.choose("#proof", write(tmp_path, "proof.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    card(page, "verified")
    fill(page, field, text)
    card(page, "waiting", says)
    assert outcomes(page) == []


def test_a_huge_file_is_refused_without_being_read(page: Page, tmp_path: Path) -> None:
    huge = tmp_path / "proof.json"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    fill(page, "keys", vector("valid")["keys"][0])
    page.choose("#proof", huge)
    card(page, "refused", "Refused: TooLargeError")


def test_a_folder_and_two_files_at_once_are_no_proof(page: Page, tmp_path: Path) -> None:
    fill(page, "keys", vector("valid")["keys"][0])
    one, other = (write(tmp_path, name, vector("valid")["proof"]) for name in ("one.json", "other.json"))
    page.drop("#proof-hint", one, other)
    waits_for(page, "One file at a time: 2 were dropped for the proof.")
    page.drop("#proof-hint", tmp_path)
    waits_for(page, "cannot be read")


def test_nothing_in_a_file_becomes_part_of_the_page(page: Page, tmp_path: Path) -> None:
    case = vector("valid")
    hostile = "<img src=x onerror='document.title=1'><script>document.title=1</script>\u202e"
    proof = {**json.loads(case["proof"]), hostile: 1}
    fill(page, "keys", case["keys"][0])
    page.choose("#proof", write(tmp_path, "proof.json", json.dumps(proof)))
    card(page, "refused", "<img src=x")
    assert "\u202e" not in shown(page)
    assert page.run("() => document.images.length + document.scripts.length") == 1
    assert page.complaints() == []


def test_nothing_is_asked_of_the_network(page: Page, single_file: Path, tmp_path: Path) -> None:
    case = vector("valid")
    page.choose("#proof", write(tmp_path, "proof.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    card(page, "verified")
    assert page.requested() == [single_file.as_uri()]


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
def test_the_page_could_not_send_anything_if_it_wanted_to(page: Page, attempt: str) -> None:
    blocked = page.run(
        f"""() => new Promise((resolve) => {{
          document.addEventListener("securitypolicyviolation", (event) => resolve(event.blockedURI));
          try {{ {attempt}; }} catch {{}}
        }})"""
    )
    assert "127.0.0.1:9" in blocked


def test_the_page_as_it_is_served_does_the_same_and_asks_only_for_its_own_parts(
    chromium: Browser, site: str, tmp_path: Path
) -> None:
    case = vector("valid")
    with chromium.page() as page:
        page.open(f"{site}/index.html")
        before = page.requested()
        assert all(address.startswith(f"{site}/") for address in before)
        page.drop("#proof-hint", write(tmp_path, "proof.json", case["proof"]))
        fill(page, "keys", case["keys"][0])
        card(page, "verified", "Verified: claimed")
        assert page.requested() == before
        assert page.complaints() == []


def test_the_parts_opened_from_a_disk_say_which_file_to_open(chromium: Browser) -> None:
    with chromium.page() as page:
        page.open((VECTORS.parents[1] / "verifier" / "web" / "index.html").as_uri())
        assert "kapsel-verify.html" in page.run("() => document.getElementById('card').innerText")


def test_the_keyboard_reaches_every_field_in_order_and_shows_where_it_is(page: Page) -> None:
    page.run("() => document.body.focus()")
    reached = []
    for _ in range(5):
        page.press("Tab")
        reached.append(page.run("() => document.activeElement.id || document.activeElement.localName"))
        assert page.run("() => getComputedStyle(document.activeElement).outlineWidth") == "3px"
    assert reached == ["proof", "keys", "keySet", "summary", "button"]
    page.run("() => document.querySelector('summary').focus()")
    page.press("Enter", "\r")
    page.wait_until("() => document.getElementById('more').open")


def test_every_field_has_a_name_and_the_verdict_is_announced(page: Page, tmp_path: Path) -> None:
    page.run("() => { more.open = true; }")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    fields = [node for node in nodes if node.get("role", {}).get("value") in ("textbox", "button", "checkbox")]
    assert len(fields) > 15
    assert [node for node in fields if not node.get("name", {}).get("value")] == []
    case = vector("valid")
    page.choose("#proof", write(tmp_path, "proof.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    card(page, "verified")
    announced = "() => document.querySelector('[role=status]').textContent"
    assert page.run(announced).startswith("Verified: claimed. ")


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
def test_all_text_can_be_read_in_both_schemes(page: Page, tmp_path: Path, scheme: str, name: str) -> None:
    case = vector(name)
    page.emulate(prefers_color_scheme=scheme)
    page.run("() => { more.open = true; }")
    page.choose("#proof", write(tmp_path, "proof.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    card(page, "refused" if case["error"] else "verified")
    contrasts = page.run(CONTRASTS)
    assert len(contrasts) > 40
    assert [(text, contrast) for text, contrast in contrasts if contrast < 4.5] == []


@pytest.mark.parametrize("name", ["acknowledged-valid", "inclusion-index", "malformed-unknown-member"])
def test_a_narrow_screen_shows_all_without_scrolling_sideways(page: Page, tmp_path: Path, name: str) -> None:
    case = vector(name)
    page.resize(360, 740)
    page.run("() => { more.open = true; }")
    page.choose("#proof", write(tmp_path, "proof.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    card(page, "refused" if case["error"] else "verified")
    page.run("() => document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert page.run("() => document.documentElement.scrollWidth") == 360


def test_the_result_can_be_printed_without_the_form(page: Page, tmp_path: Path) -> None:
    case = vector("valid")
    page.choose("#proof", write(tmp_path, "proof.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    card(page, "verified")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("() => [given, result].map((part) => part.checkVisibility())") == [False, True]


def test_start_again_forgets_everything(page: Page, tmp_path: Path) -> None:
    case = vector("valid")
    page.choose("#proof", write(tmp_path, "proof.json", case["proof"]))
    fill(page, "keys", case["keys"][0])
    card(page, "verified")
    page.run("() => document.querySelector('[type=reset]').click()")
    waits_for(page, "Waiting for a proof")
    assert page.run("() => [keys.value, proof.files.length, report.childElementCount]") == ["", 0, 0]


def test_two_copies_of_the_single_file_are_the_same(single_file: Path, tmp_path: Path) -> None:
    web = VECTORS.parents[1] / "verifier" / "web"
    made = subprocess.run(
        [sys.executable, web / "bundle.py", tmp_path / "again.html"], check=True, capture_output=True, text=True
    )
    assert (tmp_path / "again.html").read_bytes() == single_file.read_bytes()
    assert made.stdout.split()[1:] == [str(tmp_path / "again.html")]


def test_the_pictures_in_the_docs_are_those_that_can_be_made_anew(
    chromium: Browser, single_file: Path, tmp_path: Path
) -> None:
    docs = VECTORS.parents[1] / "docs"
    made = take_all(chromium, single_file.as_uri(), tmp_path)
    shown_there = re.findall(r"\(images/(web-verifier-[\w-]+\.png)\)", (docs / "web-verifier.md").read_text())
    assert sorted(made) == sorted(shown_there) == sorted(path.name for path in docs.glob("images/web-verifier-*.png"))
    for name, png in made.items():
        # Fonts differ between machines, sizes do not.
        assert png[:24] == (docs / "images" / name).read_bytes()[:24]
        assert len(png) > 20_000
