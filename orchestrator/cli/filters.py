"""Options that select turns, and the filters that they become."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, TypeVar

import typer

from orchestrator.cli.completion import agent_names, turn_statuses
from orchestrator.cli.console import note
from orchestrator.cli.failures import CommandFailed, ExitCode
from orchestrator.cli.times import moment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentapi.stores.missing import Missing
    from orchestrator.listing import Listing

T = TypeVar("T")

DEFAULT_LIMIT: Final = 50

Status = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STATUS",
        help="Only turns with this status; may be repeated.",
        autocompletion=turn_statuses,
    ),
]
Agent = Annotated[
    str | None,
    typer.Option(help="Only turns that were enqueued for this agent.", autocompletion=agent_names),
]
OfConversation = Annotated[
    str | None, typer.Option("--conversation", help="Only turns of this conversation.")
]
OfUser = Annotated[str | None, typer.Option("--user", help='Only of this user; "" for none.')]
OfTenant = Annotated[str | None, typer.Option("--tenant", help='Only of this tenant; "" for none.')]
ErrorCode = Annotated[str | None, typer.Option(help="Only failed turns with this code.")]
ErrorText = Annotated[
    str | None,
    typer.Option("--error", help="Only failed turns whose code or message contains this."),
]
Since = Annotated[
    str | None, typer.Option(metavar="TIME", help="Accepted since: 30m, 2h, 7d, or a time.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Accepted until.")]
Limit = Annotated[int, typer.Option(min=0, help="Maximum to list; 0 for all.")]


def given(**filters: Any) -> dict[str, Any]:
    """The given filters, in the form of the Python API."""
    for name in ("since", "until", "active_since", "idle_since"):
        if name in filters:
            filters[name] = moment(f"--{name.replace('_', '-')}", filters[name])
    return {name: value for name, value in filters.items() if value is not None}


class Newest(Generic[T]):
    """The first items of a list; without those of an unavailable cluster shard."""

    def __init__(self, listing: Listing[T], limit: int) -> None:
        """Create the reader; nothing is read yet.

        Args:
            listing: All items, newest first.
            limit: Maximum number of items; 0 for all.
        """
        self._listing = listing
        self._limit = limit
        self._missing: Missing | None = None

    def __iter__(self) -> Iterator[T]:
        """Yield the items, and print a remark if there are more."""
        listed = 0
        for page in self._listing.pages(partial=True):
            self._missing = self._missing or page.missing
            for item in page.items:
                if self._limit and listed == self._limit:
                    note(f"only the newest {self._limit} are listed; --limit 0 lists all")
                    return
                yield item
                listed += 1

    def check(self) -> None:
        """Check for missing items. Call it after everything is printed.

        Raises:
            CommandFailed: Items are missing.
        """
        if self._missing is not None:
            raise CommandFailed(
                f"the list is not complete: {self._missing}",
                code="store_unavailable",
                exit_code=ExitCode.UNAVAILABLE,
            )
