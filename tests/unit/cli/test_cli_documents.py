"""Documents keep their lines, and refuse what YAML readers disagree about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kapsel_cli.documents import Document, Flaw, read


def only(text: str) -> Document:
    documents, flaws = read(text.encode())
    assert flaws == []
    assert len(documents) == 1
    return documents[0]


def flaws_of(text: str) -> list[Flaw]:
    documents, flaws = read(text.encode())
    assert documents == []
    return flaws


def test_every_field_knows_its_line() -> None:
    document = only("kind: A\nspec:\n  list:\n  - one: 1\n    two: 2\n  - three\n")
    assert document.line_of(("kind",)) == 1
    assert document.line_of(("spec", "list", 0, "two")) == 5
    assert document.line_of(("spec", "list", 1)) == 6


def test_a_field_that_is_not_there_has_the_line_of_what_would_hold_it() -> None:
    document = only("kind: A\nspec:\n  name: x\n")
    assert document.line_of(("spec", "missing", 3, "deep")) == 2


def test_lines_count_through_all_documents_of_a_file() -> None:
    documents, _ = read(b"# nothing\n---\na: 1\n---\n---\nb: 2\n")
    assert [document.content for document in documents] == [{"a": 1}, {"b": 2}]
    assert documents[1].line_of(("b",)) == 6


def test_a_list_is_taken_apart_as_kubectl_does() -> None:
    documents, _ = read(b"apiVersion: v1\nkind: List\nitems:\n- kind: A\n- kind: B\n  spec: {x: 1}\n")
    assert [document.content for document in documents] == [{"kind": "A"}, {"kind": "B", "spec": {"x": 1}}]
    assert documents[1].line_of(("spec", "x")) == 6


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "the key a is there twice, first on line 1"),
        ("on: 1\n", 1, 'quote it: "on"'),
        ("spec:\n  n: 1\n", 2, 'quote it: "n"'),
        ("1: x\n", 1, 'quote it: "1"'),
        ("a: y\n", 1, 'quote it: "y"'),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", 3, "merge keys"),
        ("a: !!binary aGk=\n", 1, "the YAML tag binary"),
        ("a: !custom x\n", 1, "custom"),
        ("? [a, b]\n: c\n", 1, "a key must be a string"),
        ("a: [1\nb: 2\n", 2, "the file is not YAML"),
        ("a: 1\n b: 2\n", 2, "the file is not YAML"),
        ("a: *nowhere\n", 1, "the file is not YAML"),
        ("a: \x01\n", 1, "the file is not YAML"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str, line: int, said: str) -> None:
    flaws = flaws_of(text)
    assert [flaw.line for flaw in flaws] == [line]
    assert said in flaws[0].wrong


def test_bytes_that_are_not_utf_8_are_named() -> None:
    _, flaws = read(b"a: \xff\xfe\xfa\n")
    assert "not YAML" in flaws[0].wrong


def test_dates_and_times_stay_the_strings_that_kubernetes_reads() -> None:
    assert only("a: 2026-01-02\nb: 12:30\nc: '12:30:00'\n").content == {
        "a": "2026-01-02",
        "b": "12:30",
        "c": "12:30:00",
    }


def test_aliases_of_aliases_do_not_fill_the_memory() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9))
    flaws = flaws_of(f"l0: &l0 [x, x]\n{levels}\n")
    assert len(flaws) == 1
    assert "more than 200000 values" in flaws[0].wrong


def test_one_broken_document_does_not_hide_the_sound_ones_before_it() -> None:
    documents, flaws = read(b"a: 1\n---\non: 2\n---\nb: 3\n")
    assert [document.content for document in documents] == [{"a": 1}, {"b": 3}]
    assert [flaw.line for flaw in flaws] == [3]


@given(st.binary(max_size=300))
def test_no_bytes_make_it_raise(text: bytes) -> None:
    read(text)


@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>'\"%@`#,? \n\t0"), max_size=120))
def test_no_punctuation_makes_it_raise(text: str) -> None:
    read(text.encode())
