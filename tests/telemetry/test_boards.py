"""The dashboard and the alerts in docs can be read, and ask for metrics that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FOLDER = DOCS / "telemetry"
TYPES = {"timeseries", "stat"}
LINE = re.compile(r"^ *(alert|expr|for|severity|summary|description): (.+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def names() -> set[str]:
    """The names of all samples that there are."""
    pytest.importorskip("prometheus_client")
    from backlite_async import Client
    from backlite_async.telemetry.prometheus import Prometheus

    found = set()
    for family in Prometheus(Client(":memory:")).describe():
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
        found |= {family.name + ending for ending in endings.get(family.type, [""])}
    return found


def asked(expression: str) -> set[str]:
    return set(re.findall(r"\bbacklite_\w+", expression))


def board() -> Any:
    return json.loads((FOLDER / "grafana-dashboard.json").read_text(encoding="utf-8"))


def alerts() -> list[dict[str, str]]:
    """Return the alerts, by the few forms that they are written in."""
    text = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
    found = []
    for rule in re.split(r"^      - ", text, flags=re.MULTILINE)[1:]:
        said = re.sub(r">-((\n {10}.+)+)", lambda folded: " ".join(folded[1].split()), rule)
        found.append(dict(LINE.findall(said)))
    return found


def test_the_names_are_those_that_are_promised(names: set[str]) -> None:
    """Dashboards of others rely on them."""
    assert names == {
        "backlite_jobs_added_total",
        "backlite_jobs_finished_total",
        "backlite_job_attempts_total",
        *(f"backlite_job_run_seconds_{end}" for end in ("bucket", "sum", "count")),
        *(f"backlite_job_wait_seconds_{end}" for end in ("bucket", "sum", "count")),
        "backlite_jobs",
        "backlite_oldest_due_job_age_seconds",
        "backlite_workers",
        "backlite_build_info",
    }  # fmt: skip


def test_each_panel_asks_for_what_there_is(names: set[str]) -> None:
    """And lies where no other does; its data source is the one that is chosen."""
    taken: set[tuple[int, int]] = set()
    seen: set[str] = set()
    for panel in board()["panels"]:
        assert panel["type"] in TYPES
        assert panel["title"]
        assert panel["targets"]
        for target in panel["targets"]:
            found = asked(target["expr"])
            assert found
            assert found <= names
            assert target["expr"].count("(") == target["expr"].count(")")
            assert target["datasource"]["uid"] == "${datasource}"
            seen |= found
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert seen == names  # nothing is measured in vain


def test_the_board_can_be_imported(names: set[str]) -> None:
    """It has what Grafana wants of one, each panel a number of its own, and variables that are there."""
    found = board()
    assert {"title", "uid", "schemaVersion", "panels", "templating", "time"} <= set(found)
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    variables = {variable["name"] for variable in found["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps([found["panels"], found["templating"]])))
    assert {name for name in used if not name.startswith("__")} == variables
    assert asked(json.dumps(found["templating"])) <= names


def test_each_alert_asks_for_what_there_is(names: set[str]) -> None:
    """Five of them, each with what it means."""
    found = alerts()
    assert len({alert["alert"] for alert in found}) == 5
    for alert in found:
        assert asked(alert["expr"])
        assert asked(alert["expr"]) <= names
        assert alert["expr"].count("(") == alert["expr"].count(")")
        assert alert["severity"] in ("warning", "critical")
        assert alert["summary"]
        assert alert["description"]


def test_the_alerts_are_yaml() -> None:
    """As another reader sees it, where there is one."""
    yaml = pytest.importorskip("yaml")
    [group] = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    read = [{"alert": rule["alert"], "expr": rule["expr"]} for rule in group["rules"]]
    assert read == [{"alert": alert["alert"], "expr": alert["expr"]} for alert in alerts()]
