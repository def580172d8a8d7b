"""Quantities as an API server writes them; tests/cluster compares with a real one."""

import pytest

from kapsel_operator.manifests.quantities import canonical, resources

WRITTEN = [
    ("500m", "500m"),
    ("0.5", "500m"),
    (".5", "500m"),
    ("1000m", "1"),
    ("1500m", "1500m"),
    ("2", "2"),
    (2, "2"),
    ("1000", "1k"),
    ("1e3", "1e3"),
    ("12e1", "120"),
    ("0", "0"),
    ("0Gi", "0"),
    ("1024Mi", "1Gi"),
    ("1.5Gi", "1536Mi"),
    ("0.5Gi", "512Mi"),
    ("1Ki", "1Ki"),
    ("0.5Ki", "512"),
    ("0.1Gi", "107374182400m"),
    ("128974848", "128974848"),
    ("123M", "123M"),
    ("0.0000000001", "1m"),
    ("100u", "1m"),
    ("1Ei", "1Ei"),
]


@pytest.mark.parametrize(("given", "kept"), WRITTEN)
def test_a_quantity_is_written_as_a_server_keeps_it(given: object, kept: str) -> None:
    assert canonical(given) == kept
    assert canonical(kept) == kept


@pytest.mark.parametrize("other", ["", "much", "1 Gi", "-1", None, True, 1.5, {"a": 1}, "1e999"])
def test_what_is_no_quantity_is_left_to_the_server_to_refuse(other: object) -> None:
    assert canonical(other) == other


def test_resources_of_any_shape_are_taken() -> None:
    assert resources({"limits": {"cpu": "0.5"}, "claims": [], "requests": None}) == {
        "limits": {"cpu": "500m"},
        "claims": [],
        "requests": None,
    }
    assert resources("much") == "much"
