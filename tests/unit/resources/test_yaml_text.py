import yaml
from hypothesis import given
from hypothesis import strategies as st

from kapsel_resources import yaml_text

SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.sampled_from(
        ["", "on", "Yes", "null", "~", "12:30", "1e3", "0x1", "a: b", "- a", "# a", "a #b", "=", "<<", ".inf"]
    ),
    st.text(st.characters(codec="ascii", exclude_characters="\x7f"), max_size=20),
    st.lists(st.text("abc:#'\"-{}[],&*!|>%@`", min_size=1, max_size=9), min_size=1, max_size=60).map(" ".join),
)


def _mappings(inner):
    return st.dictionaries(st.text("abony-./ ", min_size=1, max_size=8), inner, max_size=3)


DOCUMENTS = st.dictionaries(
    st.text("abony-./ ", min_size=1, max_size=8),
    st.recursive(SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), _mappings(inner)), max_leaves=12),
    min_size=1,
    max_size=4,
)


def _without_nested_lists(value):
    """Lists of lists do not occur in a definition, and are not written."""
    if isinstance(value, dict):
        return {key: _without_nested_lists(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nested_lists(inner) for inner in value if not isinstance(inner, list)]
    return value


@given(DOCUMENTS.map(_without_nested_lists))
def test_what_is_written_reads_as_what_it_was(document):
    assert yaml.safe_load(yaml_text.dump(document)) == document


def test_a_sentence_is_folded_and_a_word_is_plain():
    text = yaml_text.dump({"kind": "Relay", "on": True, "description": "word " * 30 + "end"})

    assert text.splitlines()[:2] == ["kind: Relay", '"on": true']
    assert "description: >-" in text
    assert max(map(len, text.splitlines())) <= 120
