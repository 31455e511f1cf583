"""Draws the fleet for a terminal of any size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from orchestrator.cli.console import printable
from orchestrator.cli.times import clock, span

if TYPE_CHECKING:
    from agentapi.metrics.activity import RunningNow
    from agentapi.stores import TurnSummary
    from orchestrator.fleet import FleetProvider, FleetSnapshot, FleetWorker

_GAP: Final = "  "
_BAR: Final = 10
_FEW: Final = 3
"""Number of rows that each list gets before longer lists get more."""

_STYLES: Final = {
    "full": "yellow",
    "stopping": "yellow",
    "stalled": "red",
    "no redis": "red",
    "silent": "red",
}


class Order(StrEnum):
    """How running turns are sorted."""

    TIME = "time"
    WORKER = "worker"
    AGENT = "agent"

    @property
    def next(self) -> Order:
        """The order after this one."""
        orders = list(Order)
        return orders[(orders.index(self) + 1) % len(orders)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _List:
    """Rows with the same columns, the most important columns first in `keep`."""

    columns: Sequence[str]
    keep: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[str] = frozenset()
    styles: Sequence[str] = field(default=())


def frame(
    snapshot: FleetSnapshot,
    *,
    width: int,
    height: int | None = None,
    order: Order = Order.TIME,
    faults: bool = True,
    foot: str | None = None,
) -> RenderableType:
    """Draw a snapshot.

    Args:
        snapshot: The fleet.
        width: Width of the terminal, in characters. On a narrow one, less important columns are
            left out.
        height: Lines of the terminal; lists are cut to fit. None shows everything.
        order: How running turns are sorted.
        faults: Whether to say what could not be reached.
        foot: The last line.
    """
    head = list(_head(snapshot, width, faults=faults))
    lists = [each for each in _lists(snapshot, order) if each.rows]
    if height is None:
        shares = [len(each.rows) for each in lists]
    else:
        # Each list has a line of titles, and an empty line before it.
        room = height - len(head) - 2 * len(lists) - (foot is not None)
        shares = _shares([len(each.rows) for each in lists], room)
    parts: list[RenderableType] = [*head]
    for each, share in zip(lists, shares, strict=True):
        if share > 0:
            parts += [Text(), _table(each, share, width)]
    if foot is not None:
        parts.append(_line([(foot, "dim")], width))
    return Group(*parts)


def _shares(lengths: Sequence[int], room: int) -> list[int]:
    """How many rows of each list are shown. A list that is cut needs one row to say so."""
    shares = [0] * len(lengths)
    for most in (_FEW, max(lengths, default=0)):
        given = True
        while given and sum(shares) < room:
            given = False
            for place, length in enumerate(lengths):
                if shares[place] < min(length, most) and sum(shares) < room:
                    shares[place] += 1
                    given = True
    return shares


def _head(snapshot: FleetSnapshot, width: int, *, faults: bool) -> Iterator[Text]:
    if faults:
        for fault in (snapshot.redis_fault, *snapshot.gaps, snapshot.broker_fault):
            if fault is not None:
                yield _line([(printable(fault), "bold red")], width)
    cells = [*_fleet_cells(snapshot), *_turn_cells(snapshot)]
    if snapshot.asked:
        cells += _pace_cells(snapshot)
    line: list[tuple[str, str]] = []
    for cell in cells:
        used = sum(cell_len(text) + len(_GAP) for text, _ in line)
        if line and used + cell_len(cell[0]) > width:
            yield _line(line, width)
            line = []
        line.append(cell)
    yield _line(line, width)


def _line(cells: Sequence[tuple[str, str]], width: int) -> Text:
    text = Text(_GAP).join(Text(words, style) for words, style in cells)
    text.truncate(width, overflow="ellipsis")
    text.no_wrap = True
    return text


def _fleet_cells(snapshot: FleetSnapshot) -> Iterator[tuple[str, str]]:
    yield clock(snapshot.taken_at) or "", "dim"
    if not snapshot.asked:
        yield "asking the workers …", "dim"
        return
    count = snapshot.answering
    yield f"workers {count}", "bold" if count else "bold red"
    used, slots = snapshot.used, snapshot.slots
    full = round(_BAR * min(used, slots) / slots) if slots else 0
    yield f"slots {used}/{slots} {'█' * full}{'░' * (_BAR - full)}", "bold"


def _turn_cells(snapshot: FleetSnapshot) -> Iterator[tuple[str, str]]:
    turns = snapshot.turns
    if turns is None:
        return
    yield f"ready {turns.ready:,}", "bold yellow" if turns.ready else ""
    yield f"running {turns.running:,}", ""
    reasons = ", ".join(
        f"{count:,} {reason.replace('_', ' ')}"
        for reason, count in sorted(turns.parked.items(), key=lambda item: -item[1])
    )
    total = sum(turns.parked.values())
    yield f"parked {total:,}" + (f": {printable(reasons)}" if reasons else ""), ""
    if turns.oldest is not None:
        waits = f"oldest ready {span(turns.oldest_seconds)}"
        yield f"{waits} {turns.oldest.turn_id} {printable(turns.oldest.agent)}", "yellow"
    if turns.since_sweep is not None:
        late = turns.since_sweep > _LATE_SWEEP
        yield f"swept {span(turns.since_sweep)} ago", "bold red" if late else ""


_LATE_SWEEP: Final = 30.0
"""Seconds, as in the alert."""


def _pace_cells(snapshot: FleetSnapshot) -> Iterator[tuple[str, str]]:
    minute = snapshot.minute
    yield f"ended {snapshot.rate:.1f}/s", ""
    if minute.failed:
        yield f"failed {minute.failed:,}/min", "red"
    yield f"model calls {_short(minute.model_calls)}/min", ""
    yield f"tokens {_short(minute.tokens)}/min", ""
    if minute.cost:
        yield f"cost {minute.cost:.4g}/min", ""


def _short(number: int) -> str:
    """A number in at most five characters."""
    for size, letter in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if number >= size:
            short = number / size
            return f"{short:.3g}{letter}" if short < 999 else f"{short:.0f}{letter}"
    return str(number)


def _lists(snapshot: FleetSnapshot, order: Order) -> Iterator[_List]:
    yield _workers(snapshot.workers)
    yield _running(snapshot.workers, order)
    yield _providers(snapshot.providers)
    yield _failures(snapshot.failures or ())


def _workers(workers: Sequence[FleetWorker]) -> _List:
    rows, styles = [], []
    # Workers with a problem come first, because a long list is cut at its end.
    for worker in sorted(workers, key=lambda worker: _STYLES.get(worker.state) != "red"):
        now, state = worker.activity, worker.state.value
        styles.append(_STYLES.get(state, ""))
        if worker.silent:
            state = f"silent {span(worker.silent)}"
        elif now is not None and now.faults:
            state = f"{state}, {', '.join(now.faults)} fails"
        row = [worker.name, state]
        # The last answer of a silent worker does not show its current activity.
        if now is None or worker.silent:
            row += [""] * 6
        else:
            minute = now.minute
            row += [
                f"{now.used}/{now.slots}",
                _doing(now.turns),
                str(minute.ended),
                _short(minute.tokens),
                span(now.uptime),
                now.version,
            ]
        rows.append(row)
    return _List(
        columns=("WORKER", "STATE", "SLOTS", "DOES", "ENDED/MIN", "TOKENS/MIN", "UP", "RELEASE"),
        keep=("WORKER", "STATE", "SLOTS", "DOES", "ENDED/MIN", "TOKENS/MIN", "UP", "RELEASE"),
        rows=rows,
        numbers=frozenset({"SLOTS", "ENDED/MIN", "TOKENS/MIN", "UP"}),
        styles=styles,
    )


def _doing(turns: Sequence[RunningNow]) -> str:
    """The activities of a worker's turns, most frequent first."""
    counts = Counter(_what(turn) for turn in turns)
    return ", ".join(f"{count} {what}" for what, count in counts.most_common(3))


