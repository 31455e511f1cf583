"""`enqueue` and `follow`: send a message to an agent, and follow its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.agent_check import AgentCheck
from orchestrator.cli.console import console, print_json
from orchestrator.cli.displays import JsonDisplay, ResultDisplay, TextDisplay
from orchestrator.cli.messages import attachment_of, json_object, message_of
from orchestrator.cli.options import (
    TALK,
    AgentName,
    ContextJson,
    InConversation,
    Json,
    OnAbortOption,
    OnBusyOption,
    Tenant,
    Timeout,
    TurnId,
    User,
)
from orchestrator.cli.watching import Display, follow_to_end

if TYPE_CHECKING:
    from orchestrator import Orchestrator
    from orchestrator.handle import TurnHandle


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (enqueue, follow):
        app.command(rich_help_panel=TALK)(command)


def enqueue(
    agent: AgentName,
    message: Annotated[
        str | None, typer.Argument(metavar="MESSAGE", help="The message. Or use --file.")
    ] = None,
    file: Annotated[
        str | None, typer.Option(help="Read the message from a file; - reads standard input.")
    ] = None,
    attach: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE", help="Path or URL of an image or a file; may be repeated."),
    ] = None,
    conversation: InConversation = None,
    user: User = None,
    tenant: Tenant = None,
    metadata: Annotated[
        str | None, typer.Option(metavar="JSON", help="A JSON object, kept with the turn.")
    ] = None,
    context: ContextJson = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(help="A repeat with the same key in the same conversation is the same turn."),
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds until the turn fails if it has not ended.")
    ] = None,
    on_busy: OnBusyOption = None,
    on_abort: OnAbortOption = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the reply and print it.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Wait, and print the reply as it is written.")
    ] = False,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Send a message to an agent.

    Without --wait or --stream, the command returns when the turn is accepted. Ctrl-C ends the wait;
    the turn continues.
    """
    text = message_of(message, file)
    parts = [attachment_of(place) for place in attach or ()]
    options: dict[str, Any] = {
        "conversation_id": conversation,
        "user_id": user,
        "tenant_id": tenant,
        "metadata": json_object("--metadata", metadata),
        "context": json_object("--context", context),
        "idempotency_key": idempotency_key,
        "deadline": deadline,
        "stream": stream,
        "on_busy": on_busy,
        "on_abort": on_abort,
    }
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        handle = orchestrator.enqueue(agent, [text, *parts] if parts else text, **options)
        if not (wait or stream):
            _print_ids(handle, as_json=as_json)
        else:
            display = _display(orchestrator, handle, stream=stream, as_json=as_json)
            check = AgentCheck(handle, agent, orchestrator.settings).look
            follow_to_end(handle, display, timeout=timeout, check=check)


def _display(
    orchestrator: Orchestrator, handle: TurnHandle, *, stream: bool, as_json: bool
) -> Display:
    if not as_json:
        return TextDisplay(orchestrator)
    if not stream:
        return ResultDisplay()
    # If the stream is lost, the user can follow the turn by its id.
    _print_ids(handle, as_json=True, type="accepted")
    return JsonDisplay()


def _print_ids(handle: TurnHandle, *, as_json: bool, **more: str) -> None:
    if as_json:
        print_json({**more, "turn_id": handle.turn_id, "conversation_id": handle.conversation_id})
        return
    console.print(f"turn          {handle.turn_id}", highlight=False)
    console.print(
        f"conversation  {handle.conversation_id}", highlight=False, markup=False, soft_wrap=True
    )


def follow(
    turn_id: TurnId,
    after: Annotated[int, typer.Option(min=-1, help="Number of the last event already seen.")] = -1,
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Follow a turn from its first event until it ends.

    If the turn was enqueued with --stream, the reply is shown as it is written. Ctrl-C ends the
    command; the turn continues.
    """
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        handle = orchestrator.turn(turn_id)
        display = JsonDisplay() if as_json else TextDisplay(orchestrator)
        follow_to_end(handle, display, after=after, timeout=timeout)
