"""The dashboard and the alerts name metrics and labels that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import promql_parser as promql
import pytest
import yaml

from agentapi.metrics.catalog import CATALOG
from tools import dashboard

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy" / "prometheus" / "rules.yaml"
GUIDE: Final = ROOT / "docs" / "guides" / "metrics.md"
RUNBOOK: Final = "docs/guides/operate.md"

KINDS: Final = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
LABELS: Final = {
    f"{metric.name}{end}": {*metric.labels, "instance", "job", *(["le"] if end else [])}
    for metric in CATALOG
    for end in KINDS[metric.kind]
}


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    panels = json.loads(dashboard.TARGET.read_text())["panels"]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [*shown, *(rule["expr"] for rule in rules())]


def selectors(text: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that an expression reads, each with the labels that it selects by."""
    # A variable of Grafana; the parser knows only PromQL.
    found: list[Any] = [promql.parse(text.replace("$__rate_interval", "5m"))]
    while found:
        node = found.pop()
        if isinstance(node, promql.VectorSelector):
            yield str(node.name), {matcher.name for matcher in node.matchers.matchers}
        for name in ("expr", "lhs", "rhs", "vector_selector", "param"):
            if (child := getattr(node, name, None)) is not None:
                found.append(child)
        found += getattr(node, "args", None) or ()


def unknown(text: str) -> set[str]:
    """Metrics and labels of an expression that do not exist."""
    wrong: set[str] = set()
    known: set[str] = set()
    for name, labels in selectors(text):
        if name not in LABELS:
            wrong.add(name)
            continue
        known |= LABELS[name]
        wrong |= labels - LABELS[name]
    for grouped in re.findall(r"by \(([^)]*)\)", text):
        wrong |= {label.strip() for label in grouped.split(",")} - known
    return wrong


@pytest.mark.parametrize("text", expressions())
def test_every_expression_is_promql_about_metrics_that_exist(text: str) -> None:
    assert list(selectors(text))
    assert not unknown(text)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("max(agentapi_nothing)", {"agentapi_nothing"}),
        ("sum by (user) (rate(agentapi_attempts_total[5m]))", {"user"}),
        ('sum(agentapi_attempts_total{why="first"}) / 2', {"why"}),
        ("agentapi_turn_duration_seconds", {"agentapi_turn_duration_seconds"}),
        ("topk(5, 1 + agentapi_typo)", {"agentapi_typo"}),
    ],
)
def test_what_does_not_exist_is_found(text: str, wrong: set[str]) -> None:
    assert unknown(text) == wrong


def test_what_is_not_promql_is_found() -> None:
    with pytest.raises(ValueError, match=r".+"):
        list(selectors("sum(rate("))


def test_the_dashboard_is_what_its_tool_writes() -> None:
    assert dashboard.TARGET.read_bytes() == dashboard.text(), "run python -m tools.dashboard"


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for text in expressions() for name, _ in selectors(text)}
    left_out = {"agentapi_build_info", "agentapi_attempt_duration_seconds"}
    left_out |= {"agentapi_tool_duration_seconds"}
    for metric in CATALOG:
        ends = KINDS[metric.kind]
        assert metric.name in left_out or any(f"{metric.name}{end}" in shown for end in ends), (
            metric.name
        )


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard.dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken
        taken |= cells


def test_fleet_gauges_are_never_added_up() -> None:
    """All gateways export the same: a sum would count each turn once for every gateway."""
    fleet = ("turns_ready", "turns_running", "turns_parked", "oldest_ready", "sweep_age")
    for text in expressions():
        for name in fleet:
            assert not re.search(rf"sum(?: by \([^)]*\))? ?\(agentapi_{name}", text), text


def test_every_alert_says_what_to_do_here_and_in_the_guide() -> None:
    guide = GUIDE.read_text()
    for rule in rules():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"].endswith(".")
        assert f"`{rule['alert']}`" in guide


def sections(page: str) -> dict[str, str]:
    """The text below each heading of a page, by the heading's anchor."""
    _, *parts = re.split(r"^#+ (.+)$", (ROOT / page).read_text(), flags=re.M)
    names = [re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in parts[::2]]
    return dict(zip(names, parts[1::2], strict=True))


def test_every_alert_has_a_section_that_its_runbook_names() -> None:
    found = sections(RUNBOOK)
    for rule in rules():
        page, _, anchor = rule["annotations"]["runbook"].partition("#")
        assert (page, anchor) == (RUNBOOK, rule["alert"].lower())
        text = " ".join(found[anchor].split())
        # What the alert says to do is said there too.
        assert rule["annotations"]["action"] in text.replace("`AGENTAPI", "AGENTAPI"), anchor
        assert re.findall(r"\*\*(\w+)\.\*\*", text) == ["Means", "Look", "Do"], anchor
    # And no section is left of an alert that is gone.
    known = {rule["alert"].lower() for rule in rules()}
    assert {name for name in found if name.startswith("agentapi")} == known


def test_the_runbook_names_panels_and_rows_that_exist() -> None:
    panels = {panel["title"] for panel in dashboard.dashboard()["panels"]}
    text = " ".join((ROOT / RUNBOOK).read_text().split())
    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", text))
    assert named
    assert named <= panels
    rows = re.findall(r"^\| ([A-Z][^|]+\?) \|", (ROOT / RUNBOOK).read_text(), re.M)
    assert set(rows) == {
        panel["title"] for panel in dashboard.dashboard()["panels"] if panel["type"] == "row"
    }


def test_the_guide_lists_every_metric() -> None:
    guide = GUIDE.read_text()
    for metric in CATALOG:
        [row] = [line for line in guide.splitlines() if line.startswith(f"| `{metric.name}`")]
        for label in metric.labels:
            assert f"`{label}`" in row, row
