"""`doctor`: find what is wrong with an installation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from pydantic_core import to_json
from rich.table import Table
from rich.text import Text

from agentapi import load_settings
from agentapi.checks.findings import Finding, Level, fail
from agentapi.errors import AgentAPIError
from orchestrator.cli.console import console
from orchestrator.cli.inspect import settings_kind

_STYLE = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


def doctor(
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the findings as JSON, for programs.")
    ] = False,
) -> None:
    """Check Redis, the broker, all workers, their agents and providers; say how to repair faults.

    The exit code is 1 if turns wait or fail because of a fault.
    """
    findings = list(_findings())
    if as_json:
        typer.echo(to_json(_document(findings), indent=2).decode())
    else:
        console.print(_table(findings))
    raise typer.Exit(1 if any(f.level is Level.FAIL for f in findings) else 0)


def _findings() -> Iterator[Finding]:
    # Celery takes a while to import, and `agentapi --help` does not need it.
    from orchestrator.doctor import examine

    try:
        yield from examine(load_settings(), settings_kind())
    except AgentAPIError as error:
        yield fail("settings.invalid", str(error), "Correct the variable.")


def _document(findings: list[Finding]) -> dict[str, Any]:
    return {
        "ok": all(finding.level is not Level.FAIL for finding in findings),
        "findings": [finding.to_json() for finding in findings],
    }


def _table(findings: list[Finding]) -> Table:
    table = Table("", "code", "finding", "what to do")
    for finding in findings:
        table.add_row(
            Text(finding.level, style=_STYLE[finding.level]),
            finding.code,
            Text(finding.message),
            Text(finding.remedy),
        )
    return table
