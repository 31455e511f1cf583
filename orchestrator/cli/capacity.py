"""`capacity`: how many workers, Redis shards and gateways a load needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.capacity_tables import print_outcomes, print_plan
from orchestrator.cli.console import errors, real
from orchestrator.cli.options import CHECK, Json

if TYPE_CHECKING:
    from orchestrator.capacity import Costs, Load, Outcome, Plan, Simulation


Average = Annotated[float, typer.Option(help="Average rate, as a share of the busiest hour.")]
ThroughGateway = Annotated[float, typer.Option(help="Share of turns through the gateway, 0 to 1.")]
Spare = Annotated[
    float, typer.Option(help="Share of the workers that may be lost at the same time, 0 to 0.9.")
]
Retention = Annotated[float, typer.Option(help="Seconds for which ended turns are kept.")]
TurnsAfter = Annotated[
    float | None,
    typer.Option(
        min=0,
        help="Seconds until an ended turn moves to the archive; 0 for never. 3600 with --archived.",
        show_default=False,
    ),
]
MeasuredCosts = Annotated[
    Path | None, typer.Option(help="Your measured costs; defaults to the release's.")
]
Simulate = Annotated[
    bool, typer.Option("--simulate", help="Also simulate load, lost workers, an outage.")
]
OutageSeconds = Annotated[
    float, typer.Option(min=0, help="Simulated seconds for which the provider is unavailable.")
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=CHECK)(capacity)


def capacity(
    turns_per_second: Annotated[float, typer.Argument(help="Turns per second in busiest hour.")],
    model_seconds: Annotated[float, typer.Option(help="Seconds of a model call.")] = 3.0,
    model_calls: Annotated[float, typer.Option(help="Model calls per turn; 1 or more.")] = 1.5,
    tool_seconds: Annotated[float, typer.Option(help="Seconds of a tool call.")] = 0.5,
    message_bytes: Annotated[int, typer.Option(help="Size of a message, in bytes.")] = 500,
    conversations: Annotated[int, typer.Option(help="Conversations that are kept.")] = 100_000,
    archived: Annotated[float, typer.Option(help="Share that is archived, 0 to 1.")] = 0.0,
    messages_kept: Annotated[int, typer.Option(help="Messages per conversation.")] = 40,
    average: Average = 0.4,
    streamed: Annotated[float, typer.Option(help="Share of turns that stream, 0 to 1.")] = 0.0,
    through_gateway: ThroughGateway = 1.0,
    slots: Annotated[int, typer.Option(min=1, help="AGENTAPI_CONCURRENCY of the workers.")] = 64,
    spare: Spare = 0.2,
    shard_gib: Annotated[float, typer.Option(help="Memory of one Redis primary, GiB.")] = 16.0,
    turn_retention: Retention = 604_800.0,
    archive_turns_after: TurnsAfter = None,
    costs: MeasuredCosts = None,
    simulate: Simulate = False,
    seconds: Annotated[float, typer.Option(min=1, help="Simulated seconds of load.")] = 60.0,
    outage: OutageSeconds = 600.0,
    as_json: Json = False,
) -> None:
    """Show how many workers, Redis shards and gateways a load needs.

    docs/capacity.md explains the figures. --simulate runs the planned fleet in a simulation: under
    the load, with the loss of a fifth of its workers, and with an outage of the provider.
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
    if archive_turns_after is None:
        archive_turns_after = 3_600.0 if archived else 0.0
    rules = Rules(
        spare=spare,
        shard_gib=shard_gib,
        turn_retention=turn_retention,
        archive_turns_after=archive_turns_after,
    )
    measured = read_costs(costs)
    planned = plan(load, measured, rules, slots=slots)
    print_plan(planned, load, as_json=as_json)
    if simulate:
        print_outcomes(_simulate(load, planned, measured, seconds, outage), as_json=as_json)


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


def _simulate(
    load: Load, planned: Plan, measured: Costs, seconds: float, outage: float
) -> list[tuple[str, Outcome]]:
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
    return outcomes


def _watched(run: Simulation, name: str, lasts: float) -> Outcome:
    """Run a simulation, and show its progress."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=real(errors), transient=True) as progress:
        task = progress.add_task(name, total=lasts)
        run.progress = lambda second: progress.update(task, completed=second)
        return run.run()
