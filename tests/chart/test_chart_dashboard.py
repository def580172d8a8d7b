"""The dashboard shows metrics that exist, in panels that do not overlap."""

import json
import re

from chart import CHART
from metric_names import METRICS, names_in

DASHBOARD = json.loads((CHART / "files/dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def test_every_metric_of_the_dashboard_is_one_that_a_process_has() -> None:
    used = {name for panel in PANELS for target in panel["targets"] for name in names_in(target["expr"])}
    assert len(used) > 30
    assert used - METRICS == set()


def test_every_metric_of_kapsel_is_on_the_dashboard() -> None:
    used = {name for panel in PANELS for target in panel["targets"] for name in names_in(target["expr"])}
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in used}
    own = {re.sub(r"_(bucket|sum|count|created)$", "", name) for name in METRICS if not name.startswith("process_")}
    assert own - shown - NOT_SHOWN == set()


# For whoever looks closer than a dashboard does.
NOT_SHOWN = {
    "attestation_leaf_lag_seconds",
    "console_request_duration_seconds",
    "delivery_batch_size",
    "delivery_claim_size",
    "delivery_record_size",
    "delivery_released_total",
    "operator_watch_events_total",
    "operator_watch_failures_total",
}


def test_every_panel_says_what_it_shows_and_has_a_place_of_its_own() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert all(panel["description"] for panel in PANELS)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
