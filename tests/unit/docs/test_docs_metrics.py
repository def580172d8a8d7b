"""The page of operations has every metric of every component, of its type, and no other."""

import re
from pathlib import Path

from metric_names import TYPES

PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z_]+)` \| (counter|gauge|histogram) \|", re.MULTILINE)


def test_every_metric_is_in_a_table_with_its_type_and_every_one_in_a_table_exists() -> None:
    exist = {name + ("_total" if type_ == "counter" else ""): type_ for name, type_ in TYPES.items()}
    assert dict(ROW.findall(PAGE)) == exist
