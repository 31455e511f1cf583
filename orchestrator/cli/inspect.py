"""`settings`: show the settings."""

from __future__ import annotations

from collections.abc import Mapping

import typer
from pydantic_core import to_json
from rich.table import Table
from rich.text import Text

from agentapi import Settings
from agentapi.environment import variable
from agentapi.errors import ConfigurationError
from agentapi.providers.builtin import PROVIDER_KEYS
from agentapi.settings import read_settings, without_password
from orchestrator.cli.console import console


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(settings)


def settings() -> None:
    """Print every setting with its value. Secrets are hidden."""
    kind = settings_kind()
    values = read_settings(kind, {})
    table = Table("variable", "value", "meaning")
    for name, field in kind.model_fields.items():
        value = getattr(values, name)
        shown = without_password(value) if name.endswith("_url") else _plain(value)
        table.add_row(f"AGENTAPI_{name.upper()}", Text(shown), field.description)
    for name in PROVIDER_KEYS:
        shown = "set (hidden)" if variable(name) else "not set"
        table.add_row(name, shown, "Key of a model provider.")
    console.print(table)


def settings_kind() -> type[Settings]:
    """The gateway's settings include all others; without its extra there are only those."""
    try:
        from orchestrator.gateway.settings import GatewaySettings
    except ConfigurationError:
        return Settings
    return GatewaySettings


def _plain(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, Mapping):
        return to_json(dict(value), exclude_none=True).decode()
    return ",".join(value) if isinstance(value, tuple) else str(value)
