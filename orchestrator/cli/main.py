"""The `agentapi` command: its sub-commands, and errors as one line."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from agentapi.errors import AgentAPIError
from orchestrator.cli import approvals, doctor, gateway, init, inspect, local, turns, worker
from orchestrator.cli.console import errors

commands = typer.Typer(
    name="agentapi",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
init.register(commands)
worker.register(commands)
local.register(commands)
turns.register(commands)
approvals.register(commands)
inspect.register(commands)
doctor.register(commands)
gateway.register(commands)


@commands.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("agentapi"))


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@commands.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    """A distributed runtime for LLM agents on Celery and Redis."""


def app() -> None:
    """Run the command. Prints an error of agentapi without a traceback; the exit code is 1."""
    try:
        commands()
    except AgentAPIError as error:
        errors.print(f"[red]{type(error).__name__}[/red]: ", end="")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)


if __name__ == "__main__":
    app()
