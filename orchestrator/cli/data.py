"""`export`, `import` and `forget`: backups, and the deletion of a user's data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.asking import confirm
from orchestrator.cli.console import console, errors, note, print_json, real
from orchestrator.cli.failures import ExitCode, usage_error
from orchestrator.cli.options import LOOK, Json
from orchestrator.wording import counted

if TYPE_CHECKING:
    from orchestrator import ForgottenUser, ImportResult

Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=LOOK)(export)
    app.command("import", rich_help_panel=LOOK)(import_)
    app.command(rich_help_panel=LOOK)(forget)


def export(
    conversation: Annotated[
        str | None,
        typer.Argument(
            metavar="CONVERSATION",
            help="The conversation's id. Or select conversations with filters.",
        ),
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Only conversations of this tenant.")] = None,
    user: Annotated[
        str | None, typer.Option(help="Only conversations that this user began.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All conversations.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write; defaults to standard output."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing; print what would be exported.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Export conversations as JSON lines: histories, summaries, metadata, images and files.

    The file appears when it is complete, and only its owner may read it. It does not contain
    results of turns. `agentapi import` restores the conversations.
    """
    if sum([conversation is not None, tenant is not None or user is not None, everything]) != 1:
        raise usage_error("give one of: a CONVERSATION, --tenant or --user, --all")
    from agentapi.stores.data import Whose
    from orchestrator.client import Orchestrator
    from orchestrator.data.exporting import count, export_of

    with Orchestrator() as orchestrator:
        whose = Whose(tenant_id=tenant, user_id=user)
        exporting = export_of(orchestrator.store, conversation, whose)
        if dry_run:
            counts = count(orchestrator.store, exporting.conversations)
        else:
            counts = exporting.counts
            with _written(output) as file, _progress("exported") as show:
                for line in exporting.lines():
                    file.write(line)
                    show(counts.conversations)
    found = {
        "conversations": counts.conversations,
        "messages": counts.messages,
        "dry_run": dry_run,
    }
    if as_json and (output is not None or dry_run):
        print_json(found)
        return
    number = _both(counts.conversations, counts.messages)
    note(f"{number} would be exported" if dry_run else f"{number} exported")
    if counts.missing_blobs:
        note(f"{counted(counts.missing_blobs, 'image or file', 'images or files')} had no bytes")
    if conversation is not None and not counts.conversations:
        note(f"conversation {conversation!r} does not exist")
        raise typer.Exit(ExitCode.NOT_FOUND)


@contextmanager
def _written(output: Path | None) -> Iterator[IO[bytes]]:
    """The output to write to. A file gets its name only when it is complete."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    # The file contains messages of people.
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise usage_error(f"cannot write {output}: {error.strerror}") from None
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, output)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def _progress(done: str) -> Iterator[Callable[[int], None]]:
    """Shows on a terminal how many conversations are done. The total is not known."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    hidden = not sys.stderr.isatty()
    with Progress(*columns, console=real(errors), transient=True, disable=hidden) as progress:
        task = progress.add_task("")

        def show(conversations: int) -> None:
            progress.update(task, description=f"{counted(conversations, 'conversation')} {done}")

        yield show


def import_(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The file to import; - reads standard input.")
    ],
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace existing conversations; without it they are left as they are.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the file; change nothing.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Import conversations from an export.

    Each conversation appears in one step. An interrupted import can be repeated: conversations that
    it has already imported are left as they are. A conversation with unfinished turns is never
    replaced.
    """
    if replace and not dry_run and not yes:
        if file == "-":
            raise usage_error("no terminal to ask for confirmation: add --yes")
        confirm("Replace existing conversations?")
    from orchestrator.client import Orchestrator
    from orchestrator.data.importing import Import

    with Orchestrator() as orchestrator, _read(file) as lines, _progress("read") as show:
        importing = Import(orchestrator.store, replace=replace, dry_run=dry_run)
        for so_far in importing.run(lines):
            show(so_far.imported + so_far.unchanged + len(so_far.refused))
    _print_import(importing.result, as_json=as_json)


@contextmanager
def _read(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = open(file, "rb")  # noqa: SIM115
    except OSError as error:
        raise usage_error(f"cannot read {file}: {error.strerror}") from None
    with opened:
        yield opened


def _print_import(result: ImportResult, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "imported": result.imported,
                "messages": result.messages,
                "unchanged": result.unchanged,
                "refused": dict(result.refused),
                "complete": result.complete,
                "dry_run": result.dry_run,
            }
        )
    else:
        for conversation, reason in result.refused.items():
            note(f"{conversation}: {reason}")
        number = _both(result.imported, result.messages)
        console.print(f"{number} would be imported" if result.dry_run else f"{number} imported")
        if result.unchanged:
            console.print(f"{counted(result.unchanged, 'conversation')} already imported")
        if not result.complete:
            note("the export was cut off: conversations may be missing")
    if result.refused or not result.complete:
        raise typer.Exit(ExitCode.CONFLICT)


def forget(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id.")],
    tenant: Annotated[
        str | None, typer.Option(help="Only data of this tenant; defaults to all tenants.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; print what would be deleted.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete a user's data: conversations, turns, events, summaries, images and files.

    Conversations that the user began are deleted as a whole. In other users' conversations, the
    user's turns and their messages are deleted. Unfinished turns are cancelled. If a turn does not
    stop in time, the command reports it and can be repeated.
    """
    from orchestrator.client import Orchestrator

    with Orchestrator() as orchestrator:
        if not dry_run and not yes:
            found = orchestrator.forget_user(user, tenant_id=tenant, dry_run=True)
            confirm(f"Delete {_what(found)} of {user}?")
        result = orchestrator.forget_user(user, tenant_id=tenant, dry_run=dry_run)
    if as_json:
        print_json(
            {
                "user_id": user,
                "conversations": result.conversations,
                "turns": result.turns,
                "messages": result.messages,
                "left": list(result.left),
                "dry_run": dry_run,
            }
        )
    else:
        console.print(f"{_what(result)} {'would be deleted' if dry_run else 'deleted'}")
        for turn_id in result.left:
            note(f"{turn_id} is being cancelled but has not stopped yet: repeat the command")
    if result.left:
        raise typer.Exit(ExitCode.CONFLICT)


def _what(found: ForgottenUser) -> str:
    number = _both(found.conversations, found.messages)
    return f"{number}, {counted(found.turns, 'turn')}"


def _both(conversations: int, messages: int) -> str:
    return f"{counted(conversations, 'conversation')}, {counted(messages, 'message')}"
