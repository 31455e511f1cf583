"""`pending`, `approve`, `reject`: tool calls that wait for a decision."""

from __future__ import annotations

import json
from collections.abc import Iterable
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.console import console, note, print_json, printable
from orchestrator.cli.messages import json_object
from orchestrator.cli.options import DECIDE, By, CallId, Json, TurnId
from orchestrator.cli.tables import fits, print_table
from orchestrator.cli.times import clock
from orchestrator.cli.views import call_json

if TYPE_CHECKING:
    from agentapi import PendingCall


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (pending, approve, reject):
        app.command(rich_help_panel=DECIDE)(command)


def pending(turn_id: TurnId, as_json: Json = False) -> None:
    """List the tool calls of a turn that are waiting for a decision, with their arguments.

    Calls of turns that it waits for are included. With --json one object on each line.
    """
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        calls = orchestrator.turn(turn_id).pending()
    print_calls(calls, as_json=as_json)


def print_calls(calls: Iterable[PendingCall], *, as_json: bool) -> None:
    """Print waiting calls."""
    if as_json:
        for call in calls:
            print_json(call_json(call))
        return
    found = list(calls)
    if not found:
        note("no calls are waiting for a decision")
        return
    rows = [_row(call) for call in found]
    names = list(rows[0])
    if fits(rows, names, "arguments"):
        print_table(rows, names, "arguments")
        return
    for number, call in enumerate(found):
        text = f"\n{_block(call)}" if number else _block(call)
        console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def _row(call: PendingCall) -> dict[str, str]:
    row = {
        "turn": call.turn_id,
        "call": call.call_id,
        "agent": call.agent,
        "tool": call.tool,
        "arguments": json.dumps(dict(call.arguments), ensure_ascii=False),
        "expires": clock(call.expires_at) or "never",
        "default": "" if call.expires_at is None else call.default.value,
    }
    return {name: printable(text) for name, text in row.items()}


def _block(call: PendingCall) -> str:
    """A call in a few lines, with the command that approves it."""
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    lines = [f"turn  {call.turn_id}", f"call  {call.call_id}", f"{call.tool}({arguments})"]
    if call.expires_at is not None:
        lines.insert(2, f"until {clock(call.expires_at)}, then {call.default.value}")
    if call.kind == "approval":
        lines.append(f"agentapi approve {call.turn_id} {quote(call.call_id)}")
    return "\n".join(lines)


def approve(
    turn_id: TurnId,
    call_id: CallId,
    by: By = None,
    arguments: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="All arguments for the call, as JSON, in place of the model's. The model is told.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Allow a tool call; the turn continues."""
    edited = json_object("--arguments", arguments)
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        orchestrator.turn(turn_id).approve(call_id, by=by, arguments=edited)
    _print_verdict(turn_id, call_id, "approved" if edited is None else "edited", as_json=as_json)


def reject(
    turn_id: TurnId,
    call_id: CallId,
    reason: Annotated[str | None, typer.Option(help="Reason; shown to the model.")] = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Refuse a tool call; the turn continues."""
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        orchestrator.turn(turn_id).reject(call_id, reason, by=by)
    _print_verdict(turn_id, call_id, "rejected", as_json=as_json)


def _print_verdict(turn_id: str, call_id: str, verdict: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"turn_id": turn_id, "call_id": call_id, "verdict": verdict})
    else:
        shown = "approved with other arguments" if verdict == "edited" else verdict
        console.print(shown)
