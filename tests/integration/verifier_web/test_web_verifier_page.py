"""The page as an auditor uses it: one file, opened from a disk, in a real browser."""

import json
from pathlib import Path

import pytest
from browser import Browser
from browser.verifier import Verifier, vector

from kapsel_verifier.strict import to_base64, to_base64url


def test_a_proof_that_is_dropped_with_a_trusted_key_is_verified(verifier: Verifier) -> None:
    case = vector("valid")
    verifier.says("waiting", "Waiting for a proof")
    verifier.page.drop("#proof-hint", verifier.file("proof.json", case["proof"]))
    verifier.says("waiting", "Waiting for a key")
    verifier.fill("keys", case["keys"][0])
    verifier.says("verified", "Verified: claimed")
    text = verifier.shown()
    for fact in ("leaf 5 in a tree of 13", "delivered, status 200", "log.example.com/shop", "What it does not prove"):
        assert fact in text
    assert set(verifier.outcomes()) == {"passed", "open"}
    assert verifier.page.complaints() == []


def test_a_changed_byte_is_refused_at_its_step_with_the_class_of_the_command(verifier: Verifier) -> None:
    case = vector("valid")
    proof = json.loads(case["proof"])
    path = proof["inclusion_proof"]
    path[0] = ("1" if path[0][0] == "0" else "0") + path[0][1:]
    verifier.give(case)
    verifier.page.drop("#proof-hint", verifier.file("changed.json", json.dumps(proof)))
    verifier.says("refused", "Refused: InclusionError")
    verifier.says("refused", "The path from the leaf does not lead to the root: this attempt is not, in this form")
    assert verifier.outcomes()[5:7] == ["refused", "open"]
    assert "Verified" not in verifier.shown()


def test_a_file_is_taken_wherever_it_is_dropped_and_never_opened_by_the_browser(verifier: Verifier) -> None:
    case = vector("valid-key-set")
    verifier.page.drop("#keySet", verifier.file("keys.json", case["key_set"]))
    verifier.page.drop("footer", verifier.file("proof.json", case["proof"]))
    verifier.says("verified")
    names = verifier.page.run("() => [keySet, proof].map((input) => input.files[0].name)")
    assert names == ["keys.json", "proof.json"]


def test_files_can_be_chosen_too(verifier: Verifier) -> None:
    case = vector("tlog-valid")
    verifier.choose("keySet", "keys.txt", f"# mine\n{case['keys'][0]}\n")
    verifier.choose("proof", "attempt.tlog-proof", case["proof"])
    verifier.says("verified", "Verified: claimed")


def test_the_proof_of_the_auditor_s_guide_is_verified_with_its_body(verifier: Verifier, web: Path) -> None:
    example = web.parents[1] / "examples" / "audit"
    verifier.fill("keys", (example / "log.vkey").read_text())
    verifier.page.choose("#body", example / "body.json")
    verifier.page.choose("#proof", example / "proof.json")
    verifier.says("verified", "Verified: claimed")
    assert "the body given matches" in verifier.shown()


def test_a_header_of_a_block_that_took_no_work_anchors_nothing(verifier: Verifier) -> None:
    case = vector("anchored-valid")
    assert case["min_difficulty"] == 0  # nobody mined the vector's block, and the page has no field for that
    verifier.give(case)
    assert verifier.levels()["anchored"] == "unchecked"
    verifier.fill("headers", case["block_headers"][0])
    verifier.says("refused", "too easy to make")


