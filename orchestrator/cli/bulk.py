"""`cancel` and `retry`: one turn, or all that match."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.asking import confirm
from orchestrator.cli.console import console, note, print_json
from orchestrator.cli.failures import ExitCode, usage_error
from orchestrator.cli.filters import (
    Agent,
    ErrorCode,
    ErrorText,
    OfConversation,
    OfTenant,
    OfUser,
    Since,
    Status,
    Until,
    given,
)
from orchestrator.cli.options import LOOK, Json
from orchestrator.wording import counted

if TYPE_CHECKING:
    from orchestrator import BulkResult

OneTurn = Annotated[
    str | None, typer.Argument(metavar="TURN", help="The turn's id. Or select turns with filters.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Change nothing; print the turns that match.")
]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
Most = Annotated[
    int | None, typer.Option("--limit", min=1, help="Maximum number of turns to change.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (cancel, retry):
        app.command(rich_help_panel=LOOK)(command)


def cancel(
    turn_id: OneTurn = None,
    status: Status = None,
    agent: Agent = None,
    conversation: OfConversation = None,
    user: OfUser = None,
    tenant: OfTenant = None,
    since: Since = None,
    until: Until = None,
    limit: Most = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Cancel a turn, or all turns that match the filters and have not ended.

    Prints what happened to one turn: cancelled, requested (its worker will stop it) or ended.
    """
    filters = given(
        status=status or None,
        agent=agent,
        conversation_id=conversation,
        user_id=user,
        tenant_id=tenant,
        since=since,
        until=until,
    )
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        if _is_one(turn_id, filters, dry_run=dry_run):
            _print_outcome(turn_id, orchestrator.cancel(str(turn_id)).value, as_json=as_json)
        else:
            change = _Change("cancel", "cancelled", orchestrator.cancel_all, filters)
            change.run(limit=limit, dry_run=dry_run, yes=yes, as_json=as_json)


def retry(
    turn_id: OneTurn = None,
    status: Status = None,
    agent: Agent = None,
    conversation: OfConversation = None,
    user: OfUser = None,
    tenant: OfTenant = None,
    error_code: ErrorCode = None,
    error: ErrorText = None,
    since: Since = None,
    until: Until = None,
    limit: Most = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Run a failed turn again, or all failed turns that match the filters.

    A turn continues from its last recorded step.
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
        if _is_one(turn_id, filters, dry_run=dry_run):
            orchestrator.retry(str(turn_id))
            _print_outcome(turn_id, "queued", as_json=as_json)
        else:
            change = _Change("retry", "retried", orchestrator.retry_all, filters)
            change.run(limit=limit, dry_run=dry_run, yes=yes, as_json=as_json)


def _is_one(turn_id: str | None, filters: dict[str, Any], *, dry_run: bool) -> bool:
    """Whether the command applies to one turn.

    Raises:
        CommandFailed: It applies to no turn, or to one turn and filters.
    """
    if turn_id is None and not filters:
        raise usage_error("give a TURN, or a filter such as --agent or --since")
    if turn_id is not None and (filters or dry_run):
        raise usage_error("give either a TURN or filters")
    return turn_id is not None


def _print_outcome(turn_id: str | None, outcome: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"turn_id": turn_id, "outcome": outcome})
    else:
        console.print(outcome)


@dataclass(frozen=True, slots=True)
class _Change:
    """A change to many turns.

    Attributes:
        verb: The verb for the change, such as "cancel".
        done: The participle, such as "cancelled".
        apply: Makes the change, or only finds the turns.
        filters: The filters that select the turns.
    """

    verb: str
    done: str
    apply: Callable[..., BulkResult]
    filters: dict[str, Any]

    def run(self, *, limit: int | None, dry_run: bool, yes: bool, as_json: bool) -> None:
        """Ask for confirmation unless told not to; then change the turns, and print their ids."""
        if not dry_run and not yes:
            found = self.apply(dry_run=True, limit=limit, **self.filters)
            if not found.turn_ids:
                self._print(found, as_json=as_json)
                return
            confirm(f"{self.verb.capitalize()} {counted(len(found.turn_ids), 'turn')}?")
        result = self.apply(dry_run=dry_run, limit=limit, **self.filters)
        self._print(result, as_json=as_json)
        if result.refused:
            raise typer.Exit(ExitCode.CONFLICT)

    def _print(self, result: BulkResult, *, as_json: bool) -> None:
        if as_json:
            refused = {
                turn_id: {"code": error.code, "message": str(error)}
                for turn_id, error in result.refused.items()
            }
            print_json(
                {"turn_ids": list(result.turn_ids), "refused": refused, "dry_run": result.dry_run}
            )
            return
        for turn_id in result.turn_ids:
            console.print(turn_id, highlight=False)
        for turn_id, error in result.refused.items():
            note(f"{turn_id}: {error}")
        number = counted(len(result.turn_ids), "turn")
        note(f"{number} would be {self.done}" if result.dry_run else f"{number} {self.done}")
