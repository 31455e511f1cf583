"""The `agentapi` command: its sub-commands, and errors as one line."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed_version
from typing import Annotated

import typer

from orchestrator.cli import (
    agents,
    approvals,
    archive,
    bulk,
    capacity,
    chat,
    conversations,
    data,
    doctor,
    enqueue,
    fork,
    gateway,
    init,
    inspect,
    lists,
    local,
    timeline,
    top,
    turns,
    worker,
)
from orchestrator.cli.console import print_json
from orchestrator.cli.failures import log_failure, report, serves_with_json_log, wants_json
from orchestrator.cli.options import CHECK, Json, paragraphs

commands = typer.Typer(
    name="agentapi",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
init.register(commands)
worker.register(commands)
local.register(commands)
enqueue.register(commands)
chat.register(commands)
turns.register(commands)
timeline.register(commands)
fork.register(commands)
lists.register(commands)
top.register(commands)
bulk.register(commands)
conversations.register(commands)
data.register(commands)
approvals.register(commands)
agents.register(commands)
inspect.register(commands)
doctor.register(commands)
gateway.register(commands)
capacity.register(commands)
archive.register(commands)


@commands.command(rich_help_panel=CHECK)
def version(as_json: Json = False) -> None:
    """Print the version."""
    found = installed_version("agentapi")
    if as_json:
        print_json({"version": found})
    else:
        typer.echo(found)


for registered in commands.registered_commands:
    registered.help = paragraphs(registered.callback)


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
    """Run the command. Errors are one line; docs/reference/cli.md lists the exit codes."""
    as_json = wants_json(sys.argv[1:])
    # Everything that a server prints belongs to its log.
    logs = not as_json and serves_with_json_log(sys.argv[1:])
    if as_json or logs:
        _log_as_json()
    try:
        code = typer.main.get_command(commands).main(standalone_mode=False)
    except Exception as error:
        code = log_failure(error) if logs else report(error, as_json=as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _log_as_json() -> None:
    """Log as JSON too, for example when the broker is unavailable."""
    from agentapi.logs import configure_logging

    configure_logging("WARNING", "json")


if __name__ == "__main__":
    app()
