"""The project's performance targets, and whether a run met them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Table

from benchmarks import metered, traced
from benchmarks.contest import AGENTEXEC, BARE, BY_HAND, DBOS_POSTGRES, DBOS_SQLITE, RUNTIME
from benchmarks.results import Metric, Results, short
from benchmarks.stats import Summary, ratios, summarize


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A bound on the median of a metric.

    Attributes:
        what: Description for the table.
        case: Case of the metric.
        name: Name of the metric.
        who: The system whose values count.
        base: The system whose values of the same rounds the values are divided by; none when not
            given.
        at_least: The lowest acceptable value.
        at_most: The highest acceptable value.
        unit: Unit of the bound.
    """

    what: str
    case: str
    name: str
    who: str = RUNTIME
    base: str | None = None
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"

    def judge(self, results: Results) -> Summary | None:
        """Summarise a run's values for the target; None if it was not measured."""
        for metric, found in results.values.items():
            if (metric.case, metric.name) == (self.case, self.name):
                return self._of(metric, found)
        return None

    def _of(self, metric: Metric, found: dict[str, list[float]]) -> Summary | None:
        values = found.get(self.who, [])
        if self.base is None:
            return summarize(values) if values else None
        base = found.get(self.base, [])
        return summarize(ratios(values, base)) if values and len(values) == len(base) else None

    def met(self, median: float) -> bool:
        """Whether the median is acceptable."""
        enough = self.at_least is None or median >= self.at_least
        return enough and (self.at_most is None or median <= self.at_most)

    @property
    def bound(self) -> str:
        """The bound as text for the table."""
        if self.at_least is not None:
            return f"≥ {self.at_least:g} {self.unit}"
        return f"≤ {self.at_most:g} {self.unit}"


_IN_FLIGHT = "1,000 turns in flight in one worker process, model of 2 s"
_IDLE = "10 idle workers, 100,000 idle conversations"

TARGETS = (
    *(
        Target(
            what=f"end to end, {processes}, of {base}",
            case=f"throughput, {processes}",
            name="turns a second",
            base=base,
            at_least=at_least,
        )
        for base, at_least in ((BY_HAND, 1), (AGENTEXEC, 5), (DBOS_SQLITE, 10), (DBOS_POSTGRES, 10))
        for processes in ("1 worker process", "2 worker processes")
    ),
    Target(
        what=f"idle latency, of {BARE}",
        case="latency of a turn on an idle system",
        name="median",
        base=BARE,
        at_most=1.5,
    ),
    Target(
        what="1,000 in flight, of the ideal",
        case=_IN_FLIGHT,
        name="share of the ideal",
        at_least=90,
        unit="%",
    ),
    Target(
        what="1,000 in flight, memory",
        case=_IN_FLIGHT,
        name="memory of the worker",
        at_most=150,
        unit="MiB",
    ),
    Target(
        what="a windowed turn at 10,000 messages, of one at 10",
        case="latency by length of the history, window of 20 messages",
        name="median",
        who="10,000 messages",
        base="10 messages",
        at_most=1.2,
    ),
    Target(
        what="first token, over the provider alone",
        case="streaming",
        name="time to the first token, median",
        who="added",
        at_most=5,
        unit="ms",
    ),
    Target(
        what="processor time of a turn with metrics, of one without",
        case=metered.CASE,
        name=metered.COST,
        who=metered.WITH,
        base=metered.WITHOUT,
        at_most=1.03,
    ),
    *(
        Target(
            what=f"processor time of a turn, {who}, of one without",
            case=traced.CASE,
            name=traced.COST,
            who=who,
            base=traced.WITHOUT,
            at_most=at_most,
        )
        for who, at_most in ((traced.SAMPLED, 1.03), (traced.ALL, 1.08))
    ),
    Target(
        what="a turn with lists, of one without",
        case="lists",
        name="processor time of a turn, Redis included",
        who="lists",
        base="no lists",
        at_most=1.03,
    ),
    Target(
        what="Redis commands of an idle worker",
        case=_IDLE,
        name="Redis commands a second, a worker",
        at_most=5,
        unit="1/s",
    ),
    Target(
        what="Redis memory of an idle conversation beyond its messages",
        case=_IDLE,
        name="Redis memory beyond its messages, a conversation",
        at_most=1024,
        unit="bytes",
    ),
)


def judged(results: Results) -> Iterable[tuple[Target, Summary]]:
    """The targets that were measured, with the measured values."""
    for target in TARGETS:
        found = target.judge(results)
        if found is not None:
            yield target, found


def targets_table(results: Results) -> Table | None:
    """A table of targets and measured values; None if none of them was measured."""
    table = Table(title="against the targets", title_justify="left", title_style="bold")
    table.add_column("what")
    for name in ("wanted", "median", "low", "high", ""):
        table.add_column(name, justify="right")
    for target, found in judged(results):
        verdict = "[green]met[/green]" if target.met(found.median) else "[red]missed[/red]"
        figures = (short(value) for value in (found.median, found.low, found.high))
        table.add_row(target.what, target.bound, *figures, verdict)
    return table if table.row_count else None
