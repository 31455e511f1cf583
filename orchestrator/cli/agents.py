"""`agents`: which agents the workers serve."""

from __future__ import annotations

import typer

from orchestrator.cli.console import console, print_json
from orchestrator.cli.failures import CommandFailed, ExitCode
from orchestrator.cli.options import CHECK, Json


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=CHECK)(agents)


def agents(as_json: Json = False) -> None:
    """List the agents of the workers that answer.

    With --json one object on each line.
    """
    from agentapi import load_settings
    from orchestrator.cli.worker_agents import agents_of_workers

    serving = agents_of_workers(load_settings())
    if not serving:
        raise CommandFailed(
            "no worker answers: start one with `agentapi worker`",
            code="no_workers",
            exit_code=ExitCode.UNAVAILABLE,
        )
    found: dict[str, list[str]] = {}
    for worker, names in sorted(serving.items()):
        for name in names:
            found.setdefault(name, []).append(worker)
    if as_json:
        for name, workers in sorted(found.items()):
            print_json({"agent": name, "workers": workers})
        return
    from rich.table import Table

    table = Table("agent", "workers")
    for name, workers in sorted(found.items()):
        table.add_row(name, ", ".join(workers))
    console.print(table)
