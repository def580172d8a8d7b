from pathlib import Path
from typing import get_args

import yaml

from kapsel_resources import reference
from kapsel_resources.manifests import parse
from kapsel_resources.reasons import REASONS, Reason

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def _examples(page: str) -> list[object]:
    blocks = [block.partition("```")[0] for block in page.split("```yaml\n")[1:]]
    return [document for block in blocks for document in yaml.safe_load_all(block)]


def test_the_page_is_what_the_models_say():
    assert PAGE.read_text(encoding="utf-8") == reference.render(), (
        "run: python -m kapsel_resources.reference > docs/configuration.md"
    )


def test_no_placeholder_is_left_in_the_page():
    assert "<!--" not in reference.render()


def test_every_example_of_the_page_is_a_good_manifest():
    examples = _examples(reference.render())

    assert len(examples) >= 9
    for example in examples:
        assert not isinstance(parse(example), list), example


def test_every_reason_is_explained():
    assert set(REASONS) == set(get_args(Reason))
    assert list(REASONS) == sorted(REASONS)
