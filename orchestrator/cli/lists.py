"""`turns`, `conversations`, `approvals`, `ends`: lists that need no ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.approvals import print_calls
from orchestrator.cli.console import console, note, print_json, printable
from orchestrator.cli.failures import ExitCode, usage_error
from orchestrator.cli.filters import (
    DEFAULT_LIMIT,
    Agent,
    ErrorCode,
    ErrorText,
    Limit,
    Newest,
    OfConversation,
    OfTenant,
    OfUser,
    Since,
    Status,
    Until,
    given,
)
from orchestrator.cli.options import DECIDE, LOOK, Json
from orchestrator.cli.tables import print_rows
from orchestrator.cli.times import clock, moment
from orchestrator.cli.views import iso, record_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentapi.turns import TurnError
    from orchestrator import ConversationSummary, TurnEnd, TurnSummary


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (turns, conversations, ends):
        app.command(rich_help_panel=LOOK)(command)
    app.command(rich_help_panel=DECIDE)(approvals)


def turns(
    status: Status = None,
    agent: Agent = None,
    conversation: OfConversation = None,
    user: OfUser = None,
    tenant: OfTenant = None,
    error_code: ErrorCode = None,
    error: ErrorText = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    as_json: Json = False,
) -> None:
    """List turns, newest first.

    With --json one object on each line. Messages and replies are not listed.
    """
    filters = given(
        status=status or None,
        agent=agent,
        conversation_id=conversation,
        user_id=user,
        tenant_id=tenant,
        error_code=error_code,
        error=error,
        since=since,
        until=until,
    )
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        found = Newest(orchestrator.turns(**filters), limit)
        _print_turns(found, as_json=as_json)
        found.check()


def _print_turns(found: Iterable[TurnSummary], *, as_json: bool) -> None:
    if as_json:
        for turn in found:
            print_json(record_json(turn))
        return
    rows = [
        {
            "turn": turn.turn_id,
            "status": turn.status,
            "accepted": clock(turn.created_at),
            "agent": _who(turn),
            "conversation": turn.conversation_id,
            "error": _said(turn.error),
        }
        for turn in found
    ]
    if rows:
        print_rows(rows, head=3, long="error")
    else:
        note("no turns")


def _who(turn: TurnSummary) -> str:
    """The agent; for one of the runtime's internal turns, its purpose."""
    return turn.agent if turn.kind == "agent" else f"({turn.kind})"


def _said(error: TurnError | None) -> str:
    return f"{error.code}: {error.message}" if error else ""


def conversations(
    agent: Annotated[
        str | None, typer.Option(help="Only those whose newest turn was enqueued for this agent.")
    ] = None,
    user: OfUser = None,
    tenant: OfTenant = None,
    busy: Annotated[
        bool | None,
        typer.Option(
            "--busy/--idle", help="Only those with, or without, turns that are running or waiting."
        ),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Created since: 30m, 2h, 7d, or a time.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Created until.")] = None,
    active_since: Annotated[str | None, typer.Option(metavar="TIME", help="Changed since.")] = None,
    idle_since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Not changed since.")
    ] = None,
    limit: Limit = DEFAULT_LIMIT,
    as_json: Json = False,
) -> None:
    """List conversations, newest first.

    With --json one object on each line.
    """
    filters = given(
        agent=agent,
        user_id=user,
        tenant_id=tenant,
        busy=busy,
        since=since,
        until=until,
        active_since=active_since,
        idle_since=idle_since,
    )
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        found = Newest(orchestrator.conversations(**filters), limit)
        _print_conversations(found, as_json=as_json)
        found.check()


def _print_conversations(found: Iterable[ConversationSummary], *, as_json: bool) -> None:
    if as_json:
        for each in found:
            print_json(record_json(each))
        return
    rows = [
        {
            "conversation": each.conversation_id,
            "changed": clock(each.updated_at),
            "agent": each.agent,
            "user": each.user_id,
            "turns": each.turns,
            "open": each.open_turns,
            "messages": each.messages,
            "archived": "yes" if each.archived else None,
        }
        for each in found
    ]
    if rows:
        print_rows(rows, head=2)
    else:
        note("no conversations")


def approvals(
    agent: Agent = None,
    conversation: OfConversation = None,
    user: OfUser = None,
    tenant: OfTenant = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = DEFAULT_LIMIT,
    as_json: Json = False,
) -> None:
    """List the tool calls of all turns that are waiting for a decision, newest turns first.

    With --json one object on each line.
    """
    filters = given(
        agent=agent,
        conversation_id=conversation,
        user_id=user,
        tenant_id=tenant,
        since=since,
        until=until,
    )
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        found = Newest(orchestrator.approvals(**filters), limit)
        print_calls(found, as_json=as_json)
        found.check()


def ends(
    follow: Annotated[
        bool, typer.Option("--follow", help="Continue with new ends as they happen, until Ctrl-C.")
    ] = False,
    after: Annotated[
        str | None,
        typer.Option(metavar="POSITION", help="Only ends after this `position`, as in --json."),
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Ended since: 30m, 2h, 7d, or a time.")
    ] = None,
    status: Status = None,
    agent: Agent = None,
    conversation: OfConversation = None,
    user: OfUser = None,
    tenant: OfTenant = None,
    as_json: Json = False,
) -> None:
    """Print how turns ended, oldest first: stored ends, or new ends as they happen.

    With --json one object on each line. Continue after the last one with --after.
    """
    if after is not None and since is not None:
        raise usage_error("give either --after or --since")
    start: str | float | None = moment("--since", since) if after is None else after
    if start is None and not follow:
        start = "start"
    filters = given(
        status=status or None,
        agent=agent,
        conversation_id=conversation,
        user_id=user,
        tenant_id=tenant,
    )
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        try:
            for end in orchestrator.ends(start, timeout=None if follow else 0, **filters):
                _print_end(end, as_json=as_json)
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None


def _print_end(end: TurnEnd, *, as_json: bool) -> None:
    if as_json:
        print_json(record_json(end))
        return
    words = [iso(end.ended_at), end.turn_id, end.status, end.agent, end.conversation_id]
    if end.error_code:
        words.append(end.error_code)
    text = "  ".join(printable(str(word)) for word in words)
    console.print(text, markup=False, highlight=False, soft_wrap=True)