def test_the_destination_s_key_shows_that_it_got_the_delivery(verifier: Verifier) -> None:
    case = vector("acknowledged-valid")
    verifier.give(case)
    assert verifier.levels()["acknowledged"] == "unchecked"
    verifier.fill("destinationKeys", "00" * 32)
    verifier.says("refused", "Refused: AcknowledgementError")
    verifier.fill("destinationKeys", case["destination_keys"][0])
    verifier.says("verified", "Verified: acknowledged")
    key = bytes.fromhex(case["destination_keys"][0])
    verifier.fill("destinationKeys", "whpk_MTIz")
    verifier.says("refused", "key of the destination has 3 bytes, not 32")
    verifier.fill("destinationKeys", f"whpk_{to_base64(key)}")
    verifier.says("verified", "Verified: acknowledged")
    verifier.fill("destinationKeys", "")
    directory = {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": to_base64url(key)}]}
    verifier.choose("destinationKeySet", "keys.jwks", json.dumps(directory))
    verifier.says("verified", "Verified: acknowledged")


def test_a_policy_shows_that_witnesses_have_seen_the_log_and_is_enough_to_trust_it(verifier: Verifier) -> None:
    case = vector("witnessed-valid-policy-alone")
    verifier.choose("policy", "policy.txt", case["policy"])
    verifier.choose("proof", "proof.json", case["proof"])
    verifier.says("verified", "Verified: witnessed")
    assert verifier.levels() == case["levels"]


def test_the_body_and_its_salt_are_compared(verifier: Verifier) -> None:
    case = vector("valid-payload")
    verifier.give(case)
    verifier.choose("body", "other", b"something else")
    verifier.says("refused", "Refused: PayloadMismatchError")
    verifier.choose("body", "body", bytes.fromhex(case["payload"]))
    verifier.says("verified")
    verifier.fill("salt", case["payload_salt"].upper())
    opened = "the body given matches, and opens the commitment"
    verifier.page.wait_until("(text) => document.getElementById('report').innerText.includes(text)", opened)


def test_what_the_auditor_demands_is_demanded(verifier: Verifier) -> None:
    verifier.fill("expected", "outcome=delivered\nresponse_status=200\n")
    verifier.give(vector("valid"))
    verifier.fill("expected", "outcome=refused")
    verifier.says("refused", "Outcome is delivered, not refused")
    verifier.fill("expected", "")
    verifier.says("verified")
    verifier.fill("maxAge", "1")
    verifier.says("refused", "Refused: StaleHeadError")
    verifier.fill("maxAge", "")
    verifier.says("verified")
    verifier.page.run("() => document.querySelector('[value=witnessed]').click()")
    verifier.says("refused", "Refused: QuorumError")


def test_a_head_that_was_kept_must_be_of_the_same_history(verifier: Verifier) -> None:
    case = vector("known-valid-older")
    verifier.give(case)
    verifier.choose("knownCheckpoint", "checkpoint", case["known_checkpoint"])
    verifier.says("refused", "Refused: ConsistencyError")
    verifier.choose("consistency", "consistency.json", case["consistency"])
    verifier.says("verified")


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("salt", "xyz", "The salt must be given in hex digits."),
        ("salt", "00", "The salt needs the body that was sent."),
        ("expected", "delivered", "What the record must say is given as name=value, not delivered."),
        ("maxAge", "soon", "How old the head may be is given as a whole number of days."),
    ],
)
def test_what_cannot_be_used_is_no_verdict(verifier: Verifier, field: str, text: str, says: str) -> None:
    verifier.give(vector("valid"))
    verifier.fill(field, text)
    verifier.says("waiting", says)
    assert verifier.outcomes() == []


def test_a_huge_file_is_refused_without_being_read(verifier: Verifier, tmp_path: Path) -> None:
    huge = tmp_path / "proof.json"
    with huge.open("wb") as file:
        file.truncate(1 << 30)
    verifier.fill("keys", vector("valid")["keys"][0])
    verifier.page.choose("#proof", huge)
    verifier.says("refused", "Refused: TooLargeError")


def test_a_folder_and_two_files_at_once_are_no_proof(verifier: Verifier, tmp_path: Path) -> None:
    case = vector("valid")
    verifier.fill("keys", case["keys"][0])
    one, other = (verifier.file(name, case["proof"]) for name in ("one.json", "other.json"))
    verifier.page.drop("#proof-hint", one, other)
    verifier.says("waiting", "One file at a time: 2 were dropped for the proof.")
    verifier.page.drop("#proof-hint", tmp_path)
    verifier.says("waiting", "cannot be read")


def test_start_again_forgets_everything(verifier: Verifier) -> None:
    verifier.give(vector("valid"))
    verifier.start_again()
    assert verifier.page.run("() => [keys.value, proof.files.length, report.childElementCount]") == ["", 0, 0]


def test_the_result_can_be_printed_without_the_form(verifier: Verifier) -> None:
    verifier.give(vector("valid"))
    verifier.page.call("Emulation.setEmulatedMedia", media="print")
    assert verifier.page.run("() => [given, result].map((part) => part.checkVisibility())") == [False, True]


def test_the_page_as_it_is_served_does_the_same(chromium: Browser, site: str, tmp_path: Path) -> None:
    with chromium.page() as page:
        page.open(f"{site}/index.html")
        before = page.requested()
        assert all(address.startswith(f"{site}/") for address in before)
        Verifier(page, tmp_path).give(vector("valid"))
        assert page.requested() == before
        assert page.complaints() == []


def test_the_parts_opened_from_a_disk_say_which_file_to_open(chromium: Browser, web: Path) -> None:
    with chromium.page() as page:
        page.open((web / "index.html").as_uri())
        assert "kapsel-verify.html" in page.run("() => document.getElementById('card').innerText")
