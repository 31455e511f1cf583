"""Options that choose turns, and what is made of them."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from orchestrator.cli.completion import agent_names, turn_statuses
from orchestrator.cli.console import note
from orchestrator.cli.times import moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
    typer.Option(help="Only turns that were enqueued for it.", autocompletion=agent_names),
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
    str | None, typer.Option(metavar="TIME", help="Accepted since then: 30m, 2h, 7d, or a time.")
]
Until = Annotated[str | None, typer.Option(metavar="TIME", help="Accepted until then.")]
Limit = Annotated[int, typer.Option(min=0, help="The most to list; 0 for all.")]


def given(**filters: Any) -> dict[str, Any]:
    """The filters that are given, as the Python API takes them."""
    for name in ("since", "until", "active_since", "idle_since"):
        if name in filters:
            filters[name] = moment(f"--{name.replace('_', '-')}", filters[name])
    return {name: value for name, value in filters.items() if value is not None}


def newest(items: Iterable[T], limit: int) -> Iterator[T]:
    """The first items of a list, and a remark if there are more."""
    rest = iter(items)
    if not limit:
        yield from rest
        return
    yield from islice(rest, limit)
    for _ in rest:
        note(f"only the newest {limit} are listed; --limit 0 lists all")
        return
