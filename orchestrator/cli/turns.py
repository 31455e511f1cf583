"""`enqueue`, `chat`, `history`, `turn`, `cancel`, `retry`: talk to agents through the workers."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agentapi import (
    EventType,
    FinishReason,
    OnAbort,
    OnBusy,
    Turn,
    TurnResult,
    create_conversation_id,
)
from agentapi.errors import TurnFailed
from orchestrator.cli.console import console, errors
from orchestrator.client import Orchestrator
from orchestrator.handle import TurnHandle
from orchestrator.wording import counted, wait_of


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (enqueue, chat, history, turn, cancel, retry):
        app.command()(command)


def enqueue(
    agent: Annotated[str, typer.Argument(help="Name of an agent that the workers know.")],
    message: Annotated[str, typer.Argument(help="The message.")],
    conversation: Annotated[str | None, typer.Option(help="Conversation to continue.")] = None,
    user: Annotated[str | None, typer.Option(help="User id.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Tenant id.")] = None,
    on_busy: Annotated[
        OnBusy | None,
        typer.Option(help="What to do if the conversation has turns that have not ended."),
    ] = None,
    on_abort: Annotated[
        OnAbort | None, typer.Option(help="What a cancelled or failed turn leaves in the history.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the reply and print it.")] = False,
    timeout: Annotated[float, typer.Option(help="Longest wait in seconds.")] = 60.0,
) -> None:
    """Give an agent a message."""
    with Orchestrator() as orchestrator:
        handle = orchestrator.enqueue(
            agent,
            message,
            conversation_id=conversation,
            user_id=user,
            tenant_id=tenant,
            on_busy=on_busy,
            on_abort=on_abort,
        )
        if not wait:
            console.print(f"turn          {handle.turn_id}", highlight=False)
            console.print(f"conversation  {handle.conversation_id}", highlight=False)
            return
        result = _wait(handle, timeout)
        console.print(result.text, markup=False, highlight=False)
        errors.print(
            f"[dim]{handle.turn_id}: {counted(result.steps, 'step')}, "
            f"{counted(result.usage.total_tokens, 'token')}[/dim]"
        )


def _wait(handle: TurnHandle, timeout: float) -> TurnResult:
    """Wait for the result, and say what the turn waits for."""
    for event in handle.events(timeout=timeout):
        if (waits := wait_of(event)) is not None:
            errors.print(f"[dim]{escape(waits)}[/dim]", highlight=False, soft_wrap=True)
        if event.type is EventType.PARKED and event.data.get("reason") == "approval":
            errors.print(
                f"waits for approval: agentapi pending {handle.turn_id}",
                highlight=False,
                soft_wrap=True,
            )
    return handle.result(timeout=timeout)


def chat(
    agent: Annotated[str, typer.Argument(help="Name of an agent that the workers know.")],
    conversation: Annotated[str | None, typer.Option(help="Conversation to continue.")] = None,
) -> None:
    """Talk to an agent through the workers. Commands: /history, /reset, /quit."""
    conversation_id = conversation or create_conversation_id()
    console.print(f"[dim]conversation {conversation_id}; /history, /reset, /quit[/dim]")
    with Orchestrator() as orchestrator:
        while True:
            try:
                said = console.input("[bold]you[/bold] ").strip()
            except (EOFError, KeyboardInterrupt):
                console.print()
                return
            if said == "/quit":
                return
            if said == "/history":
                _print_history(orchestrator, conversation_id)
            elif said == "/reset":
                dropped = orchestrator.reset(conversation_id)
                console.print(f"[dim]{counted(dropped, 'message')} deleted[/dim]")
            elif said:
                _say(orchestrator, agent, conversation_id, said)


def _say(orchestrator: Orchestrator, agent: str, conversation_id: str, said: str) -> None:
    """Run one turn and print its text as it arrives. Ctrl-C cancels the turn only."""
    handle = orchestrator.enqueue(agent, said, conversation_id=conversation_id, stream=True)
    console.print(f"[bold cyan]{agent}[/bold cyan] ", end="")
    shown = False
    try:
        for event in handle.events():
            if event.type is EventType.DELTA:
                shown = True
                console.print(event.data["text"], end="", markup=False, highlight=False)
            elif event.type is EventType.RESET and shown:
                console.print("\n[dim](a worker was lost; the reply starts over)[/dim]")
            elif (waits := wait_of(event)) is not None:
                console.print(f"[dim]({escape(waits)})[/dim] ", end="")
            elif (
                event.type is EventType.STEP
                and event.data["kind"] == "model"
                and (
                    # Without tools it is a part of a reply, which goes on.
                    event.data["tools"]
                )
            ):
                console.print(f"[dim]({', '.join(event.data['tools'])})[/dim] ", end="")
        result = handle.result()
        console.print("" if shown else result.text, markup=False, highlight=False)
        if result.finish_reason is not FinishReason.STOP:
            console.print(f"[dim](the reply is not complete: {result.finish_reason})[/dim]")
    except KeyboardInterrupt:
        console.print(f"\n[dim]cancel: {handle.cancel()}[/dim]")
    except TurnFailed as error:
        console.print(f"[red]{error}[/red]")


def history(
    conversation: Annotated[str, typer.Argument(help="The conversation's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a conversation's messages."""
    with Orchestrator() as orchestrator:
        if as_json:
            typer.echo(json.dumps(orchestrator.history(conversation), indent=2))
        else:
            _print_history(orchestrator, conversation)


