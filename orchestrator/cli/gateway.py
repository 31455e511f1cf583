"""`gateway` and `keys`: serve agents over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.table import Table
from rich.text import Text

from agentapi import load_settings
from agentapi.redis.aio import connect
from orchestrator.cli.console import console, errors

if TYPE_CHECKING:
    from orchestrator.gateway.tenants.keys import KeyStore

T = TypeVar("T")

keys = typer.Typer(help="Manage the gateway's bearer keys.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(gateway)
    app.add_typer(keys, name="keys")


def gateway() -> None:
    """Serve agents over HTTP, with OpenAI's API and a native one. Settings: AGENTAPI_GATEWAY_*."""
    from agentapi.logs import configure_logging
    from orchestrator.gateway import serve
    from orchestrator.gateway.settings import load_gateway_settings

    settings = load_gateway_settings()
    configure_logging(settings.log_level, settings.log_format)
    serve(settings)


@keys.command()
def create(
    tenant: Annotated[str, typer.Argument(help="The tenant that the key belongs to.")],
    label: Annotated[str, typer.Option(help="A note shown by `agentapi keys list`.")] = "",
) -> None:
    """Create a key and print it, this one time."""
    key, secret = _run(lambda store: store.create(tenant, label))
    # To stderr: stdout is the key alone, for use in scripts.
    errors.print(f"[dim]{key.key_id} of tenant {key.tenant}; the key is not shown again:[/dim]")
    typer.echo(secret)


@keys.command("list")
def list_keys() -> None:
    """List all keys, without their secrets."""
    table = Table("key", "tenant", "label", "created", "revoked")
    for key in _run(lambda store: store.all()):
        table.add_row(key.key_id, key.tenant, Text(key.label), _day(key.created), _day(key.revoked))
    console.print(table)


@keys.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY", help="The key's id, from `agentapi keys list`.")
    ],
) -> None:
    """Revoke a key, immediately and permanently."""
    key = _run(lambda store: store.revoke(key_id))
    console.print(f"{key.key_id} of tenant {key.tenant} is revoked", highlight=False)


def _run(action: Callable[[KeyStore], Awaitable[T]]) -> T:
    from orchestrator.gateway.tenants.keys import KeyStore

    async def run() -> T:
        settings = load_settings()
        client = connect(settings, connections=1)
        try:
            return await action(KeyStore(settings, client))
        finally:
            await client.aclose()

    return asyncio.run(run())


def _day(seconds: int | None) -> str:
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
