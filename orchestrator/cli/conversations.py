"""`history` and `reset`: show or delete a conversation's messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.asking import confirm
from orchestrator.cli.console import console, print_json
from orchestrator.cli.failures import not_found
from orchestrator.cli.options import LOOK, ConversationId, Json
from orchestrator.cli.views import message_text
from orchestrator.wording import counted

if TYPE_CHECKING:
    from orchestrator.client import Orchestrator


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (history, reset):
        app.command(rich_help_panel=LOOK)(command)


def history(
    conversation: ConversationId,
    last: Annotated[
        int | None, typer.Option(min=1, help="Print only this many of the newest messages.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print a conversation's messages, oldest first.

    With --json one object on each line.
    """
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        messages = known_history(orchestrator, conversation)
    for message in messages[-last:] if last else messages:
        if as_json:
            print_json(message)
        else:
            console.print(message_text(message), soft_wrap=True)


def known_history(orchestrator: Orchestrator, conversation: str) -> list[dict[str, Any]]:
    """The messages of a conversation.

    Raises:
        CommandFailed: There are none: the conversation is unknown, has expired, or has no completed
            turn.
    """
    messages = orchestrator.history(conversation)
    if not messages:
        raise not_found(
            f"conversation {conversation!r} has no messages: it does not exist, or no turn in it "
            "has completed",
            "conversation_not_found",
        )
    return messages


def reset(
    conversation: ConversationId,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a conversation's messages.

    A turn that is running continues, but its messages stay out of the new history.
    """
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        messages = known_history(orchestrator, conversation)
        if not yes:
            confirm(f"Delete {counted(len(messages), 'message')} of {conversation}?")
        deleted = orchestrator.reset(conversation)
    if as_json:
        print_json({"conversation_id": conversation, "deleted": deleted})
    else:
        console.print(f"{counted(deleted, 'message')} deleted")
