"""The demo's report."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from agentapi import Turn


@dataclass(frozen=True, kw_only=True)
class Totals:
    """Figures of a run. Times are in seconds."""

    turns: int
    elapsed: float
    median: float
    p99: float

    @property
    def rate(self) -> float:
        """Turns per second."""
        return self.turns / self.elapsed


def totals(turns: Sequence[Turn], elapsed: float) -> Totals:
    """The figures of ended turns. A turn's time is from its acceptance to its end."""
    times = sorted((turn.ended_at or turn.created_at) - turn.created_at for turn in turns)
    return Totals(
        turns=len(turns),
        elapsed=elapsed,
        median=statistics.median(times),
        p99=times[min(len(times) - 1, round(0.99 * (len(times) - 1)))],
    )


def print_report(
    console: Console,
    turns: Mapping[str, Sequence[Turn]],
    messages: Mapping[str, int],
    figures: Totals,
) -> None:
    """Print a row for each conversation, then the totals."""
    table = Table("conversation", "agent", "turns", "served by", "messages in history")
    for conversation_id, ended in turns.items():
        served = Counter(turn.worker or "?" for turn in ended)
        table.add_row(
            conversation_id,
            ended[0].agent,
            str(len(ended)),
            ", ".join(f"{worker.split('@')[0]} x{n}" for worker, n in sorted(served.items())),
            str(messages[conversation_id]),
        )
    console.print(table)
    summary = Table(title="Totals", show_header=False)
    summary.add_row("turns", str(figures.turns))
    summary.add_row("turns per second", f"{figures.rate:.1f}")
    summary.add_row("duration of a turn, median", f"{figures.median * 1000:.0f} ms")
    summary.add_row("duration of a turn, 99th percentile", f"{figures.p99 * 1000:.0f} ms")
    console.print(summary)
