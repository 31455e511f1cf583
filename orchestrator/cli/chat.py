"""`chat`: talk to an agent in the terminal."""

from __future__ import annotations

import typer

from orchestrator.cli.messages import json_object
from orchestrator.cli.options import (
    TALK,
    AgentName,
    By,
    ContextJson,
    InConversation,
    Json,
    Tenant,
    User,
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=TALK)(chat)


def chat(
    agent: AgentName,
    conversation: InConversation = None,
    user: User = None,
    tenant: Tenant = None,
    context: ContextJson = None,
    by: By = None,
    as_json: Json = False,
) -> None:
    """Talk to an agent through the workers, and approve its tool calls. /help lists commands.

    --conversation continues an earlier conversation. Ctrl-C cancels the running turn; a second
    Ctrl-C ends the chat. With --json each line of standard input is a message, and each line of
    standard output an event or a result.
    """
    given = json_object("--context", context)
    from orchestrator.cli.chat_session import ChatSession
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        session = ChatSession(
            orchestrator,
            agent,
            conversation_id=conversation,
            user_id=user,
            tenant_id=tenant,
            context=given,
            by=by,
            as_json=as_json,
        )
        raise typer.Exit(session.run())
