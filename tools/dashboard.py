"""Writes Grafana's dashboard: ``python -m tools.dashboard``.

It uses the classic model, which Grafana can import and provision from files. Its rows answer
questions in the order in which operators ask them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Final, Literal

import orjson

TARGET: Final = Path(__file__).parents[1] / "deploy" / "grafana" / "agentapi.json"

SCHEMA_VERSION: Final = 39
_WIDTH: Final = 24
_HEIGHT: Final = 7
_SOURCE: Final = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}
_RATE: Final = "[$__rate_interval]"


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One panel.

    Attributes:
        title: The title.
        text: How to read it.
        queries: Expressions, each with the legend of its series.
        unit: Grafana's name of the unit.
        kind: Grafana's name of the panel type.
    """

    title: str
    text: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: Literal["timeseries", "stat"] = "timeseries"


def _quantile(name: str, quantile: float, *labels: str) -> str:
    by = ", ".join((*labels, "le"))
    rate = f"rate(agentapi_{name}_seconds_bucket{_RATE})"
    return f"histogram_quantile({quantile}, sum by ({by}) ({rate}))"


def _rate(name: str, *labels: str, where: str = "") -> str:
    by = f" by ({', '.join(labels)})" if labels else ""
    return f"sum{by} (rate(agentapi_{name}{where}{_RATE}))"


