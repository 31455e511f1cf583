"""`fork`: run a turn again from one of its steps."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.console import console, print_json
from orchestrator.cli.options import LOOK, Json, TurnId


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=LOOK)(fork)


def fork(
    turn_id: TurnId,
    message: Annotated[
        str | None,
        typer.Argument(metavar="[MESSAGE]", help="The message to send instead."),
    ] = None,
    step: Annotated[
        int, typer.Option(min=0, help="Number of its steps to copy; see `timeline`.")
    ] = 0,
    by: Annotated[str | None, typer.Option(help="Your name; stored with the new turn.")] = None,
    key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            help="Idempotency key: a repeat with the same key returns the first fork.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a turn again from one of its steps, in a copy of its conversation.

    The original does not change. Prints the ids of the new turn and of its conversation; `follow`
    waits for the reply.
    """
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        handle = orchestrator.fork(turn_id, step=step, message=message, idempotency_key=key, by=by)
    if as_json:
        print_json({"turn_id": handle.turn_id, "conversation_id": handle.conversation_id})
        return
    for name, value in (("turn", handle.turn_id), ("conversation", handle.conversation_id)):
        console.print(f"{name} {value}", markup=False, highlight=False, soft_wrap=True)