def _print_history(orchestrator: Orchestrator, conversation_id: str) -> None:
    messages = orchestrator.history(conversation_id)
    if not messages:
        console.print("[dim]no messages[/dim]")
    for message in messages:
        text = Text(f"{message['role']:>9} ", style="bold")
        text.append(message["content"], style="not bold")
        for call in message.get("tool_calls", ()):
            text.append(
                f" -> {call['name']}({json.dumps(call['arguments'])})", style="not bold dim"
            )
        console.print(text)


def turn(
    turn_id: Annotated[str, typer.Argument(metavar="TURN", help="The turn's id.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a turn: status, attempts, times, tokens, error and events."""
    with Orchestrator() as orchestrator:
        info = orchestrator.turn(turn_id).info()
        found = orchestrator.store.events({turn_id: -1}, 0).get(turn_id, [])
    rows = _rows(info)
    events = [{"number": e.number, "type": e.type.value, **e.data} for e in found]
    if as_json:
        typer.echo(json.dumps({**rows, "events": events}, indent=2))
        return
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, Text("" if value is None else str(value)))
    for event in events:
        table.add_row(f"event {event.pop('number')}", Text(json.dumps(event)))
    console.print(table)


def _rows(info: Turn) -> dict[str, object]:
    return {
        "turn": info.turn_id,
        "conversation": info.conversation_id,
        "agent": info.agent,
        "answered by": info.answered_by,
        "part of": info.parent_id,
        "status": info.status.value,
        "attempt": info.attempt,
        "handed back": info.handbacks,
        "parked": info.parks,
        "waits": info.waiting_for.describe(time.time()) if info.waiting_for else None,
        "wakes": _time(info.wakes_at),
        "deadline": _time(info.deadline_at),
        "worker": info.worker,
        "steps": info.steps,
        "input_tokens": info.usage.input_tokens,
        "output_tokens": info.usage.output_tokens,
        "cost": info.usage.cost or None,
        "created": _time(info.created_at),
        "started": _time(info.started_at),
        "ended": _time(info.ended_at),
        "input": info.input,
        "text": info.text,
        "error": f"{info.error.code}: {info.error.message}" if info.error else None,
    }


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def cancel(
    turn_id: Annotated[str, typer.Argument(metavar="TURN", help="The turn's id.")],
) -> None:
    """Cancel a turn, and print what happened: cancelled, requested or ended."""
    with Orchestrator() as orchestrator:
        console.print(orchestrator.cancel(turn_id).value)


def retry(
    turn_id: Annotated[str, typer.Argument(metavar="TURN", help="The turn's id.")],
) -> None:
    """Run a failed turn again, from its last recorded step."""
    with Orchestrator() as orchestrator:
        orchestrator.retry(turn_id)
        console.print("queued")
