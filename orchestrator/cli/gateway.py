"""`gateway` and `keys`: serve agents over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from orchestrator.cli.console import console, errors, print_json
from orchestrator.cli.failures import not_found
from orchestrator.cli.options import RUN, Json
from orchestrator.cli.views import iso

if TYPE_CHECKING:
    from orchestrator.gateway.tenants.keys import ApiKey, KeyStore

T = TypeVar("T")

keys = typer.Typer(help="Manage the gateway's bearer keys.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel=RUN)(gateway)
    app.add_typer(keys, name="keys", rich_help_panel=RUN)


def gateway(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [AGENTAPI_GATEWAY_HOST]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on; 0 for a free one. [AGENTAPI_GATEWAY_PORT]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write log lines as JSON.")] = False,
) -> None:
    """Serve agents over HTTP, with OpenAI's API and a native API. Settings: AGENTAPI_GATEWAY_*."""
    from agentapi.logs import configure_logging
    from orchestrator.gateway import serve
    from orchestrator.gateway.settings import load_gateway_settings

    given: dict[str, Any] = {"gateway_host": host, "gateway_port": port}
    if as_json:
        given["log_format"] = "json"
    settings = load_gateway_settings(
        **{name: value for name, value in given.items() if value is not None}
    )
    configure_logging(settings.log_level, settings.log_format)
    serve(settings)


@keys.command()
def create(
    tenant: Annotated[str, typer.Argument(help="The tenant that the key belongs to.")],
    label: Annotated[str, typer.Option(help="A note, shown by `agentapi keys list`.")] = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="What the key allows; may be repeated. turns: the APIs (default). For the "
            "console: read (view), content (view messages), operate (cancel, retry, approve, all "
            "tenants)."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Create a key and print it. It is not shown again."""
    from orchestrator.gateway.tenants.scopes import scopes_of

    scopes = scopes_of(scope or ())
    key, secret = _run(lambda store: store.create(tenant, label, scopes))
    if as_json:
        print_json({**_key_json(key), "secret": secret})
        return
    # To stderr, because stdout must contain only the key, for use in scripts.
    errors.print(
        f"[dim]{key.key_id} of tenant {key.tenant}; the key will not be shown again:[/dim]"
    )
    typer.echo(secret)


@keys.command("list")
def list_keys(as_json: Json = False) -> None:
    """List all keys, without their secrets.

    With --json one object on each line.
    """
    found = _run(lambda store: store.all())
    if as_json:
        for key in found:
            print_json(_key_json(key))
        return
    from rich.table import Table
    from rich.text import Text

    from orchestrator.gateway.tenants.scopes import listed

    table = Table("key", "tenant", "scopes", "label", "created", "revoked")
    for key in found:
        created, revoked = iso(key.created), iso(key.revoked) or ""
        scopes = ", ".join(listed(key.scopes))
        table.add_row(key.key_id, key.tenant, scopes, Text(key.label), created, revoked)
    console.print(table)


@keys.command()
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="KEY", help="The key's id, from `agentapi keys list`.")
    ],
    as_json: Json = False,
) -> None:
    """Revoke a key, immediately and permanently."""
    from agentapi.errors import InvalidInput

    try:
        key = _run(lambda store: store.revoke(key_id))
    except InvalidInput as error:
        raise not_found(str(error), "key_not_found") from error
    if as_json:
        print_json(_key_json(key))
    else:
        console.print(f"{key.key_id} of tenant {key.tenant} is revoked", highlight=False)


def _key_json(key: ApiKey) -> dict[str, Any]:
    from orchestrator.gateway.tenants.scopes import listed

    return {
        **asdict(key),
        "created": iso(key.created),
        "revoked": iso(key.revoked),
        "scopes": listed(key.scopes),
    }


def _run(action: Callable[[KeyStore], Awaitable[T]]) -> T:
    import asyncio

    from agentapi import load_settings
    from agentapi.redis.aio import connect
    from orchestrator.gateway.tenants.keys import KeyStore

    async def run() -> T:
        settings = load_settings()
        client = connect(settings, connections=1)
        try:
            return await action(KeyStore(settings, client))
        finally:
            await client.aclose()

    return asyncio.run(run())