def _what(turn: RunningNow) -> str:
    return ", ".join(turn.tools) if turn.tools else turn.doing


def _running(workers: Sequence[FleetWorker], order: Order) -> _List:
    found = [
        (worker.name, turn)
        for worker in workers
        if worker.activity is not None and not worker.silent
        for turn in worker.activity.turns
    ]
    keys: dict[Order, Callable[[tuple[str, RunningNow]], tuple[str, float]]] = {
        Order.TIME: lambda each: ("", -each[1].seconds),
        Order.WORKER: lambda each: (each[0], -each[1].seconds),
        Order.AGENT: lambda each: (each[1].agent, -each[1].seconds),
    }
    found.sort(key=keys[order])
    return _List(
        columns=("RUNNING TURN", "FOR", "AGENT", "DOES", "STEPS", "TRY", "WORKER", "CONVERSATION"),
        keep=("RUNNING TURN", "FOR", "AGENT", "DOES", "WORKER", "STEPS", "TRY", "CONVERSATION"),
        rows=[
            (
                turn.turn_id,
                span(turn.seconds),
                turn.agent,
                _what(turn),
                str(turn.steps),
                str(turn.attempt),
                worker,
                turn.conversation_id,
            )
            for worker, turn in found
        ],
        numbers=frozenset({"FOR", "STEPS", "TRY"}),
    )


