"""The checks of examples/gossip that bring their own arithmetic judge every pair of sizes as the verifier does."""

import json
import os
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from kapsel_tlog.prover import consistency_spans
from kapsel_verifier.errors import ConsistencyError
from kapsel_verifier.merkle import root_from_leaves, verify_consistency

EXAMPLES = Path(__file__).parents[2] / "examples" / "gossip"
SIZES = 40

NODE = """\
import { readFileSync } from "node:fs";
import { consistent } from "%s";
const bytes = (text) => Buffer.from(text, "hex");
for (const [m, n, proof, old, fresh, expected] of JSON.parse(readFileSync("cases.json", "utf8")))
  if (consistent(m, n, proof.map(bytes), bytes(old), bytes(fresh)) !== expected) throw new Error(`${m} ${n} ${proof}`);
console.log("all judged");
"""
GO = """\
package main

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

func TestEveryPair(t *testing.T) {
	text, _ := os.ReadFile("cases.json")
	var cases [][]any
	if err := json.Unmarshal(text, &cases); err != nil || len(cases) == 0 {
		t.Fatal(err)
	}
	bytes := func(value any) []byte { found, _ := hex.DecodeString(value.(string)); return found }
	for _, one := range cases {
		var proof [][]byte
		for _, node := range one[2].([]any) {
			proof = append(proof, bytes(node))
		}
		m, n := uint64(one[0].(float64)), uint64(one[1].(float64))
		if consistent(m, n, proof, bytes(one[3]), bytes(one[4])) != one[5].(bool) {
			t.Error(one)
		}
	}
}
"""


def cases() -> list[list[object]]:
    """Every pair of sizes with its proof, and with one that is changed, cut, lengthened or of another pair."""
    leaves = [sha256(bytes([number])).digest() for number in range(SIZES)]
    roots = [root_from_leaves(leaves[:size]) for size in range(SIZES + 1)]
    made: list[list[object]] = []
    for new in range(SIZES + 1):
        for old in range(new + 1):
            proof = [root_from_leaves(leaves[begin:end]) for begin, end in consistency_spans(old, new)]
            proof = [] if old == new else proof
            changed = [proof[0][:-1] + bytes([proof[0][-1] ^ 1]), *proof[1:]] if proof else [bytes(32)]
            for one in (proof, changed, proof[:-1], [*proof, bytes(32)], proof[::-1]):
                for first, second in ((roots[old], roots[new]), (roots[new], roots[old])):
                    made.append(
                        [
                            old,
                            new,
                            [node.hex() for node in one],
                            first.hex(),
                            second.hex(),
                            holds(old, new, one, first, second),
                        ]
                    )
    return made


def holds(old: int, new: int, proof: list[bytes], first: bytes, second: bytes) -> bool:
    if old == 0 and not proof:
        return True  # nothing is said of a tree of nothing; the roots are those of signed heads
    try:
        verify_consistency(old, new, proof, first, second)
    except ConsistencyError:
        return False
    return True


@pytest.mark.parametrize("program", ["node", "go"])
def test_every_pair_of_sizes_is_judged_as_the_verifier_does(program: str, tmp_path: Path) -> None:
    found = shutil.which(program)
    if found is None:
        missing = f"{program} is not installed: its check of examples/gossip cannot be run"
        assert os.environ.get("CI") != "true", missing
        pytest.skip(missing)
    judged = cases()
    assert {one[5] for one in judged} == {True, False}
    (tmp_path / "cases.json").write_text(json.dumps(judged))
    if program == "node":
        script = tmp_path / "judge.mjs"
        script.write_text(NODE % (EXAMPLES / "javascript" / "gossip.mjs").as_uri())
        command = [found, str(script)]
    else:
        shutil.copytree(EXAMPLES / "go", tmp_path, dirs_exist_ok=True)
        (tmp_path / "pairs_test.go").write_text(GO)
        command = [found, "test", "./..."]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
