"""``python -m tests.clients``: every client's cases, with a table; exits 1 below the target."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import Progress

from tests.clients import report
from tests.clients.environments import prepare
from tests.clients.roster import CLIENTS
from tests.clients.run import Outcome, gateway, run

TARGET: Final = 0.95
"""Share of cases that must work."""


def main() -> int:
    """Run what the command line names; returns the exit code."""
    options = argparse.ArgumentParser(prog="clients", description=__doc__)
    names = [client.name for client in CLIENTS]
    options.add_argument("--client", action="append", choices=names, help="default: all")
    options.add_argument("--case", action="append", default=[], help="default: all")
    options.add_argument(
        "--write", action="store_true", help="write the table into docs/gateway.md"
    )
    wanted = options.parse_args()
    chosen = [one for one in CLIENTS if not wanted.client or one.name in wanted.client]
    console = Console()
    with Progress(console=console) as progress:
        step = progress.add_task("environments", total=len(chosen))
        for client in chosen:
            progress.update(step, description=f"environment of {client.title}")
            prepare(client)
            progress.advance(step)
    folder = Path(tempfile.mkdtemp(prefix="agentapi-clients-"))
    console.print(f"logs in {folder}")
    outcomes: list[Outcome] = []
    with gateway(folder) as served, Progress(console=console) as progress:
        step = progress.add_task("clients", total=len(chosen))
        for client in chosen:
            for outcome in run(client, served, wanted.case):
                progress.update(step, description=f"{client.title}: {outcome.case}")
                outcomes.append(outcome)
            progress.advance(step)
    report.show(outcomes, console)
    if wanted.write:
        report.write(outcomes)
    worked = sum(outcome.error is None for outcome in outcomes)
    return 0 if outcomes and worked >= TARGET * len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
