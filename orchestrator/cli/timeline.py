"""`timeline`: draw what happened to a turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from orchestrator.cli.console import console, note, print_json, printable
from orchestrator.cli.options import LOOK, Json, TurnId

if TYPE_CHECKING:
    from rich.text import Text

    from orchestrator.timeline import Timeline
    from orchestrator.timeline_rows import Row

_NARROWEST: Final = 16
_WIDEST: Final = 60
"""Width of a bar, in characters."""

_STYLES: Final = {
    "waiting": "dim",
    "working": "cyan",
    "good": "green",
    "bad": "red",
    "note": "yellow",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=LOOK)(timeline)


def timeline(turn_id: TurnId, as_json: Json = False) -> None:
    """Show what happened to a turn, and when.

    Shows waiting, attempts, model calls, tools, child turns, decisions and refused writes.
    """
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        found = orchestrator.timeline(turn_id)
    if as_json:
        print_json(timeline_json(found))
        return
    from orchestrator.timeline_rows import rows_of

    _print(found, rows_of(found))


def timeline_json(timeline: Timeline) -> dict[str, Any]:
    """A timeline as JSON-like values. Times, whose names end in ``at``, are ISO 8601."""
    from pydantic_core import to_jsonable_python

    shown: dict[str, Any] = _dated(to_jsonable_python(timeline))
    return shown


def _dated(value: Any, name: str = "") -> Any:
    from orchestrator.cli.views import iso

    if isinstance(value, dict):
        # Text of people and models stays unchanged.
        kept = ("message", "arguments", "edited")
        return {key: each if key in kept else _dated(each, key) for key, each in value.items()}
    if isinstance(value, list):
        return [_dated(each) for each in value]
    if isinstance(value, int | float) and (name in ("at", "now") or name.endswith("_at")):
        return iso(value)
    return value


def _print(timeline: Timeline, rows: list[Row]) -> None:
    from rich.table import Column, Table

    whole = timeline.until - timeline.created_at
    console.print(
        printable(
            f"{timeline.turn_id}  {timeline.agent}  {timeline.status.value}  {_seconds(whole)}"
        ),
        style="bold",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    if not timeline.complete:
        note("the oldest entries are no longer stored")
    width = max(_NARROWEST, min(_WIDEST, console.width // 4))
    table = Table(
        Column("what", no_wrap=True),
        Column("which", overflow="fold"),
        Column("from", justify="right", no_wrap=True),
        Column("took", justify="right", no_wrap=True),
        Column("when", no_wrap=True, width=width),
        Column("how it went", overflow="fold"),
        box=None,
        pad_edge=False,
    )
    for row in rows:
        ended = timeline.now if row.ended_at is None else row.ended_at
        began = max(0.0, row.started_at - timeline.created_at)
        moment = row.started_at == row.ended_at
        table.add_row(
            _text(f"{'  ' * row.depth}{row.kind}"),
            _text(row.label),
            _text(f"+{_seconds(began)}"),
            _text("" if moment else _seconds(ended - row.started_at)),
            _bar(row, timeline, width),
            _text(row.detail),
        )
    console.print(table)


def _bar(row: Row, timeline: Timeline, width: int) -> Text:
    from rich.text import Text

    whole = max(timeline.until - timeline.created_at, 0.001)
    ended = timeline.until if row.ended_at is None else row.ended_at
    first = min(width - 1, max(0, int((row.started_at - timeline.created_at) / whole * width)))
    last = min(width, max(first + 1, round((ended - timeline.created_at) / whole * width)))
    mark = "░" if row.tone == "waiting" else "█"
    return Text(" " * first + mark * (last - first), style=_STYLES[row.tone])


def _text(value: str) -> Text:
    from rich.text import Text

    return Text(printable(value).replace("\n", " "))


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
