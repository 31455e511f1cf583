"""The result of a run as a table: for the terminal, and for docs/gateway.md."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.clients.environments import ROOT, version
from tests.clients.roster import CLIENTS, Client
from tests.clients.run import Outcome

DOCUMENT: Final = ROOT / "docs/gateway.md"

BEGIN: Final = "<!-- clients: begin -->"

END: Final = "<!-- clients: end -->"


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print a row for each client, and each case that does not work."""
    table = Table("client", "version", "works", "of")
    for client, of_client in _by_client(outcomes):
        worked = sum(one.error is None for one in of_client)
        table.add_row(client.title, version(client), str(worked), str(len(of_client)))
    worked = sum(one.error is None for one in outcomes)
    table.add_section()
    table.add_row("all", "", str(worked), str(len(outcomes)))
    console.print(table)
    for one in outcomes:
        if one.error is not None:
            console.print(f"[red]{one.client} {one.case}[/red]: {escape(one.error[:300])}")


def write(outcomes: Sequence[Outcome], document: Path = DOCUMENT) -> None:
    """Write the table into the page, between its two marks."""
    rows = ["| client | version | works | what does not |", "| --- | --- | --- | --- |"]
    for client, of_client in _by_client(outcomes):
        failed = [f"`{one.case}`" for one in of_client if one.error is not None]
        worked = len(of_client) - len(failed)
        rows.append(
            f"| {client.title} | {version(client)} | {worked} of {len(of_client)} | "
            f"{', '.join(failed)} |"
        )
    table = "\n".join(rows)
    text = document.read_text(encoding="utf-8")
    marked = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    document.write_text(marked.sub(f"{BEGIN}\n{table}\n{END}", text), encoding="utf-8")


def _by_client(outcomes: Sequence[Outcome]) -> list[tuple[Client, list[Outcome]]]:
    found = [(client, [one for one in outcomes if one.client == client.name]) for client in CLIENTS]
    return [(client, of_client) for client, of_client in found if of_client]
