"""`archive`: create and migrate the archive's tables, and show its size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.console import console, note, print_json
from orchestrator.cli.options import CHECK, Json, paragraphs
from orchestrator.wording import counted

if TYPE_CHECKING:
    from agentapi.archive.sql import SqlArchive

archive = typer.Typer(
    help="Manage the archive of idle conversations and ended turns.",
    no_args_is_help=True,
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    archive.command()(migrate)
    archive.command()(status)
    for command in archive.registered_commands:
        command.help = paragraphs(command.callback)
    app.add_typer(archive, name="archive", rich_help_panel=CHECK)


def migrate(as_json: Json = False) -> None:
    """Create or migrate the tables of the archive.

    The first process that needs the tables creates them, if the user in AGENTAPI_ARCHIVE_URL may
    create tables. Otherwise run this command as a user who may. It does nothing if the tables are
    up to date.
    """
    with _archive() as opened:
        before = opened.version()
        opened.prepare()
        after = opened.version()
    if as_json:
        print_json({"before": before, "version": after})
    elif before == after:
        note(f"the tables already have version {after}")
    else:
        note(f"migrated the tables to version {after}; version before: {before or 'none'}")


def status(as_json: Json = False) -> None:
    """Print what the archive contains, its size, and the version of its tables.

    It counts rows, which takes seconds if there are millions.
    """
    with _archive() as opened:
        found = opened.status()
    if as_json:
        print_json(asdict(found))
        return
    console.print(f"address        {found.address}", markup=False, highlight=False)
    if found.version is None:
        console.print("tables         none; run `agentapi archive migrate`", markup=False)
        return
    console.print(f"tables         version {found.version}; this release creates {found.newest}")
    console.print(f"conversations  {counted(found.conversations, 'copy', 'copies')}")
    console.print(f"messages       {found.messages}")
    console.print(f"turns          {counted(found.turns, 'copy', 'copies')}")
    console.print(f"size           {found.size / 2**20:,.1f} MiB")


@contextmanager
def _archive() -> Iterator[SqlArchive]:
    from agentapi import load_settings
    from agentapi.archive.opening import open_archive
    from agentapi.errors import ConfigurationError

    opened = open_archive(load_settings())
    if opened is None:
        raise ConfigurationError("AGENTAPI_ARCHIVE_URL is not set: there is no archive")
    try:
        yield opened
    finally:
        opened.close()