def _providers(providers: Sequence[FleetProvider]) -> _List:
    rows, styles = [], []
    for each in providers:
        limit = each.limit
        used = [
            f"{_short(count)}/{_short(most)} {what}"
            for count, most, what in (
                (each.requests, limit.requests, "requests"),
                (each.tokens, limit.tokens, "tokens"),
            )
            if most
        ]
        state = "ok"
        if each.held:
            state = f"on hold for {span(each.held)}"
        if each.open is not None:
            state = f"paused, next attempt in {span(each.open)}"
        # Leave out healthy providers without a limit.
        if used or state != "ok":
            rows.append((each.name, state, ", ".join(used)))
            styles.append("" if state == "ok" else "red")
    return _List(
        columns=("PROVIDER", "STATE", "BUDGET USED THIS MINUTE"),
        keep=("PROVIDER", "STATE", "BUDGET USED THIS MINUTE"),
        rows=rows,
        styles=styles,
    )


def _failures(failures: Sequence[TurnSummary]) -> _List:
    return _List(
        columns=("FAILED TURN", "AT", "ERROR", "AGENT", "CONVERSATION"),
        keep=("FAILED TURN", "ERROR", "AT", "AGENT", "CONVERSATION"),
        rows=[
            (
                turn.turn_id,
                clock(turn.ended_at) or "",
                turn.error.code if turn.error else "",
                turn.agent,
                turn.conversation_id,
            )
            for turn in failures
        ],
    )


def _table(each: _List, share: int, width: int) -> Table:
    rows = [[printable(text).replace("\n", " ") for text in row] for row in each.rows[:share]]
    left = len(each.rows) - share
    if left:
        # The row that says so replaces the last one.
        rows[-1] = [f"… {left + 1} more", *[""] * (len(each.columns) - 1)]
    kept = _fitting(each, rows, width)
    table = Table(
        *(
            Column(
                name,
                no_wrap=True,
                overflow="ellipsis",
                justify="right" if name in each.numbers else "left",
            )
            for name in kept
        ),
        box=None,
        padding=(0, len(_GAP), 0, 0),
        header_style="reverse",
        pad_edge=False,
    )
    places = [each.columns.index(name) for name in kept]
    for number, row in enumerate(rows):
        style = each.styles[number] if each.styles and not (left and row is rows[-1]) else None
        table.add_row(*(Text(row[place]) for place in places), style=style)
    return table


def _fitting(each: _List, rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The columns that fit, in order. If only an id would fit, all others are shown instead."""
    longest = {
        name: max([cell_len(name), *(cell_len(row[place]) for row in rows)])
        for place, name in enumerate(each.columns)
        # Leave out columns without values.
        if any(row[place] for row in rows)
    }
    wanted = [name for name in each.keep if name in longest]
    if len(wanted) > 1 and longest[wanted[0]] + len(_GAP) + longest[wanted[1]] > width:
        wanted = wanted[1:]
    kept: set[str] = set()
    used = 0
    for name in wanted:
        used += longest[name] + (len(_GAP) if kept else 0)
        if kept and used > width:
            break
        kept.add(name)
    return [name for name in each.columns if name in kept]