ROWS: Final[tuple[tuple[str, tuple[Panel, ...]], ...]] = (
    (
        "Are turns waiting?",
        (
            Panel(
                title="Oldest ready turn",
                text="How long the oldest ready turn has waited. Seconds are normal only while all "
                "workers are busy.",
                queries=(("max(agentapi_oldest_ready_turn_age_seconds)", "oldest"),),
                unit="s",
                kind="stat",
            ),
            Panel(
                title="Turns of the fleet",
                text="The first turns of all conversations.",
                queries=(
                    ("sum(max by (queue) (agentapi_turns_ready))", "ready"),
                    ("max(agentapi_turns_running)", "running"),
                    ("max by (reason) (agentapi_turns_parked)", "wait for {{reason}}"),
                ),
            ),
            Panel(
                title="Wait for a worker",
                text="From when a turn can run to its claim. Long waits mean too few workers.",
                queries=(
                    (_quantile("turn_dispatch_wait", 0.5), "median"),
                    (_quantile("turn_dispatch_wait", 0.95), "95 %"),
                ),
                unit="s",
            ),
        ),
    ),
    (
        "Why?",
        (
            Panel(
                title="Slots in use",
                text="Near 100 %: add workers or slots. Low while turns wait: check the broker, "
                "and whether workers serve all queues.",
                queries=(
                    ("sum(agentapi_turns_in_flight) / sum(agentapi_turn_slots)", "all"),
                    ("agentapi_turns_in_flight / agentapi_turn_slots", "{{instance}}"),
                ),
                unit="percentunit",
            ),
            Panel(
                title="Turns per second",
                text="Accepted, claimed and ended. Turns from producers without metrics are "
                "missing in the number of accepted turns.",
                queries=(
                    (_rate("turns_accepted_total"), "accepted"),
                    (_rate("attempts_total", "cause"), "claimed: {{cause}}"),
                    (_rate("turns_ended_total"), "ended"),
                ),
                unit="cps",
            ),
            Panel(
                title="Wait for the same conversation",
                text="Turns of a conversation run one after the other; more workers do not help.",
                queries=((_quantile("turn_inbox_wait", 0.95, "agent"), "{{agent}}, 95 %"),),
                unit="s",
            ),
            Panel(
                title="Duration of turns",
                text="From acceptance to end.",
                queries=((_quantile("turn_duration", 0.95, "agent"), "{{agent}}, 95 %"),),
                unit="s",
            ),
        ),
    ),
    (
        "What fails?",
        (
            Panel(
                title="Turns that fail",
                text="By the code of the error; docs/reliability.md explains the codes.",
                queries=(
                    (
                        _rate("turns_ended_total", "agent", "reason", where='{status="failed"}'),
                        "{{agent}}: {{reason}}",
                    ),
                ),
                unit="cps",
            ),
            Panel(
                title="Tools that fail",
                text="The model reads the error, and the turn continues.",
                queries=(
                    (_rate("tool_calls_total", "tool", where='{outcome="failed"}'), "{{tool}}"),
                ),
                unit="cps",
            ),
            Panel(
                title="Lost workers and refused writes",
                text="Turns taken over from workers that ended or hung. Refused writes do no harm.",
                queries=(
                    (
                        _rate("attempts_total", where='{cause="lease_expired"}'),
                        "turns taken over",
                    ),
                    (_rate("writes_refused_total", "script"), "refused: {{script}}"),
                ),
                unit="cps",
            ),
            Panel(
                title="Requests that fail",
                text="Answers of the gateway that are errors, and refusals by reason.",
                queries=(
                    (
                        _rate("gateway_requests_total", "code", where='{code=~"4xx|5xx|none"}'),
                        "{{code}}",
                    ),
                    (_rate("gateway_refusals_total", "reason"), "refused: {{reason}}"),
                ),
                unit="reqps",
            ),
        ),
    ),
    (
        "What does it cost?",
        (
            Panel(
                title="Cost in the last hour",
                text="By AGENTAPI_PRICES; models without a price cost nothing.",
                queries=(
                    ("sum(increase(agentapi_cost_total[1h]))", "all"),
                    (
                        "sum by (provider, model) (increase(agentapi_cost_total[1h]))",
                        "{{provider}} {{model}}",
                    ),
                ),
            ),
            Panel(
                title="Tokens per second",
                text="As counted by providers; input includes cached tokens.",
                queries=(
                    (
                        _rate("tokens_total", "provider", "model", "kind"),
                        "{{provider}} {{model}}: {{kind}}",
                    ),
                ),
                unit="cps",
            ),
        ),
    ),
    (
        "Is a provider slow?",
        (
            Panel(
                title="Duration of model calls",
                text="Of successful calls.",
                queries=(
                    (
                        _quantile("model_call_duration", 0.95, "provider", "model"),
                        "{{provider}} {{model}}, 95 %",
                    ),
                ),
                unit="s",
            ),
            Panel(
                title="Time to the first text",
                text="Of calls that stream.",
                queries=(
                    (
                        _quantile("model_first_chunk", 0.95, "provider", "model"),
                        "{{provider}} {{model}}, 95 %",
                    ),
                ),
                unit="s",
            ),
            Panel(
                title="Model calls by result",
                text="Everything except ok is a failure; a retry may have succeeded.",
                queries=(
                    (
                        _rate("model_calls_total", "provider", "model", "outcome"),
                        "{{provider}} {{model}}: {{outcome}}",
                    ),
                ),
                unit="cps",
            ),
            Panel(
                title="Paused providers",
                text="1 while the breaker is open or the provider asks to wait; also calls that "
                "had to wait.",
                queries=(
                    ("max by (provider) (agentapi_provider_breaker_open)", "{{provider}} paused"),
                    ("max by (provider) (agentapi_provider_held)", "{{provider}} asks to wait"),
                    (
                        _rate("provider_waits_total", "provider", "reason"),
                        "{{provider}}: {{reason}}",
                    ),
                ),
            ),
        ),
    ),
    (
        "Are the processes healthy?",
        (
            Panel(
                title="Event loops",
                text="How late they are; an async tool or hook may block them.",
                queries=((_quantile("event_loop_lag", 0.99, "instance"), "{{instance}}, 99 %"),),
                unit="s",
            ),
            Panel(
                title="Redis",
                text="Round trips of the slowest scripts.",
                queries=(
                    (
                        f"topk(5, {_quantile('redis_script_duration', 0.95, 'script')})",
                        "{{script}}, 95 %",
                    ),
                ),
                unit="s",
            ),
            Panel(
                title="Archive",
                text="Conversations and turns moved to the archive, and restored from it.",
                queries=(
                    (
                        _rate("archive_moves_total", "direction", "outcome"),
                        "{{direction}}: {{outcome}}",
                    ),
                    (
                        _rate("archived_turns_total", "direction", "outcome"),
                        "turns {{direction}}: {{outcome}}",
                    ),
                ),
            ),
            Panel(
                title="Gateway",
                text="Requests per second, open streams, and resumed streams.",
                queries=(
                    (_rate("gateway_requests_total", "route"), "{{route}}"),
                    ("sum(agentapi_gateway_streams)", "open streams"),
                    (_rate("stream_resumes_total"), "resumed"),
                ),
            ),
            Panel(
                title="Slow requests",
                text="For streams, the time to their end.",
                queries=(
                    (_quantile("gateway_request_duration", 0.95, "route"), "{{route}}, 95 %"),
                ),
                unit="s",
            ),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's classic model."""
    numbers, panels, top = count(1), [], 0
    for title, row in ROWS:
        place = {"h": 1, "w": _WIDTH, "x": 0, "y": top}
        panels.append(
            {
                "type": "row",
                "id": next(numbers),
                "title": title,
                "collapsed": False,
                "gridPos": place,
                "panels": [],
            }
        )
        top += 1
        width = _WIDTH // len(row)
        for column, panel in enumerate(row):
            place = {"h": _HEIGHT, "w": width, "x": column * width, "y": top}
            panels.append(_panel(panel, next(numbers), place))
        top += _HEIGHT
    return {
        "__inputs": [
            {
                "name": "DS_PROMETHEUS",
                "label": "Prometheus",
                "description": "",
                "type": "datasource",
                "pluginId": "prometheus",
                "pluginName": "Prometheus",
            }
        ],
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "10.0.0"},
            {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
        ],
        "uid": "agentapi",
        "title": "agentapi",
        "tags": ["agentapi"],
        "editable": True,
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": []},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "expr": expression,
            "legendFormat": legend,
            "datasource": _SOURCE,
        }
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "type": panel.kind,
        "id": number,
        "title": panel.title,
        "description": panel.text,
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {},
    }


def text() -> bytes:
    """The content of the file."""
    return orjson.dumps(dashboard(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    TARGET.write_bytes(text())
