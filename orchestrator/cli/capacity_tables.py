"""The tables that `capacity` prints: the planned fleet and the outcome of its simulation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, TypeAlias

from orchestrator.cli.console import console, note, print_json

if TYPE_CHECKING:
    from orchestrator.capacity import Load, Outcome, Plan

Row: TypeAlias = tuple[str, str, str]
"""A part, its amount, and the reason."""


def print_plan(planned: Plan, load: Load, *, as_json: bool) -> None:
    """Print a plan for a load."""
    if as_json:
        print_json(asdict(planned))
        return
    from rich.table import Table

    fleet = planned.fleet
    table = Table("part", "how many", "why")
    for row in (*_worker_rows(planned), *_store_rows(planned, load), *_archive_rows(planned, load)):
        table.add_row(*row)
    table.add_row("gateways", f"{fleet.gateways:,}", f"{planned.gateway_cores:.1f} cores busy")
    table.add_row("broker", f"{planned.wakeups_per_second:,.0f} messages/s", "one for each turn")
    table.add_row("a month", f"${planned.month:,.0f}", "cores and memory, without the models")
    console.print(table)
    if planned.worker_bound == "slots" and planned.worker_cores < 0.1 * fleet.workers:
        note(
            "The workers mostly wait: a larger AGENTAPI_CONCURRENCY (--slots) needs fewer of them."
        )


def _worker_rows(planned: Plan) -> Iterator[Row]:
    fleet = planned.fleet
    yield (
        "worker processes",
        f"{fleet.workers:,}",
        f"{planned.in_flight:,.0f} turns in flight, {fleet.slots} in a process; "
        f"{planned.worker_cores:.1f} cores busy; limited by the {planned.worker_bound}",
    )
    yield "memory of workers", f"{planned.worker_gib:,.1f} GiB", ""


def _store_rows(planned: Plan, load: Load) -> Iterator[Row]:
    yield (
        "Redis primaries",
        f"{planned.fleet.shards:,}",
        f"{planned.store_cores:.2f} cores busy, {planned.store_gib:,.1f} GiB of data; "
        f"limited by {'memory' if planned.shard_bound == 'memory' else 'the cores'}",
    )
    archived = _archived(load)
    kept = f"of {load.conversations - archived:,} conversations"
    if archived:
        kept += f"; a marker of each of the {archived:,} in the archive"
    yield "  messages", f"{planned.messages_gib:,.1f} GiB", kept
    until = "until their retention ends"
    turns = until
    if moved := planned.archive_turns:
        turns = f"until they move; a list entry of each of the {moved:,} in the archive"
    yield "  ended turns", f"{planned.turns_gib:,.1f} GiB", turns
    yield "  events", f"{planned.events_gib:,.1f} GiB", until


def _archive_rows(planned: Plan, load: Load) -> Iterator[Row]:
    archived, moved = _archived(load), planned.archive_turns
    if not archived and not moved:
        return
    whose = f"{archived:,} conversations, {moved:,} ended turns"
    yield "archive", f"{planned.archive_gib:,.1f} GiB", whose
    turns = "records and messages, until their retention ends"
    yield "  ended turns", f"{planned.archive_turns_gib:,.1f} GiB", turns
    disks = "of the database and its standby, without their servers"
    yield "  disks, a month", f"${planned.archive_month:,.0f}", disks


def _archived(load: Load) -> int:
    return round(load.conversations * load.archived)


def print_outcomes(outcomes: Sequence[tuple[str, Outcome]], *, as_json: bool) -> None:
    """Print the outcomes of simulations, each with the name of its case."""
    if as_json:
        for name, outcome in outcomes:
            print_json({"case": name, **asdict(outcome), "ended_at": None})
        return
    from rich.table import Table

    table = Table("simulated", *(name for name, _ in outcomes))
    rows: list[tuple[str, list[str]]] = [
        ("turns", [f"{o.ended:,}" for _, o in outcomes]),
        ("most in flight", [f"{o.most_in_flight:,}" for _, o in outcomes]),
        ("most waiting", [f"{o.most_waiting:,}" for _, o in outcomes]),
        ("delay, median", [_time(o.delay.median) for _, o in outcomes]),
        ("delay, 99 %", [_time(o.delay.p99) for _, o in outcomes]),
        ("delay, longest", [_time(o.delay.longest) for _, o in outcomes]),
        ("busiest shard", [f"{o.hottest_shard:.0%}" for _, o in outcomes]),
        ("busiest worker", [f"{o.hottest_worker:.0%}" for _, o in outcomes]),
        ("sweep behind", [_time(o.sweep_behind) for _, o in outcomes]),
        ("turns of dead workers", [f"{o.taken_over:,}" for _, o in outcomes]),
        ("  until the last ran again", [_time(_longest(o)) for _, o in outcomes]),
        ("provider back to last wake-up", [_time(o.backlog) for _, o in outcomes]),
    ]
    for name, values in rows:
        table.add_row(name, *values)
    console.print(table)


def _longest(outcome: Outcome) -> float | None:
    return outcome.recovery.longest if outcome.recovery else None


def _time(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:,.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"
