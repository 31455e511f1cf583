"""`settings`: show the settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.console import console, print_json
from orchestrator.cli.options import CHECK, Json

if TYPE_CHECKING:
    from agentapi import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=CHECK)(settings)


def settings(as_json: Json = False) -> None:
    """Print every setting with its value.

    Secrets are hidden. With --json one object on each line.
    """
    if as_json:
        for name, value, meaning in _rows():
            print_json({"variable": name, "value": value, "meaning": meaning})
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("variable", "value", "meaning")
    for name, value, meaning in _rows():
        table.add_row(name, Text(value), meaning)
    console.print(table)


def _rows() -> Iterator[tuple[str, str, str]]:
    from agentapi.environment import variable
    from agentapi.providers.builtin import PROVIDER_KEYS
    from agentapi.settings import read_settings
    from agentapi.urls import without_password

    kind = settings_kind()
    values = read_settings(kind, {})
    for name, field in kind.model_fields.items():
        value = getattr(values, name)
        shown = without_password(value) if value and name.endswith("_url") else _plain(value)
        yield f"AGENTAPI_{name.upper()}", shown, field.description or ""
    for name in PROVIDER_KEYS:
        shown = "set (hidden)" if variable(name) else "not set"
        yield name, shown, "Key of a model provider."


def settings_kind() -> type[Settings]:
    """The class of the settings: the gateway's, which include all others, if its extra is
    installed."""
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
