"""`capacity`: how many workers, Redis shards and gateways a load needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.console import console, errors, note, print_json, real
from orchestrator.cli.options import CHECK, Json

if TYPE_CHECKING:
    from orchestrator.capacity import Load, Outcome, Plan, Simulation


Spare = Annotated[
    float, typer.Option(help="Share of the workers that may be lost at once, 0 to 0.9.")
]
Retention = Annotated[float, typer.Option(help="Seconds for which ended turns are kept.")]
TurnsAfter = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds until an ended turn moves to the archive; 0: never. 3600 with --archived.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=CHECK)(capacity)


def capacity(
    turns_per_second: Annotated[float, typer.Argument(help="Turns a second, busiest hour.")],
    model_seconds: Annotated[float, typer.Option(help="Seconds of one model call.")] = 3.0,
    model_calls: Annotated[float, typer.Option(help="Model calls of a turn; 1 or more.")] = 1.5,
    tool_seconds: Annotated[float, typer.Option(help="Seconds of one tool call.")] = 0.5,
    message_bytes: Annotated[int, typer.Option(help="Bytes of a message.")] = 500,
    conversations: Annotated[int, typer.Option(help="Conversations that are kept.")] = 100_000,
    archived: Annotated[float, typer.Option(help="Share of them in the archive, 0 to 1.")] = 0.0,
    messages_kept: Annotated[int, typer.Option(help="Messages of a conversation.")] = 40,
    average: Annotated[
        float, typer.Option(help="Average rate, as a share of the busiest hour's.")
    ] = 0.4,
    streamed: Annotated[float, typer.Option(help="Share of turns that stream, 0 to 1.")] = 0.0,
    through_gateway: Annotated[
        float, typer.Option(help="Share of turns through the gateway, 0 to 1.")
    ] = 1.0,
    slots: Annotated[int, typer.Option(min=1, help="AGENTAPI_CONCURRENCY of the workers.")] = 64,
    spare: Spare = 0.2,
    shard_gib: Annotated[float, typer.Option(help="Memory of one Redis primary, GiB.")] = 16.0,
    turn_retention: Retention = 604_800.0,
    archive_turns_after: TurnsAfter = None,
    costs: Annotated[
        Path | None, typer.Option(help="Costs that you measured; the release's if not given.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Also simulate the fleet: load, loss, outage.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=1, help="Simulated seconds of load.")] = 60.0,
    outage: Annotated[
        float, typer.Option(min=0, help="Simulated seconds for which the provider is away.")
    ] = 600.0,
    as_json: Json = False,
) -> None:
    """Say how many workers, Redis shards and gateways a load needs.

    docs/capacity.md explains the figures. --simulate runs the planned fleet in a simulation: under
    the load, when a fifth of its workers dies, and when the provider is away.
    """
    from orchestrator.capacity import plan, read_costs
    from orchestrator.capacity.plan import Rules

    load = _load(
        turns_per_second=turns_per_second,
        average=average,
        model_seconds=model_seconds,
        model_calls=model_calls,
        tool_seconds=tool_seconds,
        message_bytes=message_bytes,
        conversations=conversations,
        messages_kept=messages_kept,
        archived=archived,
        streamed=streamed,
        through_gateway=through_gateway,
    )
    if not 0 <= spare <= 0.9:
        raise typer.BadParameter(f"--spare is {spare:g}: expected 0 to 0.9")
    measured = read_costs(costs)
    after = archive_turns_after if archive_turns_after is not None else 3_600 * (archived > 0)
    rules = Rules(
        spare=spare, shard_gib=shard_gib, turn_retention=turn_retention, archive_turns_after=after
    )
    planned = plan(load, measured, rules, slots=slots)
    _print_plan(planned, load, as_json=as_json)
    if simulate:
        _simulate(load, planned, measured, seconds, outage, as_json=as_json)


def _load(**values: Any) -> Load:
    from pydantic import ValidationError

    from orchestrator.capacity import Load

    try:
        return Load(**values)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        option = name if name == "turns_per_second" else f"--{name.replace('_', '-')}"
        raise typer.BadParameter(f"{option} is {values[name]:g}: {fault['msg']}") from error


def _as_json(value: object) -> Any:
    from dataclasses import asdict

    return asdict(value)  # type: ignore[call-overload]


def _print_plan(planned: Plan, load: Load, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(planned))
        return
    from rich.table import Table

    fleet = planned.fleet
    table = Table("part", "how many", "why")
    table.add_row(
        "worker processes",
        f"{fleet.workers:,}",
        f"{planned.in_flight:,.0f} turns in flight, {fleet.slots} in a process; "
        f"{planned.worker_cores:.1f} cores busy; the {planned.worker_bound} decide",
    )
    table.add_row("memory of workers", f"{planned.worker_gib:,.1f} GiB", "")
    table.add_row(
        "Redis primaries",
        f"{fleet.shards:,}",
        f"{planned.store_cores:.2f} cores busy, {planned.store_gib:,.1f} GiB of data; "
        f"{'memory decides' if planned.shard_bound == 'memory' else 'the cores decide'}",
    )
    archived = round(load.conversations * load.archived)
    kept = f"of {load.conversations - archived:,} conversations"
    if archived:
        kept += f"; a marker of each of the {archived:,} in the archive"
    table.add_row("  messages", f"{planned.messages_gib:,.1f} GiB", kept)
    moved = planned.archive_turns
    until = "until their retention ends"
    if moved:
        until = f"until they move; a list entry of each of the {moved:,} in the archive"
    table.add_row("  ended turns", f"{planned.turns_gib:,.1f} GiB", until)
    table.add_row("  events", f"{planned.events_gib:,.1f} GiB", "until their retention ends")
    if archived or moved:
        whose = f"{archived:,} conversations, {moved:,} ended turns"
        table.add_row("archive", f"{planned.archive_gib:,.1f} GiB", whose)
        turns = "records and messages, until their retention ends"
        table.add_row("  ended turns", f"{planned.archive_turns_gib:,.1f} GiB", turns)
        disks = "of the database and its standby, without their servers"
        table.add_row("  disks, a month", f"${planned.archive_month:,.0f}", disks)
    table.add_row("gateways", f"{fleet.gateways:,}", f"{planned.gateway_cores:.1f} cores busy")
    table.add_row("broker", f"{planned.wakeups_per_second:,.0f} messages/s", "one for each turn")
    table.add_row("a month", f"${planned.month:,.0f}", "cores and memory, without the models")
    console.print(table)
    if planned.worker_bound == "slots" and planned.worker_cores < 0.1 * fleet.workers:
        note(
            "The workers mostly wait: a larger AGENTAPI_CONCURRENCY (--slots) needs fewer of them."
        )


def _simulate(
    load: Load, planned: Plan, measured: Any, seconds: float, outage: float, *, as_json: bool
) -> None:
    """Run the planned fleet under load, with a loss, and with an outage."""
    from orchestrator.capacity import Lost, Outage, Simulation

    fleet = planned.fleet
    lost = max(fleet.workers // 5, 1) if fleet.workers > 1 else 0
    cases: list[tuple[str, float, dict[str, Any]]] = [("load", seconds, {})]
    if lost:
        died = Lost(at=seconds / 2, workers=lost)
        dies = "dies" if lost == 1 else "die"
        cases.append((f"{lost:,} of {fleet.workers:,} workers {dies}", seconds, {"lost": died}))
    if outage:
        away = Outage(at=seconds / 2, seconds=outage)
        cases.append((f"provider away {outage:g} s", seconds + outage, {"outage": away}))
    outcomes: list[tuple[str, Outcome]] = []
    for name, lasts, faults in cases:
        run = Simulation(load=load, fleet=fleet, costs=measured, seconds=lasts, **faults)
        outcomes.append((name, _watched(run, name, lasts)))
    if as_json:
        for name, outcome in outcomes:
            print_json({"case": name, **_as_json(outcome), "ended_at": None})
    else:
        _print_outcomes(outcomes)


def _watched(run: Simulation, name: str, lasts: float) -> Outcome:
    """Run a simulation, and show how far it is."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=real(errors), transient=True) as progress:
        task = progress.add_task(name, total=lasts)
        run.progress = lambda second: progress.update(task, completed=second)
        return run.run()


def _print_outcomes(outcomes: list[tuple[str, Outcome]]) -> None:
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
        ("provider back to all woken", [_time(o.backlog) for _, o in outcomes]),
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
