"""`settings` and `doctor`: show the settings, and find what is wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

import typer

from orchestrator.cli.console import console, print_json
from orchestrator.cli.options import CHECK, Json

if TYPE_CHECKING:
    from agentapi import Settings

_STYLE: Final = {"ok": "green", "warn": "yellow", "fail": "red"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=CHECK)(settings)
    app.command(rich_help_panel=CHECK)(doctor)


def settings(as_json: Json = False) -> None:
    """Print every setting with its value.

    Secrets are hidden. With --json one object on each line.
    """
    if as_json:
        for variable, value, meaning in _rows():
            print_json({"variable": variable, "value": value, "meaning": meaning})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("variable", "value", "meaning")
    for variable, value, meaning in _rows():
        table.add_row(variable, Text(value), meaning)
    console.print(table)


def _rows() -> Iterator[tuple[str, str, str]]:
    from agentapi.settings import read_settings, without_password
    from orchestrator.doctor import PROVIDER_KEYS

    kind = _settings()
    values = read_settings(kind, {})
    for name, field in kind.model_fields.items():
        value = getattr(values, name)
        shown = without_password(value) if name.endswith("_url") else _plain(value)
        yield f"AGENTAPI_{name.upper()}", shown, field.description or ""
    for name in PROVIDER_KEYS:
        shown = "set (hidden)" if os.environ.get(name) else "not set"
        yield name, shown, "Key of a model provider."


def _settings() -> type[Settings]:
    """The gateway's settings include all others; without its extra there are only those."""
    from agentapi import Settings
    from agentapi.errors import ConfigurationError

    try:
        from orchestrator.gateway.settings import GatewaySettings
    except ConfigurationError:
        return Settings
    return GatewaySettings


def _plain(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, Mapping):
        from pydantic_core import to_json

        return to_json(dict(value), exclude_none=True).decode()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def doctor(as_json: Json = False) -> None:
    """Check Redis, the broker, workers, agents and keys, and say how to repair each fault.

    With --json one object on each line. The exit code is 1 if there is a fault.
    """
    from agentapi import load_settings
    from orchestrator.doctor import examine
    from orchestrator.findings import Level

    findings = examine(load_settings())
    if as_json:
        for finding in findings:
            print_json(
                {
                    "level": finding.level.value,
                    "check": finding.check,
                    "finding": finding.what,
                    "advice": finding.advice,
                }
            )
    else:
        from rich.table import Table
        from rich.text import Text

        table = Table("", "check", "finding", "what to do")
        for finding in findings:
            level = Text(finding.level, style=_STYLE[finding.level])
            table.add_row(level, finding.check, Text(finding.what), finding.advice)
        console.print(table)
    raise typer.Exit(1 if any(f.level is Level.FAIL for f in findings) else 0)
