"""`turn`: everything about one turn."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.console import console, print_json, printable
from orchestrator.cli.options import LOOK, Json, TurnId
from orchestrator.cli.views import event_json, iso, turn_json

if TYPE_CHECKING:
    from agentapi import Turn


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=LOOK)(turn)


def turn(turn_id: TurnId, as_json: Json = False) -> None:
    """Show a turn: status, attempts, times, tokens, error and events."""
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        info = orchestrator.turn(turn_id).info()
        found = orchestrator.store.events({turn_id: -1}, 0).get(turn_id, [])
    events = [event_json(event) for event in found]
    if as_json:
        print_json({**turn_json(info), "events": events})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    for name, value in _rows(info).items():
        if value is not None:
            table.add_row(name, Text(printable(str(value))))
    for event in events:
        number = event.pop("number")
        shown = json.dumps(event, ensure_ascii=False)
        table.add_row(f"event {number}", Text(printable(shown)))
    console.print(table)


def _rows(info: Turn) -> dict[str, object]:
    return {
        "turn": info.turn_id,
        "conversation": info.conversation_id,
        "agent": info.agent,
        "answered by": info.answered_by,
        "part of": info.parent_id,
        "user": info.user_id,
        "tenant": info.tenant_id,
        "metadata": json.dumps(dict(info.metadata), ensure_ascii=False) if info.metadata else None,
        "status": info.status.value,
        "attempt": info.attempt,
        "handed back": info.handbacks,
        "parked": info.parks,
        "waits": info.waiting_for.describe(time.time()) if info.waiting_for else None,
        "wakes": iso(info.wakes_at),
        "deadline": iso(info.deadline_at),
        "worker": info.worker,
        "steps": info.steps,
        "input tokens": info.usage.input_tokens,
        "output tokens": info.usage.output_tokens,
        "cost": info.usage.cost or None,
        "created": iso(info.created_at),
        "started": iso(info.started_at),
        "ended": iso(info.ended_at),
        "input": info.input,
        "text": info.text,
        "error": f"{info.error.code}: {info.error.message}" if info.error else None,
    }
