"""`doctor`: find what is wrong with an installation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import typer

from orchestrator.cli.console import console, print_json
from orchestrator.cli.failures import ExitCode
from orchestrator.cli.inspect import settings_kind
from orchestrator.cli.options import CHECK, Json

if TYPE_CHECKING:
    from rich.table import Table

    from agentapi.checks.findings import Finding

_STYLE: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=CHECK)(doctor)


def doctor(as_json: Json = False) -> None:
    """Check Redis, the broker, all workers, their agents and providers; show how to fix faults.

    The exit code is 1 if turns wait or fail because of a fault.
    """
    findings = list(_findings())
    if as_json:
        print_json(_document(findings))
    else:
        console.print(_table(findings))
    raise typer.Exit(ExitCode.OK if _is_well(findings) else ExitCode.FAILED)


def _is_well(findings: Sequence[Finding]) -> bool:
    return all(finding.level != "fail" for finding in findings)


def _findings() -> Iterator[Finding]:
    # Celery takes a while to import, and `agentapi --help` does not need it.
    from agentapi import load_settings
    from agentapi.checks.findings import fail
    from agentapi.checks.remedies import setting_remedy
    from agentapi.errors import AgentAPIError
    from orchestrator.doctor import examine

    try:
        yield from examine(load_settings(), settings_kind())
    except AgentAPIError as error:
        yield fail("settings.invalid", str(error), setting_remedy(error))


def _document(findings: list[Finding]) -> dict[str, Any]:
    return {
        "ok": _is_well(findings),
        "findings": [finding.to_json() for finding in findings],
    }


def _table(findings: list[Finding]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "code", "finding", "what to do")
    for finding in findings:
        table.add_row(
            Text(finding.level, style=_STYLE[finding.level]),
            finding.code,
            Text(finding.message),
            Text(finding.remedy),
        )
    return table
