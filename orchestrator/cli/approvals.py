"""`pending`, `approve`, `reject`: tool calls that wait for a decision."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from orchestrator.cli.console import console
from orchestrator.client import Orchestrator

TurnId = Annotated[str, typer.Argument(metavar="TURN", help="The turn's id.")]
CallId = Annotated[
    str, typer.Argument(metavar="CALL", help="The call's id, from `agentapi pending`.")
]
By = Annotated[str | None, typer.Option(help="Who decided; stored with the decision.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (pending, approve, reject):
        app.command()(command)


def pending(
    turn_id: TurnId,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the tool calls of a turn that wait for a decision, with their arguments."""
    with Orchestrator() as orchestrator:
        calls = orchestrator.turn(turn_id).pending()
    if as_json:
        typer.echo(json.dumps([asdict(call) for call in calls], indent=2))
        return
    if not calls:
        console.print("[dim]no calls wait for a decision[/dim]")
        return
    table = Table("call", "agent", "tool", "arguments", "expires", "default")
    for call in calls:
        expires = call.expires_at
        when = "never" if expires is None else datetime.fromtimestamp(expires, UTC).isoformat()
        arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
        row = [call.call_id, call.agent, call.tool, arguments, when]
        then = "" if expires is None else call.default.value
        table.add_row(*map(Text, [*row, then]))
    console.print(table)


def approve(turn_id: TurnId, call_id: CallId, by: By = None) -> None:
    """Allow a tool call; the turn continues."""
    with Orchestrator() as orchestrator:
        orchestrator.turn(turn_id).approve(call_id, by=by)
        console.print("approved")


def reject(
    turn_id: TurnId,
    call_id: CallId,
    reason: Annotated[str | None, typer.Option(help="Told to the model.")] = None,
    by: By = None,
) -> None:
    """Refuse a tool call; the turn continues."""
    with Orchestrator() as orchestrator:
        orchestrator.turn(turn_id).reject(call_id, reason, by=by)
        console.print("rejected")
